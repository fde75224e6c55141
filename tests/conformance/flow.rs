//! Logins with tokenbus as the client, from the config to the token on its subject.

use crate::parts::client::{SECRET, metadata, refresh};
use crate::parts::install;
use crate::parts::provider::Fault;
use crate::parts::visitor::{Consent, query};
use crate::parts::world::{CONNECTION, INTEGRATION, World, text, token_subject};
use crate::support::tokenbus::ACCOUNT;
use async_nats::jetstream;
use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::process::Command;

#[tokio::test]
async fn a_login_becomes_a_connection() {
    let world = World::start().await;
    let callback = world.callback(CONNECTION, Consent::Allow).await;
    assert_eq!(query(&callback)["iss"], world.provider.issuer);
    let (status, connection) = world.tokenbus.arrive(&callback).await;
    assert_eq!(status, StatusCode::OK, "{connection}");

    assert_eq!(text(&connection, "token_type"), "Bearer");
    assert_eq!(text(&connection, "scope"), "read write");
    assert_eq!(text(&connection, "status"), "active");
    assert_eq!(text(&connection, "subject"), token_subject(CONNECTION));
    assert_eq!(connection["expires_in"], 3600);
    assert!(text(&connection, "expiry").ends_with("+00:00"), "{connection}");
    assert_eq!(world.token_requests().await, [exchange(200)]);
    assert_grant_works(&world, &connection).await;

    let (status, read) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/{CONNECTION}")).await;
    assert_eq!((status, read), (StatusCode::OK, connection));
}

#[tokio::test]
async fn a_login_is_pushed_and_stored_sealed() {
    let world = World::start().await;
    let tenant = world.tokenbus.nats.connect("demo").await;
    let mut pushed = tenant.subscribe(token_subject("*")).await.expect("a subscription");
    tenant.flush().await.expect("the subscription is open");
    let connection = world.connect(CONNECTION).await;

    let message = pushed.next().await.expect("a push");
    let body: Value = serde_json::from_slice(&message.payload).expect("a push is JSON");
    assert_eq!(text(&body, "access_token"), text(&connection, "access_token"));
    assert!(body.get("refresh_token").is_none(), "a push with a refresh token");
    let sequence = message.headers.as_ref().and_then(|headers| headers.get("Nats-Sequence")).expect("a sequence");
    assert_eq!(sequence.as_str(), connection["sequence"].to_string());

    let operator = jetstream::new(world.tokenbus.nats.connect("operator").await);
    let bucket = operator.get_key_value("oauth_connections").await.expect("the bucket is there");
    let stored = bucket.get(format!("{ACCOUNT}.{INTEGRATION}.{CONNECTION}")).await.expect("a readable bucket");
    let stored: Value = serde_json::from_slice(&stored.expect("the connection is in it")).expect("it is JSON");
    for field in ["sequence", "subject", "modified", "status"] {
        assert_eq!(stored[field], connection[field], "{field}");
    }
    assert!(text(&stored, "sealed").starts_with("v1."), "the connection is not sealed");
    for field in ["access_token", "refresh_token"] {
        assert!(!stored.to_string().contains(text(&connection, field)), "{field} is in the bucket in clear");
    }
}

#[tokio::test]
async fn a_login_may_ask_for_fewer_scopes() {
    let world = World::start().await;
    let path = format!("{INTEGRATION}/oauth-login/{CONNECTION}?scopes=read");
    let (_, body) = world.tokenbus.call(Method::GET, &path).await;
    let start = text(&body, "oauth_url").parse().expect("a URL");
    let callback = crate::parts::visitor::walk(start, &world.tokenbus.callback(), Consent::Allow).await;
    let (status, connection) = world.tokenbus.arrive(&callback).await;
    assert_eq!((status, text(&connection, "scope")), (StatusCode::OK, "read"));
}

#[tokio::test]
async fn a_second_login_replaces_the_first() {
    let world = World::start().await;
    let first = world.connect(CONNECTION).await;
    let second = world.connect(CONNECTION).await;
    assert!(second["sequence"].as_u64() > first["sequence"].as_u64(), "{first} {second}");
    let (_, read) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/{CONNECTION}")).await;
    assert_eq!(read, second);
}

