//! A server that was killed and could not restore a stream afterwards.

use std::time::Instant;

use reqwest::StatusCode;

use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::wait::eventually;
use crate::world::World;

#[tokio::test]
async fn d9_a_queue_that_the_server_lost_is_created_again() {
    let mut world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let nats = &mut world.tokenbus.nats;
    nats.kill().await;
    for queue in ["OAUTH_COMMANDS", "OAUTH_SCHEDULE"] {
        let folder = nats.store().join("jetstream/OAUTH/streams").join(queue);
        std::fs::remove_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    nats.restart_once_killed().await;
    world.tokenbus.ready().await;
    // Before a failed pull shows that the queues are missing.
    let is_logged = async || world.tokenbus.log().contains("reconnected; the queues exist");
    eventually("the worker checks the queues on its new connection", is_logged).await;
    // A login is a command, and leaves a schedule.
    eventually("a login works again", async || world.connect("two").await.0 == StatusCode::OK).await;
    let bus = crate::bus::Bus::of(&world.tokenbus.nats).await;
    // The repair pass restores the other connection's schedule.
    eventually("both have a schedule", async || bus.info("OAUTH_SCHEDULE").await.state.messages == 2).await;
    assert_eq!(world.read("one").await.0, StatusCode::OK, "nothing else is lost");
}

/// Deletes the schedules' stream while the server is down, then restarts it. Commands are not affected.
async fn lose_schedules(nats: &mut Nats) {
    let folder = nats.store().join("jetstream/OAUTH/streams/OAUTH_SCHEDULE");
    std::fs::remove_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    nats.restart_once_killed().await;
}

/// Waits until the connection has its schedule again, and checks that logins work.
async fn assert_restored(world: &World) {
    world.tokenbus.ready().await;
    let bus = crate::bus::Bus::of(&world.tokenbus.nats).await;
    let has_schedule = async || bus.try_info("OAUTH_SCHEDULE").await.is_some_and(|info| info.state.messages > 0);
    eventually("the connection has its schedule again", has_schedule).await;
    assert_eq!(world.connect("two").await.0, StatusCode::OK);
}

#[tokio::test]
async fn d9_schedules_that_the_server_lost_are_restored_at_once() {
    let mut world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    world.tokenbus.nats.kill().await;
    lose_schedules(&mut world.tokenbus.nats).await;
    assert_restored(&world).await;
}

/// The server and the workers went down together.
#[tokio::test]
async fn d9_schedules_that_were_lost_before_a_start_are_restored_at_once() {
    let mut world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    world.tokenbus.restart_without_nats().await;
    lose_schedules(&mut world.tokenbus.nats).await;
    assert_restored(&world).await;
}

#[tokio::test]
async fn a_bus_outage_is_logged_once_and_then_at_growing_intervals() {
    let mut world = World::with(Provider::generous().await).await;
    let count = |world: &World, text: &str| world.tokenbus.log().matches(text).count();
    world.tokenbus.nats.kill().await;
    let began = Instant::now();
    // Logged at the first, second, fourth and eighth failure. Each connection has been retried often by then.
    let failed = async || count(&world, "cannot take commands (refresh)") >= 4;
    eventually("commands could not be taken for long", failed).await;
    let (away, reasons) =
        (count(&world, "disconnected from NATS; trying again"), count(&world, "no connection to NATS"));
    let minutes =
        1 + usize::try_from(began.elapsed().as_secs() / 60).expect("a test takes less than a billion minutes");
    assert!(away > 0 && reasons <= away * minutes, "{away} connections: {}", world.tokenbus.log());
    let connected = count(&world, "connected to NATS");
    world.tokenbus.nats.restart_once_killed().await;
    eventually("each connection logs that it is back", async || count(&world, "connected to NATS") >= connected + away)
        .await;
    let password = world.tokenbus.nats.password("worker");
    assert!(!world.tokenbus.log().contains(password), "the log has no credential for the server");
}
