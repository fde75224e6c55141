//! The upgrade from commit c68022c, on a store that this commit wrote: stop, new NATS users, `tokenbus setup`, start.
//!
//! `tests/data/store-c68022c.tar.gz` holds the server's store, the secrets of its configuration (`local.env`), the
//! keyring (`keys.toml`) and an admin's API key (`api_key`), which are used nowhere else. In the store, the account has
//! the connections `one` (without expiry) and `two` (with one) of the integration `odd`; it has deleted `three`.

use std::path::Path;
use std::process::Command;

use async_nats::jetstream;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::StreamMessage;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bus::{BUCKETS, Bus};
use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::root;
use crate::support::tokenbus::{PROGRAM, read, run, settings};
use crate::support::wait::{PATIENCE, eventually};

/// The old store on a server with the configuration of this release.
async fn old_store() -> (Nats, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = root().join("tests/data/store-c68022c.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(data).arg("-C").arg(folder.path()).status();
    assert!(unpacked.expect("tar is installed").success());
    let secrets = tempfile::tempdir().expect("a temporary folder");
    for file in ["keys.toml", "api_key"] {
        std::fs::copy(folder.path().join(file), secrets.path().join(file)).expect("a file of the archive");
    }
    (Nats::on_folder(folder).await, secrets)
}

async fn messages(nats: &Nats) -> Vec<(String, u64)> {
    let bus = Bus::of(nats).await;
    let mut found = Vec::new();
    for name in ["OAUTH", "OAUTH_SCHEDULE", "KV_oauth_connections", "KV_oauth_configs", "KV_oauth_api_keys"] {
        found.push((name.to_owned(), bus.info(name).await.state.messages));
    }
    found
}

/// The record of the deleted connection.
async fn tombstone(nats: &Nats) -> StreamMessage {
    let records = Bus::of(nats).await.messages("OAUTH").await;
    records.into_iter().find(|record| record.subject.ends_with(".odd.three")).expect("it has a record")
}

#[tokio::test]
async fn h14_a_store_of_commit_c68022c_is_upgraded_by_setup() {
    let (nats, secrets) = old_store().await;
    let keys = secrets.path().join("keys.toml");
    // A worker of this release does not touch the older form.
    let early =
        Command::new(PROGRAM).args(["serve", "--role", "worker"]).envs(settings(&nats, "worker", &keys)).output();
    let errors = String::from_utf8_lossy(&early.expect("the program starts").stderr).into_owned();
    assert!(errors.contains("tokenbus setup"), "{errors}");
    let before = messages(&nats).await;
    let old: Value = serde_json::from_slice(&tombstone(&nats).await.payload).expect("JSON");
    assert!(old.get("scope").is_some(), "{old}");
    let as_setup = settings(&nats, "setup", &keys);
    // Nor does setup while a worker of the older release takes commands.
    let worker = jetstream::new(nats.connect("worker").await);
    let queue = worker.get_stream("OAUTH_COMMANDS").await.expect("the queue");
    let mut consumer: PullConsumer = queue.get_consumer("refresh").await.expect("the older worker made it");
    let pull = consumer.batch().max_messages(1).expires(PATIENCE).messages().await.expect("a pull");
    while consumer.info().await.expect("the server answers").num_waiting == 0 {}
    let early = Command::new(PROGRAM).arg("setup").envs(&as_setup).output().expect("the program starts");
    let errors = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(errors.contains("stop all workers and gateways"), "{errors}");
    drop((pull, consumer, queue, worker));
    eventually("the pull is forgotten", async || {
        Command::new(PROGRAM).arg("setup").envs(&as_setup).output().expect("the program starts").status.success()
    })
    .await;
    for _ in 0..2 {
        run(&as_setup, &["setup"]).await;
    }
    assert_eq!(messages(&nats).await, before);
    let tombstone = tombstone(&nats).await;
    assert!(tombstone.headers.get("Nats-TTL").is_some());
    let body: Value = serde_json::from_slice(&tombstone.payload).expect("JSON");
    assert!(body.get("scope").is_none() && body.get("metadata").is_none(), "{body}");
    assert_eq!((&body["status"], &body["subject"]), (&json!("revoked"), &json!(tombstone.subject.as_str())), "{body}");
    let jetstream = jetstream::new(nats.connect("setup").await);
    for name in ["OAUTH", "OAUTH_COMMANDS", "OAUTH_EVENTS", "OAUTH_DEAD"].into_iter().chain(BUCKETS) {
        let stream = jetstream.get_stream(name).await.expect("the stream");
        assert_eq!(stream.cached_info().config.max_bytes, 100 << 20, "{name}");
    }

    let log = secrets.path().join("log");
    let mut process = Running::start(Path::new(PROGRAM), &log, |command| {
        command.envs(settings(&nats, "worker", &keys)).args(["serve", "--role", "all"]);
    });
    let url = process.line(|line| line.strip_prefix("listening on ").map(str::to_owned)).await;
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client");
    let key = std::fs::read_to_string(secrets.path().join("api_key")).expect("an API key");
    let get = async |path: &str| -> (StatusCode, Value) {
        let request = http.get(format!("{}/{path}", url.trim_end_matches('/'))).header("x-api-key", key.trim());
        read(request.send().await.expect("the gateway answers")).await
    };
    eventually("the gateway is ready; otherwise see its log", async || get("readyz").await.0 == StatusCode::OK).await;
    let (status, body) = get("hub/integrations/odd/oauth-token/one").await;
    assert_eq!((status, &body["access_token"]), (StatusCode::OK, &json!("upgrade-at-1")), "{body}");
    let (status, body) = get("hub/integrations/odd/oauth-token/two").await;
    assert_eq!((status, &body["access_token"]), (StatusCode::OK, &json!("upgrade-at-2")), "{body}");
    assert_eq!(get("hub/integrations/odd/oauth-token/three").await.0, StatusCode::NOT_FOUND);
    let (status, body) = get("hub/integrations/odd/oauth-config").await;
    assert_eq!((status, &body["name"]), (StatusCode::OK, &json!("Odd")), "{body}");
    let (status, body) = get("hub/integrations/odd/oauth-login/four").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}
