//! A single server that is killed right after a deletion was answered: what was deleted stays deleted. The entries were written
//! more than once, because a killed server brings back what another entry had replaced.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::{Provider, Scripted};
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;

const NAME: &str = "w";
const OTHER: &str = "other";
const TOKEN: &str = "odd/oauth-token/w";

/// A connection that was refreshed, and another one: a nats-server 2.15.1 drops an encrypted stream that a purge has emptied.
async fn refreshed(provider: &Provider) -> (Fleet, Worker) {
    let (fleet, worker) = with_short_intervals(Fleet::start(&provider.url).await).configure().await;
    connect_and_refresh(&fleet).await;
    (fleet, worker)
}

fn with_short_intervals(mut fleet: Fleet) -> Fleet {
    for (name, value) in [("REPAIR_INTERVAL", "1s"), ("MIN_INTERVAL", "1ms")] {
        fleet.settings.insert(format!("TOKENBUS_REFRESH__{name}"), value.to_owned());
    }
    fleet
}

async fn connect_and_refresh(fleet: &Fleet) {
    for name in [OTHER, NAME] {
        connect(fleet, name).await;
    }
    let (status, body) = fleet.get(&format!("{INTEGRATION}/oauth-refresh-token/{NAME}")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    fleet.idle().await;
}

async fn connect(fleet: &Fleet, name: &str) {
    let state = fleet.login(name).await;
    let (status, body) = fleet.arrive(&state, &format!("code-{name}")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

async fn delete(fleet: &Fleet, path: &str) -> StatusCode {
    fleet.request(Method::DELETE, &format!("hub/{path}"), &fleet.admin_keys[0], &json!({})).await.0
}

async fn delete_connection(fleet: &Fleet) -> StatusCode {
    delete(fleet, &format!("integrations/{INTEGRATION}/oauth-connections/{NAME}")).await
}

/// Deletes the connection and leaves the grant alone. Then the deletion has one tombstone, right after the last record.
async fn delete_alone(fleet: &Fleet) -> StatusCode {
    delete(fleet, &format!("integrations/{INTEGRATION}/oauth-connections/{NAME}?revoke=false")).await
}

async fn kill_and_restart(nats: &mut Nats) {
    nats.kill().await;
    nats.restart_once_killed().await;
}

/// Asks until the answer has the expected status. Until then the bus may be away, but no answer is a success.
async fn never_succeeds(fleet: &Fleet, key: &str, path: &str, expected: StatusCode) {
    eventually("a worker answers", async || {
        let (status, body) = fleet.get_as(key, path).await;
        assert!(!status.is_success(), "{path}: {body}");
        status == expected
    })
    .await;
}

#[tokio::test]
async fn d2_a_killed_server_brings_no_deleted_connection_back() {
    let provider = Provider::generous().await;
    let (mut fleet, _worker) = refreshed(&provider).await;
    assert_eq!(delete_connection(&fleet).await, StatusCode::OK);
    kill_and_restart(&mut fleet.nats).await;
    let tenant = fleet.nats.connect("demo").await;
    let mut pushes = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.*.*")).await.expect("a subscription");
    Nats::flush(&tenant).await;
    never_succeeds(&fleet, &fleet.admin_keys[0], TOKEN, StatusCode::NOT_FOUND).await;

    let question = json!({ "integration_id": INTEGRATION, "connection_id": NAME }).to_string();
    // Until the worker's receiver has connected again, the server finds no responder.
    eventually("a node's call is answered", async || {
        let Ok(answer) = tenant.request(format!("ms.oauth.{ACCOUNT}.token"), question.clone().into()).await else {
            return false;
        };
        let code = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
        assert!(code.is_some(), "{answer:?}");
        code.is_some_and(|code| code.as_str() == "404")
    })
    .await;
    let (_, list) = fleet.get("oauth-connections?tokens=false").await;
    assert_eq!(
        (list["results_total"].as_u64(), list["results"].as_array().map(Vec::len)),
        (Some(1), Some(1)),
        "{list}"
    );

    fleet.ready().await;
    connect(&fleet, "last").await;
    loop {
        let push = pushes.next().await.expect("the login is pushed");
        if push.subject.ends_with(".last") {
            break;
        }
        let body: Value = serde_json::from_slice(&push.payload).expect("a record is JSON");
        assert_eq!(body.get("access_token").filter(|token| !token.is_null()), None, "{}", push.subject);
    }
    connect(&fleet, NAME).await;
    assert_eq!(fleet.get(TOKEN).await.0, StatusCode::OK, "a new login replaces the marker");
}

/// Tombstones expire after `limits.tombstones`. A killed server may then bring the record before the tombstone back.
#[tokio::test]
async fn d2_a_record_that_a_killed_server_brings_back_connects_nothing() {
    let provider = Provider::start(|number, received| {
        let id = format!("person-{number}");
        let tokens = json!({ "access_token": id, "refresh_token": id, "expires_in": 3600 });
        Scripted::json(200, &if received.path == "/me" { json!({ "id": id }) } else { tokens })
    })
    .await;
    let (mut fleet, _worker) = with_short_intervals(Fleet::start(&provider.url).await).configure().await;
    let mut config = fleet.config();
    config["identity"] = json!({ "url": format!("{}/me", provider.url), "id": "id" });
    config["reconnect"] = "same_identity".into();
    assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
    connect_and_refresh(&fleet).await;
    let record = fleet.record(&Fleet::path(NAME)).await.0;
    assert_eq!(delete_alone(&fleet).await, StatusCode::OK);
    fleet.idle().await;
    let records = fleet.jetstream("setup").await.get_stream("OAUTH").await.expect("the stream");
    let subject = format!("ms.integration.oauth.{}", Fleet::path(NAME));
    records.purge().filter(subject).await.expect("purged");
    kill_and_restart(&mut fleet.nats).await;
    never_succeeds(&fleet, &fleet.admin_keys[0], TOKEN, StatusCode::NOT_FOUND).await;
    assert_eq!(fleet.record(&Fleet::path(NAME)).await.0, record, "the server did not bring the record back");

    // Each pass writes its start and its result.
    let bus = Bus::of(&fleet.nats).await;
    let passes = async || bus.last("KV_oauth_meta", "$KV.oauth_meta.repair").await.map_or(0, |pass| pass.sequence);
    let begun = passes().await;
    eventually("the repair pass has seen the record", async || passes().await > begun + 4).await;
    assert_eq!(fleet.get(TOKEN).await.0, StatusCode::NOT_FOUND);
    assert_eq!(delete_connection(&fleet).await, StatusCode::NOT_FOUND, "the connection is deleted already");
    // Each login is another person's.
    connect(&fleet, NAME).await;
    assert_eq!(fleet.get(TOKEN).await.0, StatusCode::OK);
}

#[tokio::test]
async fn g2_a_killed_server_brings_no_revoked_key_back() {
    let provider = Provider::generous().await;
    let (mut fleet, _worker) = refreshed(&provider).await;
    let (status, made) =
        fleet.request(Method::POST, "hub/api-keys", &fleet.admin_keys[0], &json!({ "name": "short" })).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let (id, key) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
    assert_eq!(fleet.get_as(key, TOKEN).await.0, StatusCode::OK);
    let subject = format!("$KV.oauth_api_keys.{id}");
    let bus = Bus::of(&fleet.nats).await;
    let entry = bus.last("KV_oauth_api_keys", &subject).await.expect("the key is stored");
    bus.client.request(subject, entry.payload).await.expect("stored once more");
    assert_eq!(delete(&fleet, &format!("api-keys/{id}")).await, StatusCode::OK);
    // Workers learn of it within moments.
    eventually("the key is refused", async || fleet.get_as(key, TOKEN).await.0 == StatusCode::UNAUTHORIZED).await;
    kill_and_restart(&mut fleet.nats).await;
    never_succeeds(&fleet, key, TOKEN, StatusCode::UNAUTHORIZED).await;
    fleet.ready().await;
    assert_eq!(fleet.get_as(key, TOKEN).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn d2_a_killed_server_brings_no_deleted_config_back() {
    let provider = Provider::generous().await;
    let (mut fleet, _worker) = refreshed(&provider).await;
    assert_eq!(fleet.put(&fleet.admin_keys[0], &fleet.config()).await.0, StatusCode::OK);
    assert_eq!(delete(&fleet, &format!("integrations/{INTEGRATION}/oauth-config")).await, StatusCode::OK);
    kill_and_restart(&mut fleet.nats).await;
    let login = format!("{INTEGRATION}/oauth-login/new");
    never_succeeds(&fleet, &fleet.admin_keys[0], &login, StatusCode::NOT_FOUND).await;
    fleet.ready().await;
    assert_eq!(fleet.get(&login).await.0, StatusCode::NOT_FOUND);
}
