//! Hints after logins that a provider refuses: in the JSON, on the page, in the event and in the log.

use serde_json::{Value, json};
use tokenbus::client::{self, CallError};
use tokenbus::subject::{Account, NodeCall};

use crate::ask::{Answer, ask};
use crate::bus::Bus;
use crate::http_providers::{put, write_profile};
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World, parameter};

const PAGE: &str = "https://acme.example/apps";

/// Text of the page before a hint.
const CHANGE_SETTING: &str = "A setting of this integration is wrong, so that connecting again does not help.";
const CONNECT_AND_SHOW: &str = "Connect again. If that fails too, show this page to the person who set up";
const CONNECT_AGAIN: &str = "Go back to the page you came from and connect again:";

/// Starts a login and comes back with that query, as a browser or not.
async fn arrive(world: &World, integration: &str, query: (&str, &str), accept: &str) -> Answer {
    let url = world.tokenbus.login(integration, "one").await;
    let (name, value) = query;
    let state = parameter(&url, "state");
    let callback = format!("{}&{name}={value}", world.callback(&[("state", &state)]));
    ask(reqwest::Client::builder().no_proxy().build().expect("a client").get(callback).header("accept", accept)).await
}

/// Answers of the provider, by the code that they refuse.
fn refusal(code: &str) -> (u16, Value) {
    match code {
        "secret-1" => (401, json!({ "error": "invalid_client", "error_description": "Invalid client secret" })),
        "secret-2" => (200, json!({ "ok": false, "error": "bad_client_secret" })),
        "client" => (401, json!({ "error": "invalid_client" })),
        "redirect-1" => (400, json!({ "error": "invalid_grant", "error_description": "redirect_uri did not match" })),
        "redirect-2" => (400, json!({ "error": "invalid_request", "error_description": "Invalid redirect URI" })),
        "redirect-3" => (400, json!({ "error": "redirect_uri_mismatch" })),
        "scope" => (400, json!({ "error": "invalid_scope" })),
        "late-1" => (400, json!({ "error": "invalid_grant", "error_description": "The code has expired" })),
        "pkce" => (400, json!({ "error": "invalid_grant", "error_description": "PKCE verification failed" })),
        "unclear" => (400, json!({ "error": "invalid_grant", "error_description": "canary" })),
        "path" => (404, json!({ "error": "canary" })),
        "page" => (200, json!("<html>canary</html>")),
        _ => (400, json!({ "error": "canary" })),
    }
}

