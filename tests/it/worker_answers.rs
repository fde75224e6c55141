//! Answers of token endpoints, and their effect on the login and on an existing connection.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::bus::Bus;
use crate::provider::{Provider, Received, Scripted};
use crate::support::wait::eventually;
use crate::world::{World, parameter};

/// A world whose provider answers each listed code with its listed answer, and other codes with tokens.
async fn world(answers: Vec<(&'static str, Scripted)>) -> World {
    let answers: HashMap<&str, Scripted> = answers.into_iter().collect();
    let script = move |number, received: &Received| {
        let code = received.form().remove("code").unwrap_or_default();
        answers.get(code.as_str()).cloned().unwrap_or_else(|| Scripted::tokens(number))
    };
    World::with(Provider::start(script).await).await
}

/// Sends a code to a login of the connection `kept`.
async fn send_code(world: &World, code: &str) -> (u16, Value) {
    let login = world.login("kept").await;
    let (status, body) = world.tokenbus.arrive(&world.callback(&[("code", code), ("state", &login.state)])).await;
    (status.as_u16(), body)
}

/// Each of the codes in `cases` fails with its status and reason, and changes nothing.
async fn check(world: &World, cases: &[(&str, u16, &str)]) {
    let bus = Bus::of(&world.tokenbus.nats).await;
    assert_eq!(send_code(world, "fine").await.0, 200);
    let before = (world.read("kept").await, bus.last_sequence("OAUTH").await, bus.last_sequence(CONNECTIONS).await);
    for (index, (code, status, reason)) in cases.iter().enumerate() {
        let (found, body) = send_code(world, code).await;
        assert_eq!(found, *status, "{code}: {body}");
        assert!(!body.to_string().contains("canary"), "{code}: {body}");
        let failed = bus.events("exchange_failed").await;
        assert_eq!(failed.len(), index + 1, "one event for {code}");
        let last = failed.last().expect("there is one");
        assert_eq!((&last["reason"], &last["actor"]), (&json!(reason), &json!("browser")), "{code}");
        let after = (world.read("kept").await, bus.last_sequence("OAUTH").await, bus.last_sequence(CONNECTIONS).await);
        assert_eq!(after, before, "{code}");
    }
    assert_eq!(world.provider.received().len(), cases.len() + 1, "each code is sent once");
    // Workers send answers before they ack commands.
    eventually("the queue is empty", async || bus.messages("OAUTH_COMMANDS").await.is_empty()).await;
    assert!(bus.messages("OAUTH_DEAD").await.is_empty());
}

const CONNECTIONS: &str = "KV_oauth_connections";

#[tokio::test]
async fn a_provider_that_refuses_leaves_the_connection_unchanged() {
    let refused = |code: &str| json!({ "error": code, "error_description": "canary" });
    let github = "error=bad_verification_code&error_description=canary&error_uri=https%3A%2F%2Fx.example";
    let world = world(vec![
        ("grant", Scripted::json(400, &refused("invalid_grant"))),
        ("client", Scripted::json(401, &refused("invalid_client"))),
        ("odd", Scripted::json(400, &refused("canary"))),
        ("scope", Scripted::json(400, &refused("invalid_scope"))),
        ("github", Scripted::new(200, "application/x-www-form-urlencoded; charset=utf-8", github)),
        ("slack", Scripted::json(200, &json!({ "ok": false, "error": "invalid_code" }))),
        ("slack-too", Scripted::json(200, &json!({ "ok": false, "access_token": "canary" }))),
        ("both", Scripted::json(200, &json!({ "access_token": "canary", "error": "invalid_grant" }))),
    ]);
    let cases = [
        ("grant", 400, "invalid_grant"),
        ("client", 502, "invalid_client"),
        ("odd", 400, "unknown_error"),
        ("scope", 400, "invalid_scope"),
        ("github", 400, "invalid_grant"),
        ("slack", 400, "invalid_grant"),
        ("slack-too", 400, "unknown_error"),
        ("both", 400, "invalid_grant"),
    ];
    check(&world.await, &cases).await;
}

#[tokio::test]
async fn c3_malformed_answers_leave_the_connection_unchanged() {
    let html = "<!doctype html><title>canary</title>";
    let redirect = Scripted { status: 307, headers: vec![("location", "/token".to_owned())], ..Scripted::tokens(7) };
    let large = json!({ "access_token": "canary", "padding": "x".repeat(300 * 1024) });
    let world = world(vec![
        ("failed", Scripted::json(500, &json!({ "error": "invalid_grant" }))),
        ("busy", Scripted::json(429, &json!({}))),
        ("html", Scripted::new(200, "text/html", html)),
        ("nothing", Scripted::new(200, "application/json", "")),
        ("no-token", Scripted::json(200, &json!({ "token_type": "Bearer" }))),
        ("empty-token", Scripted::json(200, &json!({ "access_token": "" }))),
        ("number", Scripted::json(200, &json!({ "access_token": 7 }))),
        ("large", Scripted::json(200, &large)),
        ("large-busy", Scripted::json(503, &large)),
        ("redirect", redirect),
    ]);
    let cases = [
        ("failed", 502, "provider_error"),
        ("busy", 502, "rate_limited"),
        ("html", 502, "unreadable_answer"),
        ("nothing", 502, "unreadable_answer"),
        ("no-token", 502, "unreadable_answer"),
        ("empty-token", 502, "unreadable_answer"),
        ("number", 502, "unreadable_answer"),
        ("large", 502, "answer_too_large"),
        ("large-busy", 502, "provider_error"),
        ("redirect", 502, "unreadable_answer"),
    ];
    check(&world.await, &cases).await;
}

#[tokio::test]
async fn c3_a_provider_that_does_not_answer_times_out() {
    let world = world(vec![("slow", Scripted::tokens(0).after(Duration::from_secs(15)))]).await;
    let mut config = world.config();
    config["timeout"] = json!(1);
    world.tokenbus.configure(&config).await;
    let began = Instant::now();
    check(&world, &[("slow", 502, "provider_unreachable")]).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the config's time counts");
}

/// A client with two secrets, the older of which the provider refuses after some time.
#[tokio::test]
async fn c3_all_tries_of_a_request_share_one_timeout() {
    let provider = Provider::start(|number, received| {
        let is_old = received.form()["client_secret"] == "canary-client-secret";
        let refused = Scripted::json(401, &json!({ "error": "invalid_client" }));
        if is_old { refused } else { Scripted::tokens(number) }.after(Duration::from_secs(2))
    })
    .await;
    let world = World::with(provider).await;
    let mut config = world.config();
    (config["client_secrets"], config["timeout"]) = (json!(["canary-newer-secret"]), json!(3));
    world.tokenbus.configure(&config).await;
    let (status, body) = world.connect("w").await;
    assert_eq!(status.as_u16(), 502, "{body}");
    assert_eq!(world.provider.received().len(), 2, "both were tried");
}

#[tokio::test]
async fn c3_an_unreachable_provider_leaves_the_connection_unchanged() {
    let mut world = world(vec![]).await;
    let mut config = world.config();
    config["timeout"] = json!(1);
    world.tokenbus.configure(&config).await;
    assert_eq!(send_code(&world, "fine").await.0, 200);
    let before = world.read("kept").await;
    let login = world.login("kept").await;
    world.provider = Provider::generous().await;
    let (status, body) = world.tokenbus.arrive(&world.callback(&[("code", "c"), ("state", &login.state)])).await;
    assert_eq!(status.as_u16(), 502, "{body}");
    assert_eq!(world.read("kept").await, before);
    let failed = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    assert_eq!(failed.iter().map(|event| &event["reason"]).collect::<Vec<_>>(), ["provider_unreachable"]);
}

#[tokio::test]
async fn c6_lifetimes_of_every_form_result_in_a_valid_expiry_or_no_expiry() {
    let answer = |lifetime: Value| Scripted::json(200, &json!({ "access_token": "at", "expires_in": lifetime }));
    let world = world(vec![
        ("absent", Scripted::json(200, &json!({ "access_token": "at" }))),
        ("null", answer(Value::Null)),
        ("string", answer(json!("3600"))),
        ("float", answer(json!(3600.9))),
        ("zero", answer(json!(0))),
        ("negative", answer(json!(-3600))),
        ("huge", answer(json!(1e300))),
        ("longest", answer(json!(u64::MAX))),
        ("words", answer(json!("soon"))),
        ("list", answer(json!([3600]))),
    ]);
    let world = world.await;
    for (code, expected) in [
        ("absent", None),
        ("null", None),
        ("string", Some(3600)),
        ("float", Some(3600)),
        ("zero", None),
        ("negative", None),
        ("huge", None),
        ("longest", None),
        ("words", None),
        ("list", None),
    ] {
        let (status, body) = send_code(&world, code).await;
        assert_eq!((status, body.get("expires_in").and_then(Value::as_i64)), (200, expected), "{code}: {body}");
        let expiry = body.get("expiry").map(|expiry| expiry.as_str().expect("an expiry is text"));
        assert_eq!(expiry.is_some(), expected.is_some(), "{code}: {body}");
        if let (Some(expiry), Some(seconds)) = (expiry, expected) {
            assert!(expiry.len() == 32 && expiry.ends_with("+00:00"), "{expiry}");
            let expiry: jiff::Timestamp = expiry.parse().expect("an expiry is RFC 3339");
            let left = expiry.as_second() - body["modified"].as_i64().expect("modified is a number");
            assert!((seconds - 5..=seconds + 1).contains(&left), "{left}");
        }
        assert_eq!(world.read("kept").await.1, body, "{code}");
    }
}

#[tokio::test]
async fn g2_a_successful_login_has_one_event_with_its_sequence() {
    let world = world(vec![]).await;
    let (_, body) = send_code(&world, "fine").await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let connected = bus.events("connected").await;
    assert_eq!(connected.len(), 1, "{connected:?}");
    let event = &connected[0];
    assert_eq!((&event["sequence"], &event["connection_id"]), (&body["sequence"], &json!("kept")));
    assert_eq!((bus.events("login_started").await.len(), bus.events("exchange_failed").await.len()), (1, 0));
    for message in bus.messages("OAUTH_EVENTS").await {
        let text = String::from_utf8_lossy(&message.payload);
        for secret in ["at-0", "rt-0", "fine", "canary"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn c4_the_token_request_has_one_client_authentication_and_the_logins_parameters() {
    let world = world(vec![]).await;
    let mut basic = world.config();
    basic["client_id"] = json!("cli ent:1");
    basic["client_secret"] = json!("canary+/ü");
    basic["token_auth_method"] = json!("client_secret_basic");
    for (config, posted) in [(world.config(), true), (basic, false)] {
        world.tokenbus.configure(&config).await;
        let login = world.login("one").await;
        let callback = world.callback(&[("code", "the code/+"), ("state", &login.state)]);
        assert_eq!(world.tokenbus.arrive(&callback).await.0, 200);
        let received = world.provider.received().pop().expect("the provider was asked");
        let form = received.form();
        assert_eq!(
            (received.path.as_str(), received.content_type.as_str()),
            ("/token", "application/x-www-form-urlencoded")
        );
        assert_eq!((form["grant_type"].as_str(), form["code"].as_str()), ("authorization_code", "the code/+"));

        // A3
        assert_eq!(form["redirect_uri"], world.tokenbus.callback());
        assert_eq!(parameter(&login.oauth_url, "redirect_uri"), world.tokenbus.callback());
        // A2
        let verifier = &form["code_verifier"];
        assert!((43..=128).contains(&verifier.len()), "{verifier}");
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        assert_eq!(parameter(&login.oauth_url, "code_challenge"), challenge);
        assert_eq!(parameter(&login.oauth_url, "code_challenge_method"), "S256");
        // C4
        assert_eq!(form.contains_key("client_secret"), posted);
        let header = (!posted).then(|| {
            let pair = "cli+ent%3A1:canary%2B%2F%C3%BC";
            format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair))
        });
        assert_eq!(received.authorization, header);
        assert!(!form.contains_key("state"), "{form:?}");
    }
    let log = world.tokenbus.log();
    for received in world.provider.received() {
        assert!(!log.contains(&received.form()["code_verifier"]) && !log.contains("canary"), "{log}");
    }
    assert_eq!(world.tokenbus.call(Method::GET, "oauth-connections").await.1["results_total"], 1);
}
