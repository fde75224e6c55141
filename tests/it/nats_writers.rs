//! Who can write into buckets and change streams, with the shipped configuration.

use async_nats::Client;
use async_nats::client::Request;
use serde_json::{Value, json};
use std::time::Duration;

use crate::bus::{BUCKETS, Bus};
use crate::fleet::eventually;
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, run, settings};
use crate::wire::Wire;

const STREAMS: [&str; 5] = ["OAUTH", "OAUTH_COMMANDS", "OAUTH_SCHEDULE", "OAUTH_DEAD", "OAUTH_EVENTS"];

async fn bus_that_is_set_up() -> Nats {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().unwrap();
    run(&settings(&nats, "setup", &folder.path().join("keys")), &["setup"]).await;
    nats
}

/// Adds a subject that an attacker may publish to a bucket's stream, transformed into a key of the bucket.
fn redirected(config: &Value) -> Value {
    let mut config = config.clone();
    let own = attacked();
    config["subjects"].as_array_mut().expect("a stream has subjects").push(json!(own));
    config["subject_transform"] = json!({ "src": own, "dest": "$KV.oauth_configs.odd" });
    config
}

fn attacked() -> String {
    format!("ms.oauth.{ACCOUNT}.attack")
}

/// Returns true if the server carried the request out.
async fn succeeds(client: &Client, subject: String, payload: String) -> bool {
    let request = Request::new().payload(payload.into()).timeout(Some(Duration::from_secs(1)));
    let Ok(answer) = client.send_request(subject, request).await else { return false };
    serde_json::from_slice::<Value>(&answer.payload).is_ok_and(|answer| answer.get("error").is_none())
}

async fn configuration(bus: &Bus) -> Vec<Value> {
    let mut all = Vec::new();
    for name in STREAMS.into_iter().chain(BUCKETS) {
        all.push(json!(bus.info(name).await.config));
    }
    all
}

#[tokio::test]
async fn h7_only_worker_and_setup_reach_a_bucket_also_through_a_changed_stream() {
    let nats = bus_that_is_set_up().await;
    let bus = Bus::of(&nats).await;
    let before = configuration(&bus).await;
    let mut sequences = Vec::new();
    for name in BUCKETS {
        sequences.push(bus.last_sequence(name).await);
    }
    let bucket = json!(bus.info("KV_oauth_configs").await.config);
    for user in ["operator", "admin", "edge", "demo"] {
        let client = nats.connect(user).await;
        let update = "$JS.API.STREAM.UPDATE.KV_oauth_configs".to_owned();
        assert!(!succeeds(&client, update, redirected(&bucket).to_string()).await, "{user} changed a bucket's stream");
        let _ = succeeds(&client, attacked(), "{}".to_owned()).await;
        for name in BUCKETS {
            let key = format!("$KV.{}.{ACCOUNT}", name.trim_start_matches("KV_"));
            assert!(!succeeds(&client, key, "{}".to_owned()).await, "{user} wrote into {name}");
        }
        for (name, expected) in BUCKETS.into_iter().zip(&sequences) {
            assert_eq!(bus.last_sequence(name).await, *expected, "{user} wrote into {name}");
        }
    }
    assert_eq!(configuration(&bus).await, before);

    // The workers write into buckets, but change no stream.
    let worker = nats.connect("worker").await;
    let update = "$JS.API.STREAM.UPDATE.KV_oauth_configs".to_owned();
    assert!(!succeeds(&worker, update.clone(), redirected(&bucket).to_string()).await, "the worker changed a stream");
    assert!(succeeds(&worker, "$KV.oauth_configs.odd".to_owned(), "{}".to_owned()).await);

    // The attack is a real one: it succeeds for the user that may change streams.
    let setup = nats.connect("setup").await;
    assert!(succeeds(&setup, update, redirected(&bucket).to_string()).await);
    assert!(succeeds(&worker, "$KV.oauth_configs.odd".to_owned(), "{}".to_owned()).await);
    let demo = nats.connect("demo").await;
    demo.publish(attacked(), "junk".into()).await.unwrap();
    Nats::flush(&demo).await;
    eventually("the message is in the bucket", async || {
        let read = bus.messages("KV_oauth_configs").await;
        read.last().is_some_and(|message| message.payload.as_ref() == b"junk".as_slice())
    })
    .await;
}

#[tokio::test]
async fn h7_permissions_name_no_other_way_into_a_stream() {
    let nats = Nats::start().await;
    for (user, acts) in [
        ("worker", &["UPDATE", "DELETE", "RESTORE", "SNAPSHOT"][..]),
        ("operator", &["CREATE", "UPDATE", "DELETE", "RESTORE", "SNAPSHOT", "PURGE"]),
        ("admin", &["CREATE", "UPDATE", "DELETE", "RESTORE", "SNAPSHOT", "PURGE"]),
        ("edge", &["CREATE", "UPDATE", "DELETE", "RESTORE", "SNAPSHOT", "PURGE"]),
    ] {
        let mut wire = Wire::connect(&nats, user).await;
        for act in acts {
            for stream in STREAMS.into_iter().chain(BUCKETS).chain(["MINE"]) {
                let subject = format!("$JS.API.STREAM.{act}.{stream}");
                assert!(!wire.may_publish(&subject).await, "{user} may publish {subject}");
            }
        }
        for bucket in BUCKETS.iter().filter(|_| user != "worker") {
            let subject = format!("$KV.{}.x", bucket.trim_start_matches("KV_"));
            assert!(!wire.may_publish(&subject).await, "{user} may publish {subject}");
        }
    }
}
