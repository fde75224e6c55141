//! Forms in which providers send token answers: compressed, in odd encodings, with fields of other names.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::json;

use crate::bus::Bus;
use crate::provider::{Provider, Received, Scripted};
use crate::world::{INTEGRATION, World};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// An answer with that content coding.
fn coded(coding: &str, body: impl Into<bytes::Bytes>) -> Scripted {
    let mut answer = Scripted::new(200, "application/json", body);
    answer.headers.push(("content-encoding", coding.to_owned()));
    answer
}

#[tokio::test]
async fn c3_compressed_answers_are_read_though_none_was_asked_for() {
    let provider = Provider::start(|number, _: &Received| match number {
        0 => coded("gzip", gzip(&json!({"access_token": "at-gzip", "refresh_token": "rt"}).to_string())),
        1 => coded("gzip", r#"{"access_token":"at-plain"}"#),
        // A megabyte in 900 bytes.
        _ => coded("gzip", gzip(&format!(r#"{{"access_token":"at","more":"{}"}}"#, "x".repeat(1024 * 1024)))),
    })
    .await;
    let world = World::with(provider).await;
    let (status, body) = world.connect("gzip").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at-gzip")), "{body}");
    assert_eq!(world.provider.received()[0].headers.get("accept-encoding"), None);
    let (status, body) = world.connect("plain").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at-plain")), "{body}");
    let (status, body) = world.connect("bomb").await;
    assert_eq!(status.as_u16(), 502, "{body}");
}

/// A Slack app's user token: nested in the answer to a login, at the root of the answer to a refresh.
#[tokio::test]
async fn c5_a_rotated_user_token_is_read_from_the_root() {
    let provider = Provider::start(|number, received| {
        let tokens = json!({"access_token": format!("xoxp-{number}"), "refresh_token": format!("xoxe-{number}"),
            "expires_in": 43200, "token_type": "user"});
        let is_refresh = received.form()["grant_type"] == "refresh_token";
        let mut answer = if is_refresh { tokens } else { json!({"authed_user": tokens}) };
        answer["ok"] = json!(true);
        Scripted::json(200, &answer)
    })
    .await;
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let mut config = world.config();
    (config["provider"], config["token_response_path"]) = (json!("slack"), json!("authed_user"));
    world.tokenbus.configure(&config).await;
    let (status, body) = world.connect("user").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("xoxp-0")), "{body}");
    for number in 1..3 {
        let path = format!("{INTEGRATION}/oauth-token/user?min_valid=86400");
        let (status, body) = world.tokenbus.call(Method::GET, &path).await;
        assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!(format!("xoxp-{number}"))), "{body}");
        let sent = &world.provider.received()[number].form()["refresh_token"];
        assert_eq!(*sent, format!("xoxe-{}", number - 1), "the rotated token is kept");
    }
}

#[tokio::test]
async fn c5_fields_of_other_names_and_times_are_read() {
    let now = std::time::UNIX_EPOCH.elapsed().expect("it is later than 1970").as_secs();
    let end = i64::try_from(now).expect("the time fits") + 3600;
    let answers = [
        json!({"data": {"token": "at", "renewal": "rt"}, "ends": end.to_string(), "error": 0}),
        json!({"data": {"token": "at", "renewal": "rt"}, "ends": end * 1000, "error": null}),
        json!({"data": {"token": "at", "renewal": "rt"}, "error": false,
            "ends": jiff::Timestamp::from_second(end).expect("a time").to_string()}),
    ];
    let count = answers.len();
    let provider = Provider::start(move |number, _| Scripted::json(200, &answers[number])).await;
    let world = World::with(provider).await;
    let mut config = world.config();
    config["token_answer"] = json!({"access_token": "data.token", "refresh_token": ["token", "data.renewal"],
        "expires_at": "ends"});
    world.tokenbus.configure(&config).await;
    for number in 0..count {
        let (status, body) = world.connect("one").await;
        assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at")), "{number} {body}");
        assert_eq!(body["refresh_token"], "rt", "{number} {body}");
        let left = body["expires_in"].as_i64().expect("a lifetime");
        assert!((3500..=3600).contains(&left), "{number} {body}");
    }
}

