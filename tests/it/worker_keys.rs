//! API keys in several workers' memories, and on the command line.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::fleet::{Fleet, Worker, eventually};
use crate::support::tokenbus::ACCOUNT;

const DEBUG_LOG: (&str, &str) = ("TOKENBUS_LOG__FILTER", "tokenbus=debug");

/// A fleet without a provider, for tests without logins.
async fn fleet() -> Fleet {
    Fleet::start("http://127.0.0.1:1").await
}

async fn debug_worker(fleet: &Fleet) -> Worker {
    let worker = fleet.worker_with(&[DEBUG_LOG]);
    worker.ready().await;
    eventually("the worker watches API keys", async || worker.log().contains("watching API keys")).await;
    worker
}

/// A new key of the fleet's account.
async fn create_key(fleet: &Fleet, more: &[&str]) -> Value {
    let arguments = [&["api-keys", "create", "--account", ACCOUNT, "--json"], more].concat();
    serde_json::from_str(&fleet.cli(&arguments).await).expect("a key in JSON")
}

fn text<'a>(create_key: &'a Value, field: &str) -> &'a str {
    create_key[field].as_str().unwrap_or_else(|| panic!("no {field} in {create_key}"))
}

/// Uses a key until each of the workers has seen it.
async fn wait_until_known(fleet: &Fleet, key: &str, workers: &[&Worker]) {
    let answered = |worker: &&Worker| worker.log().matches("answered").count();
    let before: Vec<usize> = workers.iter().map(answered).collect();
    eventually("every worker has seen the key", async || {
        assert_eq!(fleet.list_with(key).await, 200);
        workers.iter().map(answered).zip(&before).all(|(now, before)| now > *before)
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_every_worker() {
    let fleet = fleet().await;
    let (one, two) = (debug_worker(&fleet).await, debug_worker(&fleet).await);
    fleet.ready().await;
    let create_key = create_key(&fleet, &[]).await;
    wait_until_known(&fleet, text(&create_key, "key"), &[&one, &two]).await;

    let printed = fleet.cli(&["api-keys", "revoke", text(&create_key, "id")]).await;
    assert!(printed.contains("revoked"), "{printed}");
    eventually("every worker refuses the key", async || {
        for _ in 0..30 {
            if fleet.list_with(text(&create_key, "key")).await != 401 {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn a_known_key_is_verified_without_asking_the_bus() {
    let fleet = fleet().await;
    let worker = debug_worker(&fleet).await;
    fleet.ready().await;
    let create_key = create_key(&fleet, &[]).await;
    let key = text(&create_key, "key");
    wait_until_known(&fleet, key, &[&worker]).await;
    eventually("the last use is stored", async || {
        fleet.cli(&["api-keys", "list", "--json"]).await.contains("last_used")
    })
    .await;
    fleet.list_with(key).await;
    let reads = || worker.log().matches("reading oauth_api_keys/").count();
    let before = reads();
    for _ in 0..50 {
        assert_eq!(fleet.list_with(key).await, 200);
    }
    // The cache entry expires after a minute, which may end in between.
    let reads = reads() - before;
    assert!(before > 0 && reads < 5, "{reads} reads for 50 calls");
}

#[tokio::test]
async fn keys_revoked_after_a_bus_outage_are_refused() {
    let mut fleet = fleet().await;
    let worker = debug_worker(&fleet).await;
    fleet.ready().await;
    let create_key = create_key(&fleet, &[]).await;
    wait_until_known(&fleet, text(&create_key, "key"), &[&worker]).await;
    fleet.nats.kill().await;
    fleet.nats.restart_once_killed().await;
    fleet.ready().await;
    wait_until_known(&fleet, text(&create_key, "key"), &[&worker]).await;
    fleet.cli(&["api-keys", "revoke", text(&create_key, "id")]).await;
    eventually("the key is refused", async || fleet.list_with(text(&create_key, "key")).await == 401).await;
    eventually("the worker watches API keys again", async || worker.log().matches("watching API keys").count() > 1)
        .await;
}

#[tokio::test]
async fn keys_are_listed_and_revoked_on_the_command_line() {
    let fleet = fleet().await;
    let _worker = fleet.worker().await;
    let create_key = create_key(&fleet, &["--name", "billing", "--rate-limit", "50"]).await;
    let (id, key) = (text(&create_key, "id"), text(&create_key, "key"));
    assert_eq!(create_key["rate_limit"], 50);
    let table = fleet.cli(&["api-keys", "list"]).await;
    let row = table.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{table}"));
    for part in ["billing", "member", ACCOUNT, "never", "50/s"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    let secret = key.splitn(3, '_').nth(2).unwrap();
    assert!(!table.contains(secret), "{table}");
    let lines = fleet.cli(&["api-keys", "list", "--account", &fleet.other_account, "--json"]).await;
    let keys: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(keys.len(), 1, "{lines}");
    assert_eq!((&keys[0]["account"], &keys[0]["role"]), (&Value::from(fleet.other_account.as_str()), &"admin".into()));
    assert!(keys[0].get("hash").is_none(), "{lines}");

    fleet.cli(&["api-keys", "revoke", id]).await;
    assert!(!fleet.cli(&["api-keys", "list"]).await.contains(id));
    for wrong in [id, "ffffffffffff", "x", key] {
        let (code, error) = fleet.cli_failing(&["api-keys", "revoke", wrong]).await;
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("tokenbus api-keys list") && !error.contains(secret), "{error}");
    }
    let (code, error) = fleet.cli_failing(&["api-keys", "create", "--account", ACCOUNT, "--rate-limit", "0"]).await;
    assert_eq!(code, Some(2), "{error}");
}

/// The actors of the events of that kind, by key id.
async fn events_of(fleet: &Fleet, kind: &str) -> Vec<(Value, Value)> {
    let events = Bus::of(&fleet.nats).await.events(kind).await;
    events.into_iter().map(|event| (event["key_id"].clone(), event["actor"].clone())).collect()
}

#[tokio::test]
async fn g2_an_event_of_a_key_that_a_crash_left_out_is_published_by_the_next_worker() {
    let fleet = fleet().await;
    let (admin, http) = (&fleet.admin_keys[0], reqwest::Client::builder().no_proxy().build().expect("an HTTP client"));
    let request = |method, path: &str| http.request(method, fleet.endpoint(path)).header("x-api-key", admin);
    let actor = Value::from(format!("key:{}", admin.split('_').nth(1).expect("an id")));
    // Without a worker, no call lists the keys.
    let bucket = fleet.jetstream("setup").await.get_key_value("oauth_api_keys").await.expect("the bucket");
    let listed = async || -> Vec<Value> {
        let keys = bucket.keys().await.expect("the keys");
        keys.map(|key| Value::from(key.expect("a key"))).collect().await
    };

    let before = listed().await;
    let mut first = fleet.worker_dying_at("api_key_created").await;
    let create = request(Method::POST, "hub/api-keys").json(&json!({}));
    let (created, _) = tokio::join!(create.send(), first.ended());
    assert_ne!(created.expect("the edge answers").status(), 200);
    let id = listed().await.into_iter().find(|id| !before.contains(id)).expect("the key is stored");
    let with_event = async |kind| events_of(&fleet, kind).await.contains(&(id.clone(), actor.clone()));
    assert!(!with_event("api_key_created").await);
    let mut second = fleet.worker().await;
    eventually("the event of the new key is published", async || with_event("api_key_created").await).await;
    second.kill().await;

    let mut third = fleet.worker_dying_at("api_key_revoked").await;
    let path = format!("hub/api-keys/{}", id.as_str().expect("an id"));
    let revoke = request(Method::DELETE, &path);
    let (revoked, _) = tokio::join!(revoke.send(), third.ended());
    assert_ne!(revoked.expect("the edge answers").status(), 200);
    assert!(!with_event("api_key_revoked").await);
    // This one dies once it has published the event, before it removes the event from the key's entry.
    let mut fourth = fleet.worker_with(&[("FAIL_KILL_AT", "api_key_event_published")]);
    fourth.ended().await;
    assert!(with_event("api_key_revoked").await);
    let fifth = fleet.worker().await;
    eventually("the next worker finishes", async || fifth.log().contains("published 1 events of API keys")).await;
    for kind in ["api_key_created", "api_key_revoked"] {
        let events = events_of(&fleet, kind).await;
        assert_eq!(events.iter().filter(|(of, _)| *of == id).count(), 1, "{events:?}");
    }
}
