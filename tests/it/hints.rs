//! Hints after logins that fail because of a setting: in the JSON, on the page and in the event.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::ask::{Answer, ask};
use crate::bus::Bus;
use crate::http_providers::{put, write_profile};
use crate::provider::{Provider, Scripted};
use crate::world::{World, parameter};

const PAGE: &str = "https://acme.example/apps";

/// Starts a login and comes back with that query, as a browser or not.
async fn arrive(world: &World, integration: &str, query: (&str, &str), accept: &str) -> Answer {
    let url = world.tokenbus.login(integration, "one").await;
    let callback = world.callback(&[query, ("state", &parameter(&url, "state"))]);
    ask(reqwest::Client::builder().no_proxy().build().expect("a client").get(callback).header("accept", accept)).await
}

/// A world whose provider refuses the code in the query with that code as its error. `odd` has no profile.
async fn world(folder: &tempfile::TempDir) -> World {
    let provider = Provider::start(|_, received| {
        Scripted::json(400, &json!({ "error": received.form()["code"], "error_description": "canary" }))
    });
    let path = folder.path().to_str().expect("a path of text").to_owned();
    let world = World::with_settings(provider.await, &[("OAUTH__PROVIDERS_DIR", &path)]).await;
    write_profile(folder, &world.provider.url, "read");
    assert_eq!(put(&world, "acme").await.status, 200);
    world
}

#[tokio::test]
async fn a_wrong_setting_ends_in_a_page_and_an_event_that_say_what_to_change_and_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(&folder).await;
    let redirect_url = world.tokenbus.callback();
    let mut expected = Vec::new();
    for (query, parts) in [
        (("code", "invalid_client"), ["client_id and client_secret", PAGE, ""]),
        (("error", "unauthorized_client"), ["client_id and client_secret", PAGE, ""]),
        (("error", "invalid_scope"), ["scopes", PAGE, ""]),
        (("code", "invalid_grant"), ["(Callback URL)", PAGE, redirect_url.as_str()]),
    ] {
        let answer = arrive(&world, "acme", query, "application/json").await;
        let hint = answer.json()["hint"].as_str().unwrap_or_else(|| panic!("no hint: {}", answer.text)).to_owned();
        assert!(parts.iter().all(|part| hint.contains(part)), "{hint}");
        let page = arrive(&world, "acme", query, "text/html").await;
        assert_eq!(page.status, answer.status);
        assert!(parts.iter().all(|part| page.text.contains(part)), "{}", page.text);
        assert!(page.text.contains("the person who set up the integration") && !page.text.contains("canary"));
        expected.extend([json!(hint), json!(hint)]);
    }
    let without_profile = arrive(&world, "odd", ("code", "invalid_client"), "application/json").await.json();
    let hint = without_profile["hint"].as_str().expect("a hint without a page");
    assert!(hint.contains("where the app is registered"), "{hint}");
    expected.push(json!(hint));

    let denied = arrive(&world, "acme", ("error", "access_denied"), "application/json").await;
    assert_eq!(
        (denied.status, denied.json()),
        (StatusCode::BAD_REQUEST.as_u16(), json!({ "error": "access_denied", "reason": "access_denied" }))
    );
    let page = arrive(&world, "acme", ("error", "access_denied"), "text/html").await;
    assert!(!page.text.contains("who set up") && page.text.contains("refused or cancelled"), "{}", page.text);
    expected.extend([Value::Null, Value::Null]);

    let events = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    let hints: Vec<Value> = events.iter().map(|event| event["hint"].clone()).collect();
    assert_eq!(hints.len(), expected.len(), "{events:?}");
    assert!(expected.iter().all(|hint| hints.contains(hint)), "{hints:?}");
}