#[tokio::test]
async fn c5_an_answer_in_another_encoding_is_read() {
    let provider = Provider::start(|number, _| {
        let body: &[u8] = match number {
            0 => b"{\"access_token\":\"at\",\"team\":\"caf\xe9\"}",
            _ => b"{\"access_token\":\"at\xe9\"}",
        };
        Scripted::new(200, "application/json; charset=iso-8859-1", body)
    })
    .await;
    let world = World::with(provider).await;
    let (status, body) = world.connect("one").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at")), "{body}");
    let (status, body) = world.connect("one").await;
    assert_eq!(status.as_u16(), 502, "a token must be exact: {body}");
}

/// Answers of providers that refuse a dead refresh token in their own words: status, body, and the entry of `error_codes`.
fn dead_grants() -> [(u16, &'static str, serde_json::Value); 3] {
    [
        (
            400,
            r#"{"status":"BAD_REFRESH_TOKEN","message":"x"}"#,
            json!({"path": "status", "equals": "BAD_REFRESH_TOKEN"}),
        ),
        (400, r#"{"error":{"type":"OAuthException","code":190}}"#, json!({"path": "error.code", "equals": 190})),
        (401, "Unauthorized", json!({"status": 401, "equals": "Unauthorized"})),
    ]
}

/// Connects with a token that is near its end, and refreshes it. Returns the connection after the provider's refusal.
async fn refuse_refresh(world: &World) -> serde_json::Value {
    let (status, body) = world.connect("one").await;
    assert_eq!(status.as_u16(), 200, "{body}");
    let path = format!("{INTEGRATION}/oauth-token/one");
    let (status, body) = world.tokenbus.call(Method::GET, &format!("{path}?min_valid=86400")).await;
    assert!(matches!(status.as_u16(), 200 | 400), "{status} {body}");
    world.tokenbus.call(Method::GET, &path).await.1
}

#[tokio::test]
async fn b6_a_dead_grant_is_known_by_the_words_of_the_config_or_profile() {
    for (status, body, mut rule) in dead_grants() {
        let provider = Provider::start(move |_, received| match received.form()["grant_type"].as_str() {
            "refresh_token" => Scripted::new(status, "application/json", body),
            _ => Scripted::json(200, &json!({"access_token": "at", "refresh_token": "rt", "expires_in": 60})),
        })
        .await;
        let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
        let mut config = world.config();
        rule["code"] = json!("invalid_grant");
        // The profile has the words of the first one.
        if body.contains("BAD_REFRESH_TOKEN") {
            config["provider"] = json!("hubspot");
        } else {
            config["error_codes"] = json!([rule]);
        }
        world.tokenbus.configure(&config).await;
        let found = refuse_refresh(&world).await;
        assert_eq!(found["status"], "needs_reauthorization", "{body} {found}");
        let events = Bus::of(&world.tokenbus.nats).await.events("needs_reauthorization").await;
        assert_eq!(events.iter().map(|event| &event["reason"]).collect::<Vec<_>>(), ["invalid_grant"], "{body}");
    }
}

/// A text cut inside an emoji, and a number that no float can hold: a refresh has spent the old token by then.
#[tokio::test]
async fn c5_a_value_that_no_json_has_costs_no_grant() {
    let provider = Provider::start(|number, received| {
        if number > 0 {
            assert_eq!(received.form()["refresh_token"], format!("rt-{}", number - 1), "the rotated token is kept");
        }
        let body = format!(
            r#"{{"access_token":"at-{number}","refresh_token":"rt-{number}","expires_in":3600,"scope":["a","b\r\n"],"user":{{"name":"\ud83d","score":1e400}}}}"#
        );
        Scripted::new(200, "application/json", body)
    })
    .await;
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let (status, body) = world.connect("one").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at-0")), "{body}");
    assert!(body.get("scope").is_none_or(|scope| !scope.to_string().contains("\\r")), "{body}");
    for number in 1..3 {
        let path = format!("{INTEGRATION}/oauth-token/one?min_valid=86400");
        let (status, body) = world.tokenbus.call(Method::GET, &path).await;
        assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!(format!("at-{number}"))), "{body}");
    }
}
