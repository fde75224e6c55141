//! The repair pass compares records and entries in both directions.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::Stream;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;

const NAME: &str = "w";
const TOKEN: &str = "odd/oauth-token/w";

async fn connected(provider: &Provider) -> (Fleet, Worker) {
    let mut fleet = Fleet::start(&provider.url).await;
    fleet.settings.insert("TOKENBUS_REFRESH__REPAIR_INTERVAL".to_owned(), "1s".to_owned());
    fleet.settings.insert("TOKENBUS_REFRESH__MIN_INTERVAL".to_owned(), "1ms".to_owned());
    let (fleet, worker) = fleet.configure().await;
    let (status, body) = fleet.arrive(&fleet.login(NAME).await, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    fleet.idle().await;
    (fleet, worker)
}

async fn stream(fleet: &Fleet, name: &str) -> Stream {
    fleet.jetstream("setup").await.get_stream(name).await.expect("the stream")
}

/// Writes a payload into a bucket, as a worker may.
async fn write(fleet: &Fleet, subject: String, payload: Vec<u8>) {
    let jetstream = fleet.jetstream("worker").await;
    jetstream.publish(subject, payload.into()).await.expect("sent").await.expect("stored");
}

/// Leaves nothing of an entry after a second. Until then it looks newer than its record. No NATS user may purge the bucket.
async fn remove(fleet: &Fleet, key: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    headers.insert("Nats-TTL", "1s");
    let body = json!({ "sequence": u64::MAX }).to_string();
    let jetstream = fleet.jetstream("worker").await;
    let sent = jetstream.publish_with_headers(key.to_owned(), headers, body.into()).await;
    sent.expect("sent").await.expect("stored");
}

fn sequence(entry: Option<&Value>) -> Option<u64> {
    entry.and_then(|entry| entry["sequence"].as_u64())
}

#[tokio::test]
async fn d9_the_repair_pass_restores_missing_and_older_entries_from_their_records() {
    let provider = Provider::generous().await;
    let (fleet, _worker) = connected(&provider).await;
    let key = format!("$KV.oauth_connections.{ACCOUNT}.{INTEGRATION}.{NAME}");
    let bucket = stream(&fleet, "KV_oauth_connections").await;
    let first = bucket.get_last_raw_message_by_subject(&key).await.expect("the entry").payload;

    remove(&fleet, &key).await;
    eventually("the missing entry is back", async || fleet.stored(NAME).await.0.is_some()).await;
    assert_eq!(fleet.get(TOKEN).await.0, StatusCode::OK);

    let (status, refreshed) = fleet.get("odd/oauth-refresh-token/w").await;
    assert_eq!(status, StatusCode::OK, "{refreshed}");
    let newest = fleet.record(&Fleet::path(NAME)).await.0;
    assert_eq!(refreshed["sequence"].as_u64(), newest);
    write(&fleet, key, first.to_vec()).await;
    eventually("the entry is as new as its record", async || {
        sequence(fleet.stored(NAME).await.0.as_ref()) == newest && fleet.get(TOKEN).await.1 == refreshed
    })
    .await;
}

#[tokio::test]
async fn d9_the_repair_pass_restores_an_older_config_from_its_record() {
    let provider = Provider::generous().await;
    let (fleet, _worker) = connected(&provider).await;
    let first = fleet.stored_config().await;
    assert_eq!(fleet.put(&fleet.admin_keys[0], &fleet.config()).await.0, StatusCode::OK);
    let second = fleet.stored_config().await;
    assert!(sequence(Some(&first)) < sequence(Some(&second)));
    write(&fleet, format!("$KV.oauth_configs.{INTEGRATION}"), first.to_string().into_bytes()).await;
    let is_newest = async || sequence(Some(&fleet.stored_config().await)) == sequence(Some(&second));
    eventually("the config is as new as its record", is_newest).await;
}

/// Releases before markers removed the entry, and a killed server brings an older one back.
#[tokio::test]
async fn d9_the_repair_pass_writes_the_marker_of_a_deletion_that_has_none() {
    let provider = Provider::generous().await;
    let (fleet, _worker) = connected(&provider).await;
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/{NAME}");
    let (status, body) = fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    fleet.idle().await;
    let (bus, key) = (Bus::of(&fleet.nats).await, format!("$KV.oauth_connections.{ACCOUNT}.{INTEGRATION}.{NAME}"));
    remove(&fleet, &key).await;
    let is_marked = async || {
        let marker = bus.last("KV_oauth_connections", &key).await;
        marker.is_some_and(|marker| {
            marker.headers.get("KV-Operation").is_some() && String::from_utf8_lossy(&marker.payload).contains("sealed")
        })
    };
    eventually("the marker is back", is_marked).await;
    assert_eq!(fleet.get(TOKEN).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn d9_an_entry_without_a_record_stays_and_is_reported() {
    let provider = Provider::generous().await;
    let (fleet, worker) = connected(&provider).await;
    let subject = format!("ms.integration.oauth.{}", Fleet::path(NAME));
    stream(&fleet, "OAUTH").await.purge().filter(subject.as_str()).await.expect("purged");
    let is_reported = async || worker.log().contains("1 entries have no record") && worker.log().contains(&subject);
    eventually("the entry is reported", is_reported).await;
    assert_eq!(fleet.get(TOKEN).await.0, StatusCode::OK);
}
