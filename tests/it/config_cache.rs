//! Reads of connections ask the bus for the connection alone: workers remember which integrations have a config.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::Provider;

const DEBUG: [(&str, &str); 1] = [("TOKENBUS_LOG__FILTER", "info,tokenbus=debug")];

async fn debug_worker(fleet: &Fleet) -> Worker {
    let worker = fleet.worker_with(&DEBUG);
    worker.ready().await;
    eventually("the worker watches configs", async || worker.log().contains("watching configs")).await;
    worker
}

async fn read(fleet: &Fleet) -> Value {
    let (status, body) = fleet.get(&format!("{INTEGRATION}/oauth-token/one")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

#[tokio::test]
async fn reads_look_for_the_config_once_and_follow_the_changes_of_other_workers() {
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    let state = fleet.login("one").await;
    assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
    fleet.idle().await;
    first.kill().await;
    let worker = debug_worker(&fleet).await;
    fleet.ready().await;
    for _ in 0..50 {
        assert!(read(&fleet).await.get("status_reason").is_none());
    }
    // The entry in the cache expires after a minute, which may end in between.
    let looked = worker.log().matches("reading oauth_configs/").count();
    assert!((1..5).contains(&looked), "{looked} times for 50 reads");

    // Each change is made by one of the two workers. Reads of both follow it.
    let other = debug_worker(&fleet).await;
    let path = format!("hub/integrations/{INTEGRATION}/oauth-config");
    for (method, reason) in [(Method::DELETE, json!("no_config")), (Method::PUT, Value::Null)] {
        let (status, body) = fleet.request(method, &path, &fleet.admin_keys[0], &fleet.config()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let answers = |worker: &Worker| worker.log().matches("answered").count();
        let before = [answers(&worker), answers(&other)];
        eventually("both workers' reads follow the change", async || {
            read(&fleet).await["status_reason"] == reason
                && answers(&worker) > before[0] + 5
                && answers(&other) > before[1] + 5
        })
        .await;
        for _ in 0..20 {
            assert_eq!(read(&fleet).await["status_reason"], reason);
        }
    }
}

/// The server keeps the consumer of a watch when its client reconnects at once, so the watch does not end by itself.
#[tokio::test]
async fn a_watch_begins_again_on_a_new_connection() {
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    first.kill().await;
    let worker = debug_worker(&fleet).await;
    let system = fleet.nats.connect("system").await;
    let ask = async |subject: &str, question: Value| {
        let answer = system.request(subject.to_owned(), question.to_string().into()).await.expect("the server answers");
        serde_json::from_slice::<Value>(&answer.payload).expect("JSON")
    };
    let known = ask("$SYS.REQ.SERVER.PING.CONNZ", json!({ "auth": true })).await;
    let server = known["server"]["id"].as_str().expect("a server has an id").to_owned();
    let connections = known["data"]["connections"].as_array().expect("connections");
    let of_worker = connections.iter().filter(|connection| connection["authorized_user"] == "worker");
    for connection in of_worker {
        ask(&format!("$SYS.REQ.SERVER.{server}.KICK"), json!({ "cid": connection["cid"] })).await;
    }
    eventually("configs are watched again", async || worker.log().matches("watching configs").count() == 2).await;
}
