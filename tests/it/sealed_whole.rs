//! Stored values changed by hand: each is an error or is restored from its record, and no request goes to another address.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::{ACCOUNT, PROGRAM, settings};
use crate::support::wait::eventually;
use crate::world::World;

/// JSON pointers of all values inside a value, those of objects and lists included.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.replace('/', "~1"), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (name, value) in inside {
        let pointer = format!("{at}/{name}");
        found.push(pointer.clone());
        pointers(value, &pointer, found);
    }
}

/// Another value in place of a stored one. URLs lead to the foreign address.
fn changed(value: &Value, foreign: &str) -> Value {
    match value {
        Value::String(text) if text.starts_with("http") => json!(format!("{foreign}/stolen")),
        Value::String(text) => json!(format!("{text}x")),
        Value::Number(number) => json!(number.as_u64().unwrap_or_default() + 1),
        Value::Bool(is_set) => json!(!is_set),
        Value::Null => json!("x"),
        Value::Array(_) => json!(["x"]),
        Value::Object(_) => json!({ "x": foreign }),
    }
}

struct Entries {
    bus: Bus,
}

impl Entries {
    async fn read(&self, subject: &str) -> Value {
        let bucket = if subject.contains("configs") { "KV_oauth_configs" } else { "KV_oauth_connections" };
        let all = self.bus.messages(bucket).await;
        let entry = all.into_iter().rfind(|message| message.subject.as_str() == subject).expect("the entry is stored");
        serde_json::from_slice(&entry.payload).expect("JSON")
    }

    async fn write(&self, subject: &str, value: &Value) {
        let answer = self.bus.client.request(subject.to_owned(), value.to_string().into()).await;
        answer.expect("JetStream answers");
    }
}

#[tokio::test]
async fn h7_a_field_changed_by_hand_is_restored_and_no_request_goes_elsewhere() {
    let (world, foreign) = (World::with(Provider::generous().await).await, Provider::generous().await);
    let mut config = world.config();
    config["refresh_url"] = json!(format!("{}/refresh", world.provider.url));
    config["revocation_url"] = json!(format!("{}/revoke", world.provider.url));
    config["auth_params"] = json!({ "prompt": "consent" });
    config["metadata_paths"] = json!(["token_type"]);
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let entries = Entries { bus: Bus::of(&world.tokenbus.nats).await };

    let mut tried = BTreeSet::new();
    for subject in [format!("$KV.oauth_connections.{ACCOUNT}.odd.one"), "$KV.oauth_configs.odd".to_owned()] {
        let original = entries.read(&subject).await;
        let mut all = Vec::new();
        pointers(&original, "", &mut all);
        let texts = original.to_string();
        assert!(
            !texts.contains("at-0") && !texts.contains("rt-0") && !texts.contains("canary-client-secret"),
            "{texts}"
        );
        for pointer in all {
            let mut value = original.clone();
            let field = value.pointer_mut(&pointer).expect("it is inside");
            *field = changed(field, &foreign.url);
            entries.write(&subject, &value).await;
            let (status, body) = if subject.contains("configs") {
                let read = world.tokenbus.call(Method::GET, "oauth-config/odd").await;
                assert_eq!(world.tokenbus.login("odd", "other").await.host_str(), Some("127.0.0.1"));
                read
            } else {
                world.read("one").await
            };
            assert_eq!(status, StatusCode::OK, "{pointer}: {body}");
            assert!(!body.to_string().contains(&foreign.url), "{pointer}: {body}");
            assert_eq!(without_seal(entries.read(&subject).await), without_seal(original.clone()), "{pointer}");
            tried.insert(pointer);
        }
        // The last change stays unread until the token is refreshed and revoked.
        let mut value = original.clone();
        for field in ["issued_at", "config"] {
            let urls = ["token_url", "refresh_url", "revocation_url"];
            for url in urls.into_iter().filter(|_| original.get(field).is_some()) {
                value[field][url] = json!(format!("{}/stolen", foreign.url));
            }
        }
        entries.write(&subject, &value).await;
    }
    for known in ["/issued_at/token_url", "/issued_at/revocation_url", "/status", "/expiry", "/sequence", "/sealed"] {
        assert!(tried.contains(known), "{known} is a field: {tried:?}");
    }
    assert!(tried.contains("/config/token_url") && tried.contains("/config/refresh_url"), "{tried:?}");

    entries.bus.age("one", &world.tokenbus.keys_file()).await;
    let (status, body) = world.tokenbus.call(Method::GET, "odd/oauth-refresh-token/one").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(world.tokenbus.call(Method::DELETE, "odd/oauth-connections/one").await.0, StatusCode::OK);
    let paths: Vec<String> = world.provider.received().into_iter().map(|request| request.path).collect();
    assert_eq!(paths[..3], ["/token", "/refresh", "/revoke"], "{paths:?}");
    assert_eq!(foreign.received().len(), 0);
}