#[tokio::test]
async fn a_connection_survives_a_restart_of_the_program() {
    let mut world = World::start().await;
    let connection = world.connect(CONNECTION).await;
    world.tokenbus.crash_and_restart().await;
    let (status, read) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/{CONNECTION}")).await;
    assert_eq!((status, read), (StatusCode::OK, connection));
}

#[tokio::test]
async fn client_secret_post_is_used() {
    assert_authenticates(&World::unconfigured(metadata("client_secret_post"), &[]).await, json!({})).await;
}

/// Id and secret hold what only a form-encoded pair gets through (RFC 6749 §2.3.1).
#[tokio::test]
async fn c4_client_secret_basic_is_form_encoded() {
    let mut client = metadata("client_secret_basic");
    client["client_id"] = "a client: with +/%&=?".into();
    assert!(SECRET.contains(':') && SECRET.contains('+') && SECRET.contains('%') && SECRET.contains(' '));
    assert_authenticates(&World::unconfigured(client, &[]).await, json!({})).await;
}

#[tokio::test]
async fn a_public_client_only_sends_its_id() {
    assert_authenticates(&World::unconfigured(metadata("none"), &[]).await, json!({})).await;
}

#[tokio::test]
async fn private_key_jwt_with_es256() {
    assert_assertion_works("ES256").await;
}

#[tokio::test]
async fn private_key_jwt_with_rs256() {
    assert_assertion_works("RS256").await;
}

#[tokio::test]
async fn private_key_jwt_with_eddsa() {
    assert_assertion_works("EdDSA").await;
}

#[tokio::test]
async fn a_wrong_secret_is_a_bad_gateway() {
    let world = World::start().await;
    let mut config = world.config();
    config["client_secret"] = "not the one".into();
    world.tokenbus.configure(&config).await;
    let callback = world.callback(CONNECTION, Consent::Allow).await;
    assert_refused(&world, &callback, StatusCode::BAD_GATEWAY, "invalid_client").await;
    assert_eq!(world.provider.received().await.len(), 1);
}

#[tokio::test]
async fn a2_without_pkce_the_provider_refuses() {
    let world = World::start().await;
    let mut config = world.config();
    config["pkce"] = "off".into();
    world.tokenbus.configure(&config).await;
    let callback = world.callback(CONNECTION, Consent::Allow).await;
    assert_refused(&world, &callback, StatusCode::BAD_REQUEST, "invalid_request").await;
    assert_eq!(world.token_requests().await, []);
}

#[tokio::test]
async fn b5_another_issuer_is_refused_before_any_token_request() {
    let world = World::start().await;
    let mut config = world.config();
    config["issuer"] = "https://another.example".into();
    world.tokenbus.configure(&config).await;
    for consent in [Consent::Allow, Consent::Deny] {
        let callback = world.callback(CONNECTION, consent).await;
        assert_refused(&world, &callback, StatusCode::BAD_REQUEST, "issuer").await;
    }
    assert_eq!(world.token_requests().await, []);
}

#[tokio::test]
async fn b5_a_missing_issuer_is_refused_before_any_token_request() {
    let world = World::start().await;
    let mut callback = world.callback(CONNECTION, Consent::Allow).await;
    let kept: Vec<_> = query(&callback).into_iter().filter(|(name, _)| name != "iss").collect();
    callback.query_pairs_mut().clear().extend_pairs(kept);
    assert_refused(&world, &callback, StatusCode::BAD_REQUEST, "issuer").await;
    assert_eq!(world.token_requests().await, []);
}

#[tokio::test]
async fn b1_a_replayed_callback_does_not_revoke_the_grant() {
    let world = World::start().await;
    let callback = world.callback(CONNECTION, Consent::Allow).await;
    let (status, connection) = world.tokenbus.arrive(&callback).await;
    assert_eq!(status, StatusCode::OK, "{connection}");
    assert_used(&world, &callback).await;
    assert_eq!(world.token_requests().await, [exchange(200)]);
    assert_grant_works(&world, &connection).await;
}

