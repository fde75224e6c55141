//! Events of commands whose worker died between record and event, and which the server has lost. The next command publishes
//! them before it replaces the record.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, Worker};
use crate::provider::{Provider, Scripted};

const NAME: &str = "w";

/// Lets a worker die at that step while it runs a command, and removes the command from the queue.
async fn lose(fleet: &Fleet, step: &str, command: impl Future) -> Worker {
    let mut doomed = fleet.worker_dying_at(step).await;
    lose_from(fleet, &mut doomed, command).await;
    fleet.worker().await
}

async fn lose_from(fleet: &Fleet, doomed: &mut Worker, command: impl Future) {
    tokio::select! {
        _ = command => panic!("a worker that dies does not answer"),
        status = doomed.ended() => assert!(!status.success()),
    }
    let commands = fleet.jetstream("worker").await.get_stream("OAUTH_COMMANDS").await.expect("the queue");
    let lost = commands.cached_info().state.last_sequence;
    assert!(commands.delete_message(lost).await.expect("JetStream answers"));
}

async fn delete(fleet: &Fleet) -> StatusCode {
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/{NAME}");
    fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &json!({})).await.0
}

async fn connect(fleet: &Fleet) -> Value {
    let (status, body) = fleet.arrive(&fleet.login(NAME).await, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[tokio::test]
async fn g2_a_login_whose_event_a_crash_left_out_has_it_before_the_next_change() {
    let provider = Provider::generous().await;
    let (fleet, mut configurer) = Fleet::configured(&provider.url).await;
    configurer.kill().await;
    let mut doomed = fleet.worker_dying_at("exchange_4_record_written").await;
    let state = fleet.login(NAME).await;
    lose_from(&fleet, &mut doomed, fleet.arrive(&state, "code")).await;
    let _second = fleet.worker().await;
    fleet.ready().await;
    let (record, _) = fleet.record(&Fleet::path(NAME)).await;
    assert_eq!(kinds(&fleet.events().await), [] as [&str; 0]);
    // The entry is missing too; a login replaces the record.
    connect(&fleet).await;
    let events = fleet.events().await;
    assert_eq!(kinds(&events), ["connected", "connected"]);
    assert_eq!((&events[0]["sequence"], &events[0]["actor"]), (&json!(record), &json!("browser")));
    assert!(events[0]["request_id"].is_string() && events[0]["expiry"].is_string(), "{events:?}");
    assert_eq!(delete(&fleet).await, StatusCode::OK);
    connect(&fleet).await;
    assert_eq!(kinds(&fleet.events().await), ["connected", "connected", "revoked", "connected"], "nothing comes twice");
}

#[tokio::test]
async fn g2_a_deletion_replaced_by_a_login_has_its_event() {
    let provider = Provider::start(|number, received| match received.path.as_str() {
        "/revoke" => Scripted::new(503, "text/plain", ""),
        _ => Scripted::tokens(number),
    })
    .await;
    for step in ["revoke_2_tombstone_written", "revoke_4_outcome_stored"] {
        let (fleet, mut first) = Fleet::configured(&provider.url).await;
        let mut config = fleet.config();
        config["revocation_url"] = format!("{}/revoke", provider.url).into();
        assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
        connect(&fleet).await;
        first.kill().await;
        let _second = lose(&fleet, step, delete(&fleet)).await;
        fleet.ready().await;
        connect(&fleet).await;
        let events = fleet.events().await;
        assert_eq!(kinds(&events), ["connected", "revoked", "connected"], "{step}");
        assert_eq!(events[1]["reason"], "replaced", "{step}");
        assert!(events[1]["actor"].as_str().is_some_and(|actor| actor.starts_with("key:")), "{step}: {events:?}");
    }
}

#[tokio::test]
async fn g2_a_config_whose_event_a_crash_left_out_has_it_before_the_next_change() {
    let provider = Provider::generous().await;
    let fleet = Fleet::start(&provider.url).await;
    let config = fleet.config();
    let _second = lose(&fleet, "configure_2_record_written", fleet.put(&fleet.admin_keys[0], &config)).await;
    fleet.ready().await;
    let bus = Bus::of(&fleet.nats).await;
    assert_eq!(bus.events("config_put").await.len(), 0);
    assert_eq!(fleet.put(&fleet.admin_keys[1], &config).await.0, StatusCode::OK);
    let events = bus.events("config_put").await;
    let accounts: Vec<&Value> = events.iter().map(|event| &event["account"]).collect();
    assert_eq!(accounts, [&json!(crate::support::tokenbus::ACCOUNT), &json!(fleet.other_account)]);
    assert_eq!((&events[0]["sequence"], &events[1]["sequence"]), (&json!(1), &json!(2)));
}