/// An entry without the field that differs each time.
fn without_seal(mut entry: Value) -> Value {
    entry["sealed"] = Value::Null;
    entry
}

#[tokio::test]
async fn h14_a_deleted_connection_leaves_nothing_personal() {
    let world = World::with(
        Provider::start(|_, _| {
            let body = json!({
                "access_token": "at", "refresh_token": "rt", "expires_in": 3600, "scope": "canary-scope",
                "email": "canary@person.example",
            });
            crate::provider::Scripted::json(200, &body)
        })
        .await,
    )
    .await;
    let mut config = world.config();
    config["metadata_paths"] = json!(["email"]);
    world.tokenbus.configure(&config).await;
    let (status, body) = world.connect("one").await;
    assert_eq!((status, &body["metadata"]["email"]), (StatusCode::OK, &json!("canary@person.example")), "{body}");
    assert_eq!(world.tokenbus.call(Method::DELETE, "odd/oauth-connections/one").await.0, StatusCode::OK);

    let bus = Bus::of(&world.tokenbus.nats).await;
    let tombstone = bus.messages("OAUTH").await.pop().expect("a record");
    assert_eq!(tombstone.headers.get("Oauth-Status").map(ToString::to_string).as_deref(), Some("revoked"));
    let days = 90 * 24 * 60 * 60;
    assert_eq!(tombstone.headers.get("Nats-TTL").map(ToString::to_string), Some(days.to_string()));
    for stream in ["OAUTH", "OAUTH_EVENTS", "KV_oauth_connections", "OAUTH_SCHEDULE", "OAUTH_COMMANDS"] {
        for message in bus.messages(stream).await {
            let text = String::from_utf8_lossy(&message.payload);
            assert!(!text.contains("canary-scope") && !text.contains("person.example"), "{stream}: {text}");
        }
    }
}

#[tokio::test]
async fn h14_an_expired_tombstone_is_gone_and_pushes_nothing() {
    let world = World::with_settings(Provider::generous().await, &[("LIMITS__TOMBSTONES", "1s")]).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    assert_eq!(world.tokenbus.call(Method::DELETE, "odd/oauth-connections/one").await.0, StatusCode::OK);
    let bus = Bus::of(&world.tokenbus.nats).await;
    let subject = format!("ms.integration.oauth.{ACCOUNT}.odd.one");
    crate::fleet::eventually("the tombstone expires", async || {
        bus.messages("OAUTH").await.iter().all(|record| record.subject.as_str() != subject)
    })
    .await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
}

/// Exit code and standard error of a worker that ends by itself.
async fn serve(settings: &HashMap<String, String>) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--role", "worker"]).envs(settings).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_mins(1), command.output()).await.expect("it ends by itself");
    let output = output.expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_worker_starts_only_on_the_form_that_it_knows() {
    let mut world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    world.tokenbus.kill().await;
    let nats = &world.tokenbus.nats;
    let [as_worker, as_setup] = ["worker", "setup"].map(|user| settings(nats, user, &world.tokenbus.keys_file()));
    let entries = Entries { bus: Bus::of(nats).await };
    entries.write("$KV.oauth_meta.form", &json!(3)).await;
    let (code, errors) = serve(&as_worker).await;
    assert!(code == Some(1) && errors.contains("install a newer release"), "{errors}");
    entries.write("$KV.oauth_meta.form", &json!(1)).await;
    let (code, errors) = serve(&as_worker).await;
    assert!(code == Some(1) && errors.contains("run `tokenbus setup` with the keyring"), "{errors}");

    let before = entries.read(&format!("$KV.oauth_connections.{ACCOUNT}.odd.one")).await;
    crate::fleet::eventually("the killed worker's pulls expire", async || {
        let output = Command::new(PROGRAM).arg("setup").envs(&as_setup).output().await.expect("the program starts");
        output.status.success()
    })
    .await;
    let meta = entries.bus.messages("KV_oauth_meta").await;
    let form = meta.into_iter().rfind(|message| message.subject.as_str() == "$KV.oauth_meta.form");
    assert_eq!(form.expect("it is stored").payload.as_ref(), b"2");
    assert_eq!(entries.read(&format!("$KV.oauth_connections.{ACCOUNT}.odd.one")).await, before);
}

