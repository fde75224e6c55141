//! What operators see of a provider's refusal: in events, in the log and at `tokenbus connections get`, cleaned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::ask::ask;
use crate::bus::Bus;
use crate::cli_connections::tokenbus;
use crate::provider::{Provider, Received, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::world::{INTEGRATION, World};

const CODE: &str = "canary-code/+1";

/// A provider that refuses as Microsoft's and Google's servers do, and repeats what it received.
fn refusal(received: &Received) -> Scripted {
    let text = format!("AADSTS70008: {} of jane.doe@example.com\r\nis spent", received.body);
    Scripted::json(400, &json!({ "error": "invalid_grant", "error_description": text }))
}

#[track_caller]
fn check(event: &Value, status: u16, error: &str, detail: Option<&str>) {
    assert_eq!((&event["provider_status"], &event["provider_error"]), (&json!(status), &json!(error)), "{event}");
    if let Some(detail) = detail {
        assert_eq!(event["provider_detail"], detail, "{event}");
    }
}

#[tokio::test]
async fn f1_a_refused_login_tells_operators_why_and_the_browser_nothing() {
    let world = World::with(Provider::start(|_, received| refusal(received)).await).await;
    let login = world.login("w").await;
    let callback = world.callback(&[("code", CODE), ("state", &login.state)]);
    let page = reqwest::Client::builder().no_proxy().build().expect("a client").get(callback);
    let page = ask(page.header("accept", "text/html")).await;
    assert_eq!(page.status, 400, "{}", page.text);
    assert!(!page.text.contains("AADSTS70008"), "{}", page.text);
    let events = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    check(&events[0], 400, "invalid_grant", None);
    let detail = events[0]["provider_detail"].as_str().expect("the description is there");
    assert!(detail.starts_with("AADSTS70008: ") && detail.ends_with("of [redacted] is spent"), "{detail}");
    for secret in ["canary", "jane", "%2F"] {
        assert!(!detail.contains(secret), "{detail}");
    }
    let log = world.tokenbus.log();
    assert!(log.contains("AADSTS70008") && !log.contains(CODE), "{log}");
}

#[tokio::test]
async fn the_last_failures_of_a_connection_are_shown_with_the_providers_words() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let provider = Provider::start(move |number, received| {
        if !received.form().contains_key("refresh_token") {
            return Scripted::tokens(number);
        }
        let number = count.fetch_add(1, Ordering::SeqCst);
        let error = json!({ "type": "org_blocked", "message": format!("An admin has blocked the app ({number})") });
        Scripted::json(403, &json!({ "error": error }))
    });
    let world = World::with_settings(provider.await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    for _ in 0..7 {
        world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-refresh-token/w")).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let last = refused.load(Ordering::SeqCst) - 1;
    let events = Bus::of(&world.tokenbus.nats).await.events("refresh_failed").await;
    check(
        events.last().expect("it failed"),
        403,
        "org_blocked",
        Some(&format!("An admin has blocked the app ({last})")),
    );

    for user in ["demo", "admin"] {
        let arguments = ["connections", "--account", ACCOUNT, "get", INTEGRATION, "w"];
        let shown = tokenbus(&world.tokenbus.nats, user, &arguments).await.out;
        assert_eq!(shown.matches("org_blocked").count(), 5, "{user}: {shown}");
        assert!(shown.contains(&format!("blocked the app ({last})")), "{user}: {shown}");
        let json = tokenbus(&world.tokenbus.nats, user, &[&arguments[..], &["--json"]].concat()).await.json();
        check(&json[0]["failures"][0], 403, "org_blocked", None);
    }
}