/// A world whose provider refuses every code. `odd` has no profile.
async fn world(folder: &tempfile::TempDir) -> World {
    let provider = Provider::start(|_, received| {
        let (status, body) = refusal(&received.form()["code"]);
        Scripted::json(status, &body)
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
    let url = world.tokenbus.callback();
    let secret = format!(
        "the client_secret of the config is wrong or has expired: look up or create the app's current one at {PAGE}, and copy it into the config"
    );
    let client = format!(
        "the provider does not accept client_id and client_secret of the config: compare both with those of the app at {PAGE}"
    );
    let redirect = format!(
        "the redirect URL is not registered for the app: enter {url} at {PAGE} (Callback URL), or set redirect_url of the config to the URL that is registered there"
    );
    let scopes = format!(
        "the provider does not allow a scope to the app: allow the scopes of the config to the app at {PAGE}, or remove from scopes of the config those that it may not have"
    );
    let unclear = format!(
        "either the authorization code had expired, or the redirect URL is not the app's: {url} has to be registered for the app at {PAGE} (Callback URL)"
    );
    let none = format!(
        "the provider names no reason that is known here: compare client_id, client_secret, redirect_url and scopes of the config with those of the app at {PAGE}"
    );
    let token_url = "the answer is not that of a token endpoint: compare token_url of the config with the provider's \
                     documentation; if that names the fields of the answer in its own way, set token_answer";
    let mut expected = Vec::new();
    for (query, cause, hint, advice) in [
        (("code", "secret-1"), "client_secret", secret.as_str(), CHANGE_SETTING),
        (("code", "secret-2"), "client_secret", &secret, CHANGE_SETTING),
        (("code", "client"), "client", &client, CHANGE_SETTING),
        (("code", "redirect-1"), "redirect_url", &redirect, CHANGE_SETTING),
        (("code", "redirect-2"), "redirect_url", &redirect, CHANGE_SETTING),
        (("code", "redirect-3"), "redirect_url", &redirect, CHANGE_SETTING),
        (("error", "redirect_uri_mismatch"), "redirect_url", &redirect, CHANGE_SETTING),
        (
            ("error", "invalid_request&error_description=Mismatching+redirect+URI."),
            "redirect_url",
            &redirect,
            CHANGE_SETTING,
        ),
        (("code", "scope"), "scopes", &scopes, CHANGE_SETTING),
        (("error", "unauthorized_scope_error"), "scopes", &scopes, CHANGE_SETTING),
        (("code", "late-1"), "code", "the authorization code had expired, or was used before", CONNECT_AGAIN),
        (("code", "unclear"), "code_or_redirect_url", &unclear, CONNECT_AND_SHOW),
        (("code", "path"), "token_url", token_url, CHANGE_SETTING),
        (("code", "page"), "token_url", token_url, CHANGE_SETTING),
        (("code", "other"), "request", &none, CONNECT_AND_SHOW),
    ] {
        let answer = arrive(&world, "acme", query, "application/json").await;
        assert_eq!((&answer.json()["cause"], &answer.json()["hint"]), (&json!(cause), &json!(hint)), "{query:?}");
        let page = arrive(&world, "acme", query, "text/html").await;
        assert_eq!(page.status, answer.status, "{query:?}");
        let text = page.text.replace("&#39;", "'");
        assert!(text.contains(hint) && text.contains(advice) && !text.contains("canary"), "{query:?}: {text}");
        expected.extend([(json!(cause), json!(hint)), (json!(cause), json!(hint))]);
        eventually("the log has the hint", async || world.tokenbus.log().contains(hint)).await;
    }

    let events = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    let found: Vec<(Value, Value)> =
        events.iter().map(|event| (event["cause"].clone(), event["hint"].clone())).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_hint_needs_no_profile_and_a_person_who_refuses_sees_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(&folder).await;
    let answer = arrive(&world, "odd", ("code", "pkce"), "application/json").await.json();
    let expected = "the provider did not accept PKCE: check at the provider that the app allows it with the method S256; \
                    for a provider without PKCE, set pkce of the config to off";
    assert_eq!((&answer["cause"], &answer["hint"]), (&json!("pkce"), &json!(expected)));

    // A config without scopes.
    let mut bare = world.config();
    (bare["integration_id"], bare["scopes"]) = (json!("bare"), json!(""));
    world.tokenbus.configure(&bare).await;
    let missing = ("error", "invalid_request&error_description=Missing+required+parameter:+scope");
    let answer = arrive(&world, "bare", missing, "application/json").await.json();
    let expected = "the request has no scope, and the provider asks for one: add the scopes that the app needs to scopes of \
                    the config";
    assert_eq!((&answer["cause"], &answer["hint"]), (&json!("scopes"), &json!(expected)));

    let denied = ("error", "access_denied&error_description=redirect_uri");
    let answer = arrive(&world, "acme", denied, "application/json").await;
    assert_eq!((answer.status, answer.json()), (400, json!({ "error": "access_denied", "reason": "access_denied" })));
    let page = arrive(&world, "acme", denied, "text/html").await;
    assert!(!page.text.contains("who set up") && page.text.contains("refused or cancelled"), "{}", page.text);
}

#[tokio::test]
async fn a_wrong_client_secret_has_the_same_reason_for_browser_program_event_and_node() {
    let provider = Provider::start(|_, received| {
        let (status, body) = match received.form().get("code").map(String::as_str) {
            Some("good") => (200, json!({ "access_token": "at", "refresh_token": "rt", "expires_in": 3600 })),
            _ => refusal("secret-1"),
        };
        Scripted::json(status, &body)
    });
    let world = World::with_settings(provider.await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    assert_eq!(arrive(&world, INTEGRATION, ("code", "good"), "application/json").await.status, 200);

    let program = arrive(&world, INTEGRATION, ("code", "bad"), "application/json").await;
    assert_eq!((program.status, &program.json()["reason"]), (502, &json!("invalid_client")));
    let page = arrive(&world, INTEGRATION, ("code", "bad"), "text/html").await;
    assert!(page.status == 502 && page.text.contains("invalid_client"), "{}", page.text);
    let events = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    let reasons: Vec<&Value> = events.iter().map(|event| &event["reason"]).collect();
    assert_eq!(reasons, [&json!("invalid_client"), &json!("invalid_client")]);

    let node = world.tokenbus.nats.connect("demo").await;
    let question = json!({ "integration_id": INTEGRATION, "connection_id": "one" });
    let account = Account::parse(ACCOUNT).expect("an account");
    match client::call(&node, &account, NodeCall::Refresh, &question).await {
        Err(CallError::Refused { status: 502, reason: Some(reason), .. }) => assert_eq!(reason, "invalid_client"),
        answered => panic!("{answered:?}"),
    }
}
