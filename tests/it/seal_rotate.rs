//! Keys that change under load: added, promoted, and all stored values re-sealed.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use url::Url;

use crate::bus::Bus;
use crate::fleet::{Fleet, Worker, eventually};
use crate::provider::{Provider, Scripted};
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, run};

const NAMES: [&str; 5] = ["w0", "w1", "w2", "w3", "w4"];

/// A fleet with connections, its keyring and its provider.
struct Ring {
    fleet: Fleet,
    worker: Worker,
    /// The key that seals all values.
    old: String,
    provider: Provider,
}

impl Ring {
    async fn start() -> Self {
        Self::of(Provider::generous().await).await
    }

    async fn of(provider: Provider) -> Self {
        let (fleet, worker) = Fleet::configured(&provider.url).await;
        for name in NAMES {
            connect(&fleet, name).await;
        }
        let old = in_use(&fleet).await.remove(0);
        Self { fleet, worker, old, provider }
    }

    /// Adds a key, makes it the sealing key and returns its id.
    async fn promote(&self) -> String {
        let added: Value = serde_json::from_str(&self.keys(&["add", "--json"]).await).unwrap();
        let new = added["id"].as_str().unwrap();
        assert_eq!(in_use(&self.fleet).await, [self.old.as_str()], "a key that only opens is not in use");
        self.keys(&["promote", new]).await;
        new.to_owned()
    }

    async fn keys(&self, arguments: &[&str]) -> String {
        run(&self.fleet.settings, &[&["keys"], arguments].concat()).await
    }

    async fn rotate(&self) -> Value {
        serde_json::from_str(&self.keys(&["rotate", "--json"]).await).unwrap()
    }

