//! Streams that are full, or nearly.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use reqwest::StatusCode;
use tokio::process::Command;

use crate::bus::BUCKETS;
use crate::fleet::{Fleet, eventually};
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};

/// Changes how many bytes a stream may store. `more` is counted from what it stores now.
pub(crate) async fn leave_room(fleet: &Fleet, stream: &str, more: i64) {
    let setup = fleet.jetstream("setup").await;
    let info = setup.get_stream(stream).await.expect("the stream").cached_info().clone();
    let bytes = i64::try_from(info.state.bytes).expect("a small stream");
    setup.update_stream(Config { max_bytes: bytes + more, ..info.config }).await.expect("setup changes streams");
}

#[tokio::test]
async fn h5_no_code_and_no_refresh_token_is_sent_while_the_store_is_nearly_full() {
    let provider = Provider::generous().await;
    let (fleet, worker) = Fleet::configured(&provider.url).await;
    let state = fleet.login("one").await;
    assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
    for (number, stream) in ["OAUTH", "KV_oauth_connections"].into_iter().enumerate() {
        let sent = provider.received().len();
        leave_room(&fleet, stream, 10).await;
        let text = format!("stream {stream} is above 95 %");
        eventually("the worker sees the full stream", async || worker.log().contains(&text)).await;

        let name = format!("new{number}");
        let state = fleet.login(&name).await;
        let (status, body) = fleet.arrive(&state, "code").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert!(body.to_string().contains("nearly full"), "{body}");
        let (status, body) = fleet.get("odd/oauth-refresh-token/one").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert_eq!(provider.received().len(), sent, "the provider was asked for tokens");

        leave_room(&fleet, stream, 10 << 20).await;
        // The login was not consumed.
        eventually("the same callback connects", async || fleet.arrive(&state, "code").await.0 == StatusCode::OK).await;
    }
}

#[tokio::test]
async fn h5_after_a_refused_write_the_gateway_is_not_ready_until_one_succeeds() {
    let provider = Provider::generous().await;
    let (fleet, _worker) = Fleet::configured(&provider.url).await;
    fleet.ready().await;
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client");
    let readyz = async || http.get(fleet.endpoint("readyz")).send().await.expect("the edge answers").status();
    leave_room(&fleet, "KV_oauth_states", 1).await;
    leave_room(&fleet, "KV_oauth_meta", 1).await;
    assert_ne!(fleet.get("odd/oauth-login/one").await.0, StatusCode::OK);
    eventually("the gateway is not ready", async || readyz().await == StatusCode::SERVICE_UNAVAILABLE).await;
    leave_room(&fleet, "KV_oauth_meta", 1 << 20).await;
    leave_room(&fleet, "KV_oauth_states", 1 << 20).await;
    eventually("the gateway is ready again", async || readyz().await == StatusCode::OK).await;
}

#[tokio::test]
async fn o4_each_readiness_check_names_a_stream_that_is_full() {
    let provider = Provider::generous().await;
    let (fleet, _worker) = Fleet::configured(&provider.url).await;
    let state = fleet.login("one").await;
    assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
    fleet.login("two").await;
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client");
    let readyz = async || {
        let answer = http.get(fleet.endpoint("readyz")).send().await.expect("the edge answers");
        (answer.status(), answer.text().await.expect("a whole answer"))
    };
    // The queue is empty here.
    for stream in ["OAUTH", "KV_oauth_connections", "KV_oauth_states"] {
        leave_room(&fleet, stream, 1).await;
        let is_named = async || {
            let (status, text) = readyz().await;
            status == StatusCode::SERVICE_UNAVAILABLE && text.contains(stream)
        };
        eventually("the readiness names the full stream", is_named).await;
        let mut checks = tokio::time::interval(Duration::from_millis(600));
        for _ in 0..4 {
            // A gateway asks the workers again after half a second.
            checks.tick().await;
            assert!(is_named().await, "{stream}: {:?}", readyz().await);
        }
        leave_room(&fleet, stream, 10 << 20).await;
        eventually("the gateway is ready again", async || readyz().await.0 == StatusCode::OK).await;
    }
}

#[tokio::test]
async fn h5_setup_limits_every_stream_and_names_the_setting_that_does_not_fit() {
    let fleet = Fleet::start("http://127.0.0.1:1").await;
    let setup = fleet.jetstream("setup").await;
    let config = async |name: &str| setup.get_stream(name).await.expect("the stream").cached_info().config.clone();
    // A store from before the limits.
    let older = Config { max_bytes: -1, discard: DiscardPolicy::Old, ..config("OAUTH").await };
    setup.update_stream(older).await.expect("setup changes streams");
    fleet.cli(&["setup"]).await;
    let rolls = ["OAUTH_EVENTS", "OAUTH_DEAD"];
    for name in ["OAUTH", "OAUTH_COMMANDS"].into_iter().chain(rolls).chain(BUCKETS) {
        let found = config(name).await;
        assert_eq!(found.max_bytes, 100 << 20, "{name}");
        assert_eq!(found.discard == DiscardPolicy::Old, rolls.contains(&name), "{name}");
    }

    let small = ("max_memory_store: 64MB", "max_file_store: 250MB, max_memory_store: 64MB");
    let nats = Nats::edited(&[small], &[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = settings(&nats, "setup", &folder.path().join("keys"));
    let output = Command::new(PROGRAM).arg("setup").envs(&settings).output().await.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("lower `nats.max_bytes."), "{errors}");
}
