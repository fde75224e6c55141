//! A server whose disk is full.

use std::time::Duration;

use reqwest::{Method, StatusCode};

use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::support::wait::eventually;
use crate::world::World;

/// Status and text of the readiness.
async fn readiness(world: &World) -> (StatusCode, String) {
    let answer = world.tokenbus.request(Method::GET, "readyz").send().await.expect("tokenbus answers");
    (answer.status(), answer.text().await.expect("a whole answer"))
}

async fn doctor(world: &World, role: &str) -> String {
    let settings = settings(&world.tokenbus.nats, role, &world.tokenbus.keys_file());
    let mut doctor = tokio::process::Command::new(PROGRAM);
    let output = doctor.envs(settings).args(["doctor", "--role", role]).output().await.expect("the program starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn o4_after_a_full_disk_no_token_is_requested_until_the_server_stores_again() {
    // Only where users may mount a disk of their own.
    let Some(nats) = Nats::on_small_disk().await else { return };
    let world = World::on(nats, Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let login = world.login("two").await;
    world.tokenbus.nats.ask_disk("fill").await;
    // Some more fit into what the disk holds already.
    eventually("the gateway is not ready", async || {
        let _ = world.tokenbus.call(Method::GET, "odd/oauth-login/more").await;
        readiness(&world).await.0 == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let sent = world.provider.received().len();
    // A gateway asks the workers again after half a second.
    let mut checks = tokio::time::interval(Duration::from_millis(600));
    for _ in 0..6 {
        checks.tick().await;
        let (status, text) = readiness(&world).await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("restart nats-server"), "{status} {text}");
    }
    let callback = world.callback(&[("code", "code"), ("state", &login.state)]);
    let refresh = world.tokenbus.call(Method::GET, "odd/oauth-refresh-token/one");
    for (status, body) in <[_; 2]>::from(tokio::join!(world.tokenbus.arrive(&callback), refresh)) {
        assert!(status.is_server_error(), "{status} {body}");
    }
    assert_eq!(world.provider.received().len(), sent, "a code or refresh token was sent");
    assert!(world.tokenbus.log().contains("restart nats-server"), "{}", world.tokenbus.log());
    for (role, expected) in [("edge", "confirms no write"), ("operator", "run `tokenbus doctor --role worker`")] {
        let found = doctor(&world, role).await;
        assert!(found.contains(expected), "{role}: {found}");
    }
    let found = doctor(&world, "worker").await;
    assert!(found.contains("confirms no write") && found.contains("restart nats-server"), "{found}");

    world.tokenbus.nats.ask_disk("free").await;
    // A server that stores nothing although it has space again is still not ready.
    let refreshed = world.tokenbus.call(Method::GET, "odd/oauth-refresh-token/one").await;
    let (status, text) = readiness(&world).await;
    if status != StatusCode::OK {
        assert!(text.contains("restart nats-server"), "{text}");
        assert_ne!(refreshed.0, StatusCode::OK, "{}", refreshed.1);
        assert_eq!(world.provider.received().len(), sent, "a token was requested");
    }
    world.tokenbus.nats.ask_disk("restart").await;
    eventually("the gateway is ready again", async || readiness(&world).await.0 == StatusCode::OK).await;
    assert_eq!(world.connect("three").await.0, StatusCode::OK);
}