    /// A rotation that runs concurrently with the test.
    fn rotating(&self, environment: &[(&str, &str)]) -> Child {
        let mut command = Command::new(PROGRAM);
        command.args(["keys", "rotate", "--json"]).envs(&self.fleet.settings).envs(environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("the program starts")
    }

    /// Checks that everything is sealed with that key, that the key list says so, and that no value changed.
    async fn assert_sealed_with(&self, key: &str) {
        assert_eq!(sealed_with(&self.fleet).await, BTreeSet::from([key.to_owned()]));
        assert_eq!(in_use(&self.fleet).await, [key]);
        for name in NAMES {
            let (status, body) = self.fleet.get(&format!("odd/oauth-token/{name}")).await;
            assert_eq!((status, &body["sequence"]), (StatusCode::OK, &stored(&self.fleet, name).await["sequence"]));
        }
    }

    /// Removes a key from the keyring's file.
    fn drop_key(&self, id: &str) {
        let path = keys_file(&self.fleet);
        let mut keys: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        keys["key"].as_array_mut().unwrap().retain(|key| key["id"].as_str() != Some(id));
        std::fs::write(&path, keys.to_string()).unwrap();
    }
}

fn keys_file(fleet: &Fleet) -> PathBuf {
    PathBuf::from(&fleet.settings["TOKENBUS_SECRETS__KEYS_FILE"])
}

async fn connect(fleet: &Fleet, name: &str) -> Value {
    let state = fleet.login(name).await;
    let (status, body) = fleet.arrive(&state, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

async fn stored(fleet: &Fleet, name: &str) -> Value {
    fleet.stored(name).await.0.expect("it is stored")
}

async fn reads(fleet: &Fleet) -> Vec<(StatusCode, Value)> {
    let mut all = Vec::new();
    for name in NAMES {
        all.push(fleet.get(&format!("odd/oauth-token/{name}")).await);
    }
    all
}

/// The newest entries of a bucket.
async fn entries(fleet: &Fleet, bucket: &str) -> Vec<jetstream::message::StreamMessage> {
    let stream = fleet.jetstream("worker").await.get_stream(bucket).await.unwrap();
    let state = &stream.cached_info().state;
    let mut found = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        found.extend(stream.get_raw_message(sequence).await);
    }
    found
}

/// The keys that are listed as in use.
async fn in_use(fleet: &Fleet) -> Vec<String> {
    let all = entries(fleet, "KV_oauth_meta").await;
    let keys = all.into_iter().find(|message| message.subject.ends_with(".keys")).expect("a note of the keys");
    serde_json::from_slice(&keys.payload).unwrap()
}

/// The keys with which the stored values are sealed.
async fn sealed_with(fleet: &Fleet) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for bucket in ["KV_oauth_connections", "KV_oauth_configs"] {
        for message in entries(fleet, bucket).await {
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            found.extend(text.split("\"v1.").skip(1).map(|rest| rest.split('.').next().unwrap().to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn e2_rotation_reseals_everything_and_changes_nothing_else() {
    let ring = Ring::start().await;
    let fleet = &ring.fleet;
    let before = reads(fleet).await;
    let records = fleet.record(&Fleet::path("w0")).await.1;
    let tenant = fleet.nats.connect("demo").await;
    let mut pushed = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.*.*")).await.unwrap();
    Nats::flush(&tenant).await;

    let new = ring.promote().await;
    let rotated = ring.rotate().await;
    let expected = json!({
        "sealing": new, "resealed": NAMES.len() + 1, "caught_up": 0, "retired": [ring.old], "spare": [ring.old],
    });
    assert_eq!(rotated, expected);
    ring.assert_sealed_with(&new).await;
    let events = fleet.events().await;
    let rotations: Vec<_> = events.iter().filter(|event| event["event"] == "keys_rotated").collect();
    let [event] = rotations[..] else { panic!("{events:?}") };
    let count = json!(NAMES.len() + 1);
    assert_eq!((&event["actor"], &event["reason"], &event["count"]), (&json!("rotate:worker"), &json!(new), &count));
    let after = reads(fleet).await;
    assert_eq!(after, before);
    assert_eq!(fleet.record(&Fleet::path("w0")).await.1, records, "no record was written");
    let last = format!("ms.integration.oauth.{ACCOUNT}.odd.last");
    tenant.publish(last.clone(), "".into()).await.unwrap();
    assert_eq!(pushed.next().await.unwrap().subject.as_str(), last, "nothing was pushed");

    // A second rotation writes nothing.
    let writes = fleet.stored("w0").await.1;
    assert!(ring.keys(&["rotate"]).await.starts_with("nothing to do: "));
    assert_eq!(fleet.stored("w0").await.1, writes);

    // A key that is no longer in use can be removed; old and new workers run without it.
    ring.drop_key(&ring.old);
    eventually("the keyring is reloaded", async || ring.worker.log().matches("keyring reloaded").count() > 1).await;
    let _second = fleet.worker().await;
    connect(fleet, "w0").await;
    ring.assert_sealed_with(&new).await;
}

#[tokio::test]
async fn e2_rotation_does_not_overwrite_newer_writes() {
    let ring = Ring::start().await;
    let _second = ring.fleet.worker().await;
    let new = ring.promote().await;
    let (fleet, mut rotating) = (&ring.fleet, ring.rotating(&[]));
    let mut logins = 0;
    // Each of the two workers loads the new key at its next reload; the rotation waits for both, then runs.
    while rotating.try_wait().unwrap().is_none() {
        let sequences = join_all(NAMES.map(|name| connect(fleet, name))).await;
        for (name, body) in NAMES.into_iter().zip(sequences) {
            assert_eq!(stored(fleet, name).await["sequence"], body["sequence"], "{name}");
        }
        logins += 1;
    }
    assert!(rotating.wait().await.unwrap().success());
    assert!(logins > 0);
    ring.assert_sealed_with(&new).await;
    for name in NAMES {
        let newest = fleet.record(&Fleet::path(name)).await.0;
        assert_eq!(stored(fleet, name).await["sequence"].as_u64(), newest, "{name}");
    }
}

#[tokio::test]
async fn e2_a_killed_rotation_starts_again() {
    let killed_at = async |place: &str| {
        let ring = Ring::start().await;
        let new = ring.promote().await;
        let status = ring.rotating(&[("FAIL_KILL_AT", place)]).wait().await.unwrap();
        assert!(!status.success(), "{place}");
        let retired = place == "after_retire";
        let noted = if retired { vec![new.clone()] } else { vec![ring.old.clone(), new.clone()] };
        assert_eq!(in_use(&ring.fleet).await, noted, "{place}");
        let rotated = ring.rotate().await;
        assert_eq!(rotated["retired"], if retired { json!([]) } else { json!([ring.old]) }, "{place}");
        ring.assert_sealed_with(&new).await;
    };
    tokio::join!(killed_at("before_reseal"), killed_at("after_reseal"));
    tokio::join!(killed_at("before_retire"), killed_at("after_retire"));
}

#[tokio::test]
async fn e2_an_older_key_stays_in_use_while_a_login_needs_it() {
    let ring = Ring::start().await;
    let fleet = &ring.fleet;
    let state = fleet.login("w0").await;
    let new = ring.promote().await;
    let mut rotating = ring.rotating(&[]);
    eventually("all other values are re-sealed", async || sealed_with(fleet).await == BTreeSet::from([new.clone()]))
        .await;
    assert!(rotating.try_wait().unwrap().is_none());
    assert_eq!(in_use(fleet).await, [ring.old.clone(), new.clone()]);
    let (status, body) = fleet.arrive(&state, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let output = rotating.wait_with_output().await.unwrap();
    let rotated: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rotated["retired"], json!([ring.old]));
    ring.assert_sealed_with(&new).await;
}

#[tokio::test]
async fn e2_an_older_key_stays_in_use_while_a_start_ticket_needs_it() {
    let ring = Ring::start().await;
    let fleet = &ring.fleet;
    let mut config = fleet.config();
    config["pkce"] = json!("off");
    assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
    let (status, login) = fleet.get("odd/oauth-login/bound?bind=browser").await;
    assert_eq!(status, StatusCode::OK, "{login}");
    let new = ring.promote().await;
    let mut rotating = ring.rotating(&[]);
    let mut said = BufReader::new(rotating.stderr.take().unwrap()).lines();
    let waits = async {
        while !said.next_line().await.unwrap().expect("it waits before it ends").contains("waiting for logins") {}
        said
    };
    let _said = tokio::time::timeout(Duration::from_mins(1), waits).await.expect("it waits");
    assert_eq!(in_use(fleet).await, [ring.old.clone(), new]);
    let link = Url::parse(login["oauth_url"].as_str().unwrap()).unwrap();
    let ticket: HashMap<_, _> = link.query_pairs().collect();
    let click = fleet.http.post(fleet.endpoint(link.path())).header("sec-fetch-site", "same-origin").form(&ticket);
    assert_eq!(click.send().await.unwrap().status(), StatusCode::OK);
    let output = rotating.wait_with_output().await.unwrap();
    let rotated: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rotated["retired"], json!([ring.old]));
}

#[tokio::test]
async fn e2_an_entry_older_than_its_record_is_updated_before_the_older_key_is_retired() {
    let mut ring = Ring::start().await;
    let older = stored(&ring.fleet, "w0").await;
    let newer = connect(&ring.fleet, "w0").await;
    // As if the worker had died after the record, and the command had been dropped. A worker that runs may repair the entry.
    ring.fleet.idle().await;
    ring.worker.kill().await;
    let fleet = &ring.fleet;
    let key = format!("$KV.oauth_connections.{ACCOUNT}.odd.w0");
    fleet.jetstream("worker").await.publish(key, older.to_string().into()).await.unwrap().await.unwrap();
    let new = ring.promote().await;
    let rotated = ring.rotate().await;
    assert_eq!((&rotated["caught_up"], &rotated["retired"]), (&json!(1), &json!([ring.old])));
    assert_eq!(stored(fleet, "w0").await["sequence"], newer["sequence"]);
    let _worker = fleet.worker().await;
    fleet.ready().await;
    ring.assert_sealed_with(&new).await;
}

#[tokio::test]
async fn e2_an_entry_that_cannot_be_opened_keeps_its_key_in_use_and_blocks_no_other_entry() {
    let ring = Ring::start().await;
    let fleet = &ring.fleet;
    let (mut one, other) = (stored(fleet, "w0").await, stored(fleet, "w1").await);
    one["sealed"] = other["sealed"].clone();
    let key = format!("$KV.oauth_connections.{ACCOUNT}.odd.w0");
    let worker = fleet.jetstream("worker").await;
    worker.publish(key, one.to_string().into()).await.unwrap().await.unwrap();
    // Otherwise the entry would be restored from its record.
    worker.publish(format!("oauth.record.{ACCOUNT}.odd.w0"), "x".into()).await.unwrap().await.unwrap();
    let new = ring.promote().await;
    let output = Command::new(PROGRAM).args(["keys", "rotate"]).envs(&fleet.settings).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("oauth_connections/{ACCOUNT}.odd.w0")), "{errors}");
    assert_eq!(in_use(fleet).await, [ring.old.clone(), new.clone()]);
    assert_eq!(sealed_with(fleet).await, BTreeSet::from([ring.old.clone(), new]));
}

/// Only its tombstone holds the tokens of a deleted connection, and nothing re-seals a tombstone. The marks by which it finds
/// other connections of its grant are of the older key, too.
#[tokio::test]
async fn e2_an_older_key_stays_in_use_while_a_revocation_waits() {
    for is_shared in [false, true] {
        let status = Arc::new(AtomicU16::new(503));
        let now = Arc::clone(&status);
        let provider = Provider::start(move |number, received| match received.path.as_str() {
            "/revoke" => Scripted::new(now.load(Ordering::SeqCst), "text/plain", ""),
            _ => Scripted::json(
                200,
                &json!({
                    "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"), "expires_in": 3600,
                    "account": "u-1",
                }),
            ),
        });
        let ring = Ring::of(provider.await).await;
        let fleet = &ring.fleet;
        let mut config = fleet.config();
        config["revocation_url"] = format!("{}/revoke", ring.provider.url).into();
        config["identity"] = json!({ "id": "account" });
        assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
        connect(fleet, "gone").await;
        let path = "hub/integrations/odd/oauth-connections/gone";
        assert_eq!(fleet.request(Method::DELETE, path, &fleet.admin_keys[0], &json!({})).await.0, StatusCode::OK);

        let bus = Bus::of(&fleet.nats).await;
        let reasons = async || {
            let events = bus.events("revoked").await;
            events.into_iter().map(|event| event["reason"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(reasons().await, ["provider_error"]);
        let new = ring.promote().await;
        assert_eq!(ring.rotate().await["retired"], json!([]));
        assert_eq!(in_use(fleet).await, [ring.old.clone(), new.clone()]);
        assert_eq!(sealed_with(fleet).await, BTreeSet::from([new.clone()]), "all but the tombstone");

        if is_shared {
            connect(fleet, "kept").await;
        }
        status.store(200, Ordering::SeqCst);
        bus.idle().await;
        let at = format!("ms.integration.oauth.{}.refresh.at", Fleet::path("gone"));
        let schedule = bus.last("OAUTH_SCHEDULE", &at).await.expect("another try is scheduled");
        bus.due_with("gone", &serde_json::from_slice(&schedule.payload).unwrap()).await;
        eventually("the end has an event", async || reasons().await.len() == 2).await;
        assert_eq!(reasons().await[1], if is_shared { "shared" } else { "revoked_at_provider" });
        let received = ring.provider.received();
        let asked = received.iter().filter(|received| received.path == "/revoke").count();
        assert_eq!(asked, if is_shared { 1 } else { 3 }, "the first try, and then one request for each token");
        assert_eq!(ring.rotate().await["retired"], json!([ring.old]));
        ring.assert_sealed_with(&new).await;
    }
}