/// A worker with a connection whose refreshes get that answer.
struct Failing {
    world: World,
    entries: Entries,
    subject: String,
}

impl Failing {
    async fn with(answer: Scripted) -> Self {
        let hour = json!({ "access_token": "at", "refresh_token": "rt", "expires_in": 3600 });
        let provider =
            Provider::start(move |number, _| if number == 0 { Scripted::json(200, &hour) } else { answer.clone() });
        let world = World::with_settings(provider.await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
        assert_eq!(world.connect("one").await.0, StatusCode::OK);
        let entries = Entries { bus: Bus::of(&world.tokenbus.nats).await };
        let failing = Self { world, entries, subject: format!("$KV.oauth_connections.{ACCOUNT}.odd.one") };
        failing.idle(0).await;
        failing
    }

    /// Waits until the queue is empty and has had a command after that one.
    async fn idle(&self, after: u64) {
        let bus = &self.entries.bus;
        let is_done = async || {
            bus.last_sequence("OAUTH_COMMANDS").await > after && bus.info("OAUTH_COMMANDS").await.state.messages == 0
        };
        eventually("the command is done", is_done).await;
    }

    /// Replaces the note of the failed refresh, lets the schedule fire, and returns the connection's status.
    async fn due_with(&self, note: Option<Value>) -> &'static str {
        let mut entry = self.entries.read(&self.subject).await;
        let fields = entry.as_object_mut().expect("an object");
        match note {
            Some(note) => drop(fields.insert("refresh_failure".to_owned(), note)),
            None => drop(fields.remove("refresh_failure")),
        }
        self.entries.write(&self.subject, &entry).await;
        self.due().await
    }

    async fn due(&self) -> &'static str {
        let (bus, requests) = (&self.entries.bus, self.world.provider.received().len());
        let before = bus.last_sequence("OAUTH_COMMANDS").await;
        bus.due("one").await;
        self.idle(before).await;
        assert_eq!(self.world.provider.received().len(), requests + 1, "the provider is asked");
        bus.stored("one", &self.world.tokenbus.keys_file()).await.connection.status.as_str()
    }

    async fn advance(&self, seconds: i64) {
        self.entries.bus.advance("one", &self.world.tokenbus.keys_file(), seconds).await;
    }
}

/// A note that claims a long history of refusals and failures.
fn forged() -> Value {
    let past = tokenbus::internals::system::now() - SignedDuration::from_hours(100);
    json!({
        "count": 99, "until": past, "status": 400, "reason": "invalid_grant", "since": past, "unclear": 99,
        "refused_at": past, "next_try": past, "token_expired": true,
    })
}

#[tokio::test]
async fn h7_a_forged_or_lost_note_of_a_failed_refresh_ends_no_grant() {
    let failing = Failing::with(Scripted::json(400, &json!({ "error": "invalid_grant" }))).await;
    assert_eq!(failing.due().await, "active", "the first refusal");
    let own = failing.entries.read(&failing.subject).await["refresh_failure"].clone();
    let mut with_own_seal = forged();
    with_own_seal["sealed"] = own["sealed"].clone();
    let mut with_junk = forged();
    with_junk["sealed"] = json!("v1.x.canary");
    for note in [forged(), with_junk] {
        assert_eq!(failing.due_with(Some(note.clone())).await, "active", "{note}");
    }
    assert_eq!(failing.due_with(None).await, "active", "the note is lost");
    // The clear part of a sealed note is only a copy: the schedule keeps to the second look.
    let mut entry = failing.entries.read(&failing.subject).await;
    entry["refresh_failure"] = with_own_seal;
    failing.entries.write(&failing.subject, &entry).await;
    let stored = failing.entries.bus.stored("one", &failing.world.tokenbus.keys_file()).await;
    assert_eq!(json!(stored.refresh_failure.expect("a note"))["refused_at"], own["refused_at"]);
    // The worker's own note counts.
    failing.advance(361).await;
    assert_eq!(failing.due().await, "needs_reauthorization");

    let failing = Failing::with(Scripted::json(404, &json!({}))).await;
    failing.advance(3_601).await;
    for _ in 0..2 {
        assert_eq!(failing.due_with(Some(forged())).await, "active");
    }
}
