//! Parts of answers that are too large to keep, and tokens that are too large for the server.

use reqwest::Method;
use serde_json::json;

use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, settings};
use crate::support::wait::eventually;
use crate::world::World;

#[tokio::test]
async fn o16_parts_that_are_too_large_are_named_in_an_event() {
    let provider = Provider::start(|number, _| {
        let scope = if number == 0 { "read".to_owned() } else { "s".repeat(17 * 1024) };
        let note = "n".repeat(if number == 0 { 1024 } else { 5 * 1024 });
        let token = format!("at-{number}");
        Scripted::json(200, &json!({ "access_token": token, "expires_in": 3600, "scope": scope, "note": note }))
    })
    .await;
    let world = World::with(provider).await;
    let mut config = world.config();
    config["metadata_paths"] = json!(["note"]);
    world.tokenbus.configure(&config).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    assert_eq!(world.connect("fits").await.0, 200);
    assert!(bus.events("parts_left_out").await.is_empty());

    let (status, body) = world.connect("large").await;
    assert!(status == 200 && body.get("scope").is_none() && body.pointer("/metadata/note").is_none(), "{body}");
    let events = bus.events("parts_left_out").await;
    let [event] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!((&event["reason"], &event["connection_id"]), (&json!("scope, metadata"), &json!("large")));
    assert!(world.tokenbus.log().contains("too large to keep"), "{}", world.tokenbus.log());
}

#[tokio::test]
async fn o16_an_event_names_the_token_that_is_over_its_limit() {
    let provider = Provider::start(|_, _| {
        let answer = json!({ "access_token": "at", "refresh_token": "r".repeat(17 * 1024), "expires_in": 3600 });
        Scripted::json(200, &answer)
    })
    .await;
    let world = World::with(provider).await;
    assert_eq!(world.connect("large").await.0, 502);
    let failed = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    let [event] = failed.as_slice() else { panic!("one event: {failed:?}") };
    let detail = event["provider_detail"].as_str().unwrap_or_default();
    assert!(detail.contains("`refresh_token` has more than 16384 bytes"), "{event}");
}

#[tokio::test]
async fn o16_an_answer_above_a_lowered_max_payload_is_an_error_that_says_so() {
    let (large, small) = ("max_payload: 1000000", "max_payload: 60000");
    let nats = Nats::edited(&[("host: 127.0.0.1", &format!("host: 127.0.0.1\n{large}"))], &[]).await;
    let provider = Provider::start(|_, _| {
        Scripted::json(200, &json!({ "access_token": "t".repeat(60_000), "refresh_token": "rt", "expires_in": 3600 }))
    })
    .await;
    let mut world = World::on(nats, provider).await;
    assert_eq!(world.connect("one").await.0, 200);
    world.tokenbus.nats.restart_edited(large, small).await;
    eventually("the log names the new limit", async || world.tokenbus.log().contains("is 60000 bytes")).await;
    world.tokenbus.ready().await;
    let (status, body) = world.tokenbus.call(Method::GET, "odd/oauth-token/one").await;
    assert!(
        status == 503 && body["error"].as_str().is_some_and(|text| text.contains("`max_payload`")),
        "{status} {body}"
    );
    let (status, list) = world.tokenbus.call(Method::GET, "oauth-connections").await;
    let left_out = json!([format!("ms.integration.oauth.{ACCOUNT}.odd.one")]);
    assert!(status == 200 && list["unreadable"] == left_out && list["results_total"] == 1, "{status} {list}");
    // Nothing is sent whose answer could not be stored.
    let sent = world.provider.received().len();
    // After the hold that follows a restart of the server.
    eventually("the refresh is refused", async || {
        let (status, body) = world.tokenbus.call(Method::GET, "odd/oauth-refresh-token/one").await;
        status == 503 && body.to_string().contains("`max_payload`")
    })
    .await;
    assert_eq!(world.provider.received().len(), sent, "a refresh token was sent");
}

#[tokio::test]
async fn o16_a_small_max_payload_is_named_and_a_larger_token_is_an_error() {
    let nats = Nats::edited(&[("host: 127.0.0.1", "host: 127.0.0.1\nmax_payload: 100000")], &[]).await;
    let provider = Provider::start(|number, _| {
        let token = "t".repeat(if number == 0 { 10_000 } else { 60_000 });
        Scripted::json(200, &json!({ "access_token": token, "expires_in": 3600 }))
    })
    .await;
    let world = World::on(nats, provider).await;
    assert!(world.tokenbus.log().contains("`max_payload` of nats-server is 100000 bytes"), "{}", world.tokenbus.log());
    assert_eq!(world.connect("fits").await.0, 200);
    let (status, body) = world.connect("large").await;
    assert_eq!(status, 502, "{body}");
    let failed = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    let [event] = failed.as_slice() else { panic!("one event: {failed:?}") };
    assert_eq!(event["reason"], "answer_too_large");
    assert!(event["provider_detail"].as_str().is_some_and(|detail| detail.contains("`max_payload`")), "{event}");

    let settings = settings(&world.tokenbus.nats, "worker", &world.tokenbus.keys_file());
    let mut doctor = tokio::process::Command::new(PROGRAM);
    let output = doctor.envs(settings).args(["doctor", "--role", "worker"]).output().await.expect("the program starts");
    let found = String::from_utf8_lossy(&output.stdout);
    assert!(found.contains("100000 bytes: access tokens over"), "{found}");
}
