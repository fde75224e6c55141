//! A worker that gets SIGTERM during a bus outage ends, and one with commands in its socket does them; a gateway forgets the
//! workers it knew before the outage.

use futures_util::future::join_all;
use serde_json::json;
use tokenbus::Secret;
use tokenbus::internals::command::Credential;
use tokenbus::internals::gateway::{Command, RequestContext};
use tokenbus::subject::{Account, Integration};

use crate::bus::Bus;
use crate::fleet::{Fleet, eventually};
use crate::provider::Provider;
use crate::support::child::signal;
use crate::support::tokenbus::ACCOUNT;

/// Sends the signal to the bus during a worker's repair pass, then SIGTERM to the worker.
async fn ends_without_its_bus(how: &str) {
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    for name in ["a", "b", "c"] {
        let state = fleet.login(name).await;
        assert_eq!(fleet.arrive(&state, "code").await.0, 200);
    }
    first.kill().await;
    // So long that waiting for it would exceed the test's limit.
    let settings = [("TOKENBUS_REFRESH__REPAIR_INTERVAL", "1s"), ("TOKENBUS_WORKER__DRAIN", "10m")];
    let mut worker = fleet.worker_with(&settings);
    worker.ready().await;
    signal(fleet.nats.pid(), how);
    let is_missed = |log: &str| log.contains("cannot take commands") && log.contains("repair pass failed");
    eventually("the worker notices the outage", async || is_missed(&worker.log())).await;
    worker.signal("TERM");
    let ended = worker.ended().await;
    if how == "STOP" {
        signal(fleet.nats.pid(), "CONT");
    }
    assert!(ended.success(), "{how}: {ended}\n{}", worker.log());
}

#[tokio::test]
async fn a_worker_without_a_bus_ends_on_sigterm() {
    tokio::join!(ends_without_its_bus("KILL"), ends_without_its_bus("STOP"));
}

/// Workers may stay away longer than the bus.
#[tokio::test]
async fn the_gateway_forgets_known_workers_after_a_bus_outage() {
    let provider = Provider::generous().await;
    let (mut fleet, mut worker) = Fleet::configured(&provider.url).await;
    worker.kill().await;
    let mut second = fleet.worker().await;
    fleet.ready().await;
    second.kill().await;
    fleet.nats.kill().await;
    fleet.nats.restart_once_killed().await;
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let said = async || http.get(fleet.endpoint("readyz")).send().await.expect("the edge answers").text().await;
    eventually("the gateway has reconnected", async || {
        let said = said().await.expect("a whole answer");
        assert!(!said.contains("ready\"}"), "no worker is running: {said}");
        said.contains("no worker answers")
    })
    .await;
}

/// A process that stood still finds both: commands that the server has delivered, and the signal to end.
#[tokio::test]
async fn d6_commands_that_were_delivered_before_a_shutdown_are_done() {
    const COMMANDS: usize = 8;
    let provider = Provider::generous().await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    let caller = RequestContext {
        credential: Some(Credential::new(Secret::new(format!("X-Api-Key {}", fleet.admin_keys[0])))),
        ..RequestContext::default()
    };
    let edge = fleet.own_edge().await;
    let seal_to = edge.seal_to(&caller).await;
    let put = |number| {
        let (id, mut config) = (format!("late{number}"), fleet.config());
        config["integration_id"] = json!(id);
        let (integration, account) = (Integration::parse(&id).unwrap(), Account::parse(ACCOUNT).unwrap());
        let seal_to = seal_to.clone();
        Command::Put { integration, account, seal_to, body: config.to_string().into() }
    };
    let bus = Bus::of(&fleet.nats).await;
    fleet.idle().await;
    worker.signal("STOP");
    let answers = join_all((0..COMMANDS).map(|number| edge.bus.command(put(number), &caller)));
    let ends = async {
        let queued = async || bus.info("OAUTH_COMMANDS").await.state.messages;
        eventually("all are queued", async || queued().await == COMMANDS as u64).await;
        worker.signal("TERM");
        worker.signal("CONT");
        worker.ended().await
    };
    let (answers, ended) = tokio::join!(answers, ends);
    for answer in answers {
        answer.expect("the command is done");
    }
    assert!(ended.success(), "{ended}");
}
