//! A worker that gets SIGTERM during a bus outage ends; a gateway forgets the workers it knew before the outage, and says when
//! there is none.

use reqwest::Method;
use serde_json::Value;

use crate::fleet::{Fleet, eventually};
use crate::provider::Provider;
use crate::support::child::signal;

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

#[tokio::test]
async fn without_a_worker_an_error_says_so_and_not_that_the_bus_is_away() {
    let fleet = Fleet::start("https://provider.example").await;
    for path in ["hub/integrations/odd/oauth-login/one", "hub/integrations/oauth-config", "hub/providers"] {
        let (status, answer) = fleet.request(Method::GET, path, &fleet.admin_keys[0], &Value::Null).await;
        let error = answer["error"].as_str().expect("a text");
        assert!(status == 503 && error.starts_with("no worker answers; "), "{path}: {status} {error}");
    }
}