#[tokio::test]
async fn b2_parallel_callbacks_exchange_once() {
    let world = World::start().await;
    let callback = world.callback(CONNECTION, Consent::Allow).await;
    let answers = join_all((0..8).map(|_| world.tokenbus.arrive(&callback))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == StatusCode::OK);
    assert_eq!(won.len(), 1, "{lost:?}");
    assert!(lost.iter().all(|(status, _)| *status == StatusCode::UNAUTHORIZED), "{lost:?}");
    assert_eq!(world.token_requests().await, [exchange(200)]);
    assert_grant_works(&world, &won[0].1).await;
}

#[tokio::test]
async fn b6_a_denied_consent_is_access_denied() {
    let world = World::start().await;
    let callback = world.callback(CONNECTION, Consent::Deny).await;
    assert_refused(&world, &callback, StatusCode::BAD_REQUEST, "access_denied").await;
    assert_eq!(world.token_requests().await, []);
    let (status, _) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/{CONNECTION}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_unavailable_provider_is_a_bad_gateway() {
    let world = World::start().await;
    let callback = world.callback(CONNECTION, Consent::Allow).await;
    world.provider.fault(&[Fault::Unavailable]).await;
    assert_refused(&world, &callback, StatusCode::BAD_GATEWAY, "").await;
    assert_eq!(world.token_requests().await, [(None, 503)]);
}

#[tokio::test]
async fn b3_a_code_whose_answer_is_lost_is_not_sent_again() {
    let world = World::start().await;
    let callback = world.callback(CONNECTION, Consent::Allow).await;
    world.provider.fault(&[Fault::Lost]).await;
    assert_refused(&world, &callback, StatusCode::BAD_GATEWAY, "").await;
    assert_eq!(world.token_requests().await, [exchange(200)]);
}

fn exchange(status: u16) -> (Option<String>, u16) {
    (Some("authorization_code".to_owned()), status)
}

/// Checks that the provider accepts the connection's refresh token: the grant is still valid.
async fn assert_grant_works(world: &World, connection: &Value) {
    let (status, answer) = refresh(&world.provider, text(connection, "refresh_token")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// Checks that the callback is refused with an error that contains `why`, and that its state is consumed.
async fn assert_refused(world: &World, callback: &url::Url, status: StatusCode, why: &str) {
    let (answered, body) = world.tokenbus.arrive(callback).await;
    assert_eq!(answered, status, "{body}");
    assert!(text(&body, "error").contains(why), "{body}");
    assert_used(world, callback).await;
}

async fn assert_used(world: &World, callback: &url::Url) {
    let (status, body) = world.tokenbus.arrive(callback).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
}

/// A login works, with the one authentication method that the client has at the provider.
async fn assert_authenticates(world: &World, more: Value) {
    let mut config = world.config();
    for (name, value) in more.as_object().expect("an object") {
        config[name] = value.clone();
    }
    world.tokenbus.configure(&config).await;
    world.connect(CONNECTION).await;
    let received = world.provider.received().await;
    let seen: Vec<_> = received.iter().map(|it| (it.status, it.auth.as_deref(), it.client_id.as_deref())).collect();
    assert_eq!(seen, [(200, config["token_auth_method"].as_str(), config["client_id"].as_str())]);
}

async fn assert_assertion_works(algorithm: &str) {
    let script = install::provider().join("keypair.mjs");
    let made = Command::new("node").arg(script).arg(algorithm).output().expect("node starts");
    let made: Value = serde_json::from_slice(&made.stdout).expect("a key pair");
    let mut client = metadata("private_key_jwt");
    client["jwks"] = json!({ "keys": [made["jwk"]] });
    client["token_endpoint_auth_signing_alg"] = algorithm.into();
    let key = json!({
        "client_key": made["pem"], "client_key_id": made["jwk"]["kid"], "client_key_alg": algorithm,
    });
    assert_authenticates(&World::unconfigured(client, &[]).await, key).await;
}
