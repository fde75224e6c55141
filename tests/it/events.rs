//! The audit log: one event of each kind, with its actor, its reason and its record.

use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use crate::ask::{ask, send};
use crate::bus::Bus;
use crate::fleet::eventually;
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
        ("revoked", "one", (caller.as_str(), Some("no_token"), true)),
        ("config_deleted", "_", (admin.as_str(), None, true)),
    ] {
        check(&bus, kind, name, told).await;
    }
    let reauthorized = bus.events("needs_reauthorization").await;
    assert_eq!((reauthorized.len(), &reauthorized[0]["reason"]), (1, &json!("invalid_grant")), "{reauthorized:?}");
    assert!(reauthorized[0]["sequence"].as_u64() > refreshed["sequence"].as_u64(), "{reauthorized:?}");
    let [connected, refreshed] = [connected.1, refreshed].map(|body| body["sequence"].clone());
    assert_eq!(bus.events("connected").await[0]["sequence"], connected);
    assert_eq!(bus.events("refreshed").await[0]["sequence"], refreshed);
    let all: Vec<_> = bus.messages("OAUTH_EVENTS").await.into_iter().map(|it| it.payload).collect();
    for secret in ["at-", "rt-", "canary-client-secret", "good", "wrong"] {
        assert!(!all.iter().any(|body| String::from_utf8_lossy(body).contains(secret)), "{secret} is in an event");
    }
}
