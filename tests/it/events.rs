//! The audit log: one event of each kind, with its actor, its reason and its record.

use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::ask::{ask, send};
use crate::bus::Bus;
use crate::fleet::{Fleet, eventually};
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::world::World;

/// A provider that only accepts the code `good`. Refreshes fail with 503 while the first flag is set, and with
/// `invalid_grant` while the second one is.
async fn provider() -> (Provider, &'static AtomicBool, &'static AtomicBool) {
    let (down, refuses): (&AtomicBool, &AtomicBool) = (Box::leak(Box::default()), Box::leak(Box::default()));
    let provider = Provider::start(move |number, received| match received.form() {
        form if form.get("code").is_some_and(|code| code != "good") => {
            Scripted::json(400, &json!({ "error": "invalid_grant" }))
        }
        form if form.contains_key("code") => Scripted::tokens(number),
        _ if down.load(Ordering::Relaxed) => Scripted::json(503, &json!({})),
        _ if refuses.load(Ordering::Relaxed) => Scripted::json(400, &json!({ "error": "invalid_grant" })),
        _ => Scripted::tokens(number),
    });
    (provider.await, down, refuses)
}

/// The actor name of an API key.
fn actor(key: &str) -> String {
    format!("key:{}", key.split('_').nth(1).expect("a key has an id"))
}

/// Actor, reason, and true if the event names a record.
type Summary<'a> = (&'a str, Option<&'a str>, bool);

/// The newest event of that kind, on its subject.
async fn check(bus: &Bus, kind: &str, name: &str, (actor, reason, is_of_a_record): Summary<'_>) -> Value {
    let subject = format!("ms.oauth.{ACCOUNT}.event.odd.{name}.{kind}");
    bus.idle().await;
    let messages = bus.messages("OAUTH_EVENTS").await;
    let message = messages.iter().rfind(|message| message.subject.as_str() == subject);
    let message = message.unwrap_or_else(|| panic!("no event on {subject}"));
    let event: Value = serde_json::from_slice(&message.payload).expect("an event is JSON");
    assert_eq!((&event["event"], &event["actor"]), (&json!(kind), &json!(actor)), "{event}");
    assert_eq!(event["reason"].as_str(), reason, "{event}");
    assert_eq!(event["sequence"].is_u64(), is_of_a_record, "{event}");
    assert_eq!((&event["account"], &event["integration_id"]), (&json!(ACCOUNT), &json!("odd")), "{event}");
    assert_eq!(event["connection_id"].as_str().unwrap_or("_"), name, "{event}");
    assert!(event["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{event}");
    event
}

#[tokio::test]
async fn g2_each_kind_of_event_names_its_actor_reason_and_record() {
    let (provider, down, refuses) = provider().await;
    let settings = [("REFRESH__MIN_INTERVAL", "1ms"), ("EVENTS__READS", "all")];
    let world = World::with_settings(provider, &settings).await;
    let (tokenbus, key) = (&world.tokenbus, &world.tokenbus.key);
    let bus = Bus::of(&tokenbus.nats).await;
    let (caller, admin) = (actor(key), actor(&tokenbus.admin_key));
    let arrive = async |name: &str, code: &str| {
        let login = world.login(name).await;
        tokenbus.arrive(&world.callback(&[("code", code), ("state", &login.state)])).await
    };
    assert_eq!(arrive("bad", "wrong").await.0, 400);
    let connected = arrive("one", "good").await;
    assert_eq!(connected.0, 200, "{}", connected.1);
    assert_eq!(world.read("one").await.0, 200);
    let refresh = "odd/oauth-refresh-token/one";
    let refreshed = send(tokenbus, Method::GET, key, refresh).await.json();
    down.store(true, Ordering::Relaxed);
    assert_eq!(send(tokenbus, Method::GET, key, refresh).await.status, 502);
    let failed = check(&bus, "refresh_failed", "one", (&caller, Some("provider_error"), true)).await;
    assert_eq!(failed["sequence"], refreshed["sequence"], "what is still in force");
    down.store(false, Ordering::Relaxed);
    refuses.store(true, Ordering::Relaxed);
    // A recent failure is returned without asking the provider again.
    eventually("the provider receives another request and refuses it", async || {
        send(tokenbus, Method::GET, key, refresh).await.status == 400
    })
    .await;
    assert_eq!(send(tokenbus, Method::DELETE, key, "odd/oauth-connections/one").await.status, 200);
    let config = tokenbus.request(Method::DELETE, "hub/integrations/odd/oauth-config");
    assert_eq!(ask(config.header("x-api-key", &tokenbus.admin_key)).await.status, 200);

    for (kind, name, told) in [
        ("config_put", "_", (admin.as_str(), None, true)),
        ("login_started", "bad", (caller.as_str(), None, false)),
        ("exchange_failed", "bad", ("browser", Some("invalid_grant"), false)),
        ("login_started", "one", (caller.as_str(), None, false)),
        ("connected", "one", ("browser", None, true)),
        ("read", "one", (caller.as_str(), None, true)),
        ("refreshed", "one", (caller.as_str(), None, true)),
        ("revoked", "one", (caller.as_str(), Some("no_revocation_url"), true)),
        ("config_deleted", "_", (admin.as_str(), None, true)),
    ] {
        check(&bus, kind, name, told).await;
    }
    // The grant ends with a second refusal only.
    let failed = bus.events("refresh_failed").await;
    let last = failed.last().expect("a refresh was refused");
    assert_eq!((&last["reason"], &last["sequence"]), (&json!("invalid_grant"), &refreshed["sequence"]));
    let [connected, refreshed] = [connected.1, refreshed].map(|body| body["sequence"].clone());
    assert_eq!(bus.events("connected").await[0]["sequence"], connected);
    assert_eq!(bus.events("refreshed").await[0]["sequence"], refreshed);
    let all: Vec<_> = bus.messages("OAUTH_EVENTS").await.into_iter().map(|it| it.payload).collect();
    for secret in ["at-", "rt-", "canary-client-secret", "good", "wrong"] {
        assert!(!all.iter().any(|body| String::from_utf8_lossy(body).contains(secret)), "{secret} is in an event");
    }
}

/// The sum of the counts of the events of that kind, actor and reason, and the last of them.
async fn refusals(bus: &Bus, kind: &str, actor: &str, reason: &str) -> (u64, Option<Value>) {
    let events = bus.events(kind).await;
    let of_actor = |event: &&Value| event["actor"] == actor && event["reason"] == reason;
    let events: Vec<&Value> = events.iter().filter(of_actor).collect();
    let count = events.iter().map(|event| event["count"].as_u64().expect("a count")).sum();
    (count, events.last().map(|event| (*event).clone()))
}

#[tokio::test]
async fn g2_refused_requests_are_counted_in_events() {
    let settings = [("EVENTS__READS_INTERVAL", "1s"), ("EVENTS__CLIENT_ADDRESS", "true")];
    let world = World::with_settings(Provider::generous().await, &settings).await;
    let (tokenbus, bus) = (&world.tokenbus, Bus::of(&world.tokenbus.nats).await);
    let wrong = format!("{}{}", &tokenbus.key[..tokenbus.key.len() - 4], "AAAA");
    let unknown = format!("tb_ffffffffffff_{}", "s".repeat(43));
    for key in [&wrong, &wrong, &wrong, &unknown, &unknown] {
        send(tokenbus, Method::GET, key, "oauth-connections").await.assert_error(401, "not valid");
    }
    let bearer = tokenbus.request(Method::GET, "hub/api-keys").header("authorization", "Bearer canary-jwt");
    ask(bearer).await.assert_error(401, "not valid");
    let keys = tokenbus.request(Method::GET, "hub/api-keys").header("x-api-key", &tokenbus.key);
    ask(keys).await.assert_error(401, "lacks the scope");
    let config = tokenbus.request(Method::PUT, "hub/integrations/odd/oauth-config").json(&world.config());
    ask(config.header("x-api-key", &tokenbus.key)).await.assert_error(401, "only admins");

    let (own, nothing) = (actor(&tokenbus.key), "unknown");
    for (kind, actor, reason, count) in [
        ("authentication_failed", own.as_str(), "api_key", 3),
        ("authentication_failed", nothing, "api_key", 2),
        ("authentication_failed", nothing, "malformed", 1),
        ("admin_refused", own.as_str(), "keys:write", 1),
        ("admin_refused", own.as_str(), "configs", 1),
    ] {
        let counted = async || refusals(&bus, kind, actor, reason).await.0 >= count;
        eventually(&format!("{kind} of {actor}: {reason}"), counted).await;
        let (found, last) = refusals(&bus, kind, actor, reason).await;
        let last = last.expect("an event");
        let account = if actor == nothing { "_" } else { ACCOUNT };
        assert_eq!((found, &last["account"]), (count, &json!(account)), "{last}");
        assert_eq!(last["client_address"], "127.0.0.1", "{last}");
        assert!(!last.to_string().contains("canary"), "{last}");
    }
}

#[tokio::test]
async fn g2_events_name_the_request_and_the_client_only_if_configured() {
    for shows_address in [false, true] {
        let setting = shows_address.to_string();
        let settings = [("EVENTS__CLIENT_ADDRESS", setting.as_str())];
        let world = World::with_settings(Provider::generous().await, &settings).await;
        let (tokenbus, bus) = (&world.tokenbus, Bus::of(&world.tokenbus.nats).await);
        let with_id = |method, path: &str, id: &str| {
            tokenbus.request(method, path).header("x-api-key", &tokenbus.admin_key).header("x-request-id", id)
        };
        let login = ask(with_id(Method::GET, "hub/integrations/odd/oauth-login/one", "request-login")).await;
        let state = crate::world::state_of(&login.json()["oauth_url"]);
        let callback = world.callback(&[("code", "c"), ("state", &state)]);
        ask(with_id(Method::GET, callback.as_str(), "request-callback")).await;
        ask(with_id(Method::POST, "hub/api-keys", "request-create").json(&json!({}))).await;
        ask(with_id(Method::DELETE, "hub/integrations/odd/oauth-connections/one", "request-delete")).await;
        ask(with_id(Method::DELETE, "hub/integrations/odd/oauth-config", "request-config")).await;
        for (kind, id) in [
            ("login_started", "request-login"),
            ("connected", "request-callback"),
            ("api_key_created", "request-create"),
            ("revoked", "request-delete"),
            ("config_deleted", "request-config"),
        ] {
            let events = bus.events(kind).await;
            let event = events.last().unwrap_or_else(|| panic!("no {kind}"));
            assert_eq!(event["request_id"], id, "{event}");
            let address = if shows_address { json!("127.0.0.1") } else { Value::Null };
            assert_eq!(event["client_address"], address, "{event}");
        }
    }
}

#[tokio::test]
async fn g2_a_login_whose_record_a_refresh_has_replaced_did_not_fail() {
    let provider = Provider::generous().await;
    let (fleet, mut configurer) = Fleet::configured(&provider.url).await;
    configurer.kill().await;
    let mut first = fleet.worker_dying_at("exchange_5_record_applied").await;
    let state = fleet.login("one").await;
    let refreshed = async {
        assert!(!first.ended().await.success());
        // The command returns 5 s after the worker's last report. Until then another worker refreshes the connection.
        let next = fleet.worker().await;
        let bus = Bus::of(&fleet.nats).await;
        bus.age("one", fleet.setting("TOKENBUS_SECRETS__KEYS_FILE").as_ref()).await;
        bus.due("one").await;
        eventually("the connection is refreshed", async || provider.received().len() == 2).await;
        next
    };
    let ((status, body), _next) = tokio::join!(fleet.arrive(&state, "code"), refreshed);
    // The first worker's answer may be lost with it. Then the next worker answers with the refreshed connection.
    let token = body["access_token"].as_str().unwrap_or_default();
    assert!(status == StatusCode::OK && ["at-0", "at-1"].contains(&token), "{status} {body}");
    fleet.idle().await;
    let kinds: Vec<Value> = fleet.events().await.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["connected", "refreshed"]);
}
