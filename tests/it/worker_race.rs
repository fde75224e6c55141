//! Concurrency: callbacks with one state, logins of one connection, changes of one config.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::command::Credential;
use tokenbus::internals::gateway::{BackendError, Command, RequestContext};
use tokenbus::subject::{Account, Integration};
use tokio::time::sleep;

use crate::fleet::{Fleet, INTEGRATION};
use crate::provider::{Provider, Scripted};
use crate::support::child::signal;
use crate::support::tokenbus::ACCOUNT;

const NAME: &str = "workspace1";

#[tokio::test]
async fn b2_parallel_callbacks_exchange_once() {
    let provider = Provider::start(|number, _| Scripted::tokens(number).after(Duration::from_millis(200))).await;
    let (fleet, _first) = Fleet::configured(&provider.url).await;
    let (_second, _third) = tokio::join!(fleet.worker(), fleet.worker());
    let state = fleet.login(NAME).await;
    let answers = join_all((0..200).map(|_| fleet.arrive(&state, "canary-code"))).await;
    let (connected, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == StatusCode::OK);
    assert_eq!(connected.len(), 1);
    let other = refused.iter().find(|(status, _)| *status != StatusCode::UNAUTHORIZED);
    assert!(other.is_none(), "{other:?}");
    assert_eq!(provider.received().len(), 1);
    fleet.idle().await;
    assert_eq!(fleet.deliveries("exchange").await, 1);
    assert_eq!(fleet.events().await.len(), 1);
    assert_eq!(fleet.stored(NAME).await.1, 1);
}

#[tokio::test]
async fn b2_after_a_bus_stall_each_caller_gets_its_own_answer() {
    let provider = Provider::start(|number, _| Scripted::tokens(number).after(Duration::from_millis(200))).await;
    let (fleet, _first) = Fleet::configured(&provider.url).await;
    let state = fleet.login(NAME).await;
    let callbacks = join_all((0..60).map(|_| fleet.arrive(&state, "canary-code")));
    let stall = async {
        signal(fleet.nats.pid(), "STOP");
        // Longer than a publish waits for its answer, so that all of them are sent again.
        sleep(Duration::from_secs(2)).await;
        signal(fleet.nats.pid(), "CONT");
    };
    let (answers, ()) = tokio::join!(callbacks, stall);
    assert!(answers.iter().all(|(status, _)| *status != StatusCode::GATEWAY_TIMEOUT), "{answers:?}");
    assert!(answers.iter().filter(|(status, _)| *status == StatusCode::OK).count() <= 1, "{answers:?}");
    fleet.idle().await;
    assert!(provider.received().len() <= 1);
}

#[tokio::test]
async fn parallel_logins_of_one_connection_are_stored_one_after_the_other() {
    let provider = Provider::start(|number, _| Scripted::tokens(number).after(Duration::from_millis(100))).await;
    let (fleet, _first) = Fleet::configured(&provider.url).await;
    let _second = fleet.worker().await;
    let logins = join_all((0..8).map(|_| fleet.login(NAME))).await;
    let codes: Vec<String> = (0..logins.len()).map(|number| format!("code-{number}")).collect();
    let answers = join_all(logins.iter().zip(&codes).map(|(state, code)| fleet.arrive(state, code))).await;
    let mut sequences = HashSet::new();
    for (status, body) in &answers {
        match status.as_u16() {
            200 => assert!(sequences.insert(body["sequence"].as_u64().unwrap()), "{body}"),
            503 => assert!(body["error"].as_str().unwrap().contains("another command"), "{body}"),
            status => panic!("{status}: {body}"),
        }
    }
    fleet.idle().await;
    let newest = sequences.iter().max().copied();
    assert_eq!(fleet.record(&Fleet::path(NAME)).await.0, newest);
    assert_eq!(fleet.stored(NAME).await.0.unwrap()["sequence"].as_u64(), newest);
    let sent: Vec<String> = provider.received().iter().map(|received| received.form()["code"].clone()).collect();
    assert_eq!(sent.len(), sequences.len(), "{sent:?}");
    assert_eq!(sent.iter().collect::<HashSet<_>>().len(), sent.len(), "{sent:?}");
}

fn named(fleet: &Fleet, name: &str) -> Value {
    let mut config = fleet.config();
    config["name"] = json!(name);
    config
}

#[tokio::test]
async fn parallel_puts_all_succeed_and_the_newest_record_applies() {
    let (fleet, _first) = Fleet::configured("http://127.0.0.1:9").await;
    let _second = fleet.worker().await;
    for round in 0..5 {
        let names: Vec<String> = (0..6).map(|number| format!("{round}-{number}")).collect();
        let puts = names
            .iter()
            .enumerate()
            .map(async |(number, name)| fleet.put(&fleet.admin_keys[number % 2], &named(&fleet, name)).await);
        for (status, body) in join_all(puts).await {
            assert_eq!(status, StatusCode::OK, "{body}");
        }
        let stored = fleet.stored_config().await;
        let newest = fleet.record(&format!("config.{INTEGRATION}")).await;
        assert_eq!(stored["sequence"].as_u64(), newest.0);
        assert!(names.contains(&stored["config"]["name"].as_str().unwrap().to_owned()), "{stored}");
    }
}

/// The worker of a command dies before the record, another account's put follows, then the old command is redelivered.
async fn comes_again_after_a_newer_put(old: impl FnOnce(&Fleet, Account, Integration, String) -> Command) {
    let (fleet, mut configurer) = Fleet::configured("http://127.0.0.1:9").await;
    configurer.kill().await;
    let mut first = fleet.worker_dying_at("configure_1_change_checked").await;
    let edge = fleet.own_edge().await;
    let callers = fleet.admin_keys.clone().map(|key| RequestContext {
        credential: Some(Credential::new(Secret::new(format!("X-Api-Key {key}")))),
        ..RequestContext::default()
    });
    let seal_to = edge.seal_to(&callers[0]).await;
    let integration = Integration::parse(INTEGRATION).unwrap();
    let old = old(&fleet, Account::parse(ACCOUNT).unwrap(), integration.clone(), seal_to.clone());
    let body = named(&fleet, "Newer").to_string().into();
    let newer = Command::Put { integration, account: Account::parse(&fleet.other_account).unwrap(), seal_to, body };

    let takeover = async {
        first.ended().await;
        let (newer, second) = tokio::join!(edge.bus.command(newer, &callers[1]), fleet.worker());
        newer.expect("the newer put succeeds");
        second
    };
    let (old, _second) = tokio::join!(edge.bus.command(old, &callers[0]), takeover);
    let refusal = old.expect_err("the older command comes too late");
    let reason = if let BackendError::Refused { reason, .. } = &refusal { reason.as_deref() } else { None };
    assert_eq!(reason, Some("superseded"), "{refusal}");
    fleet.idle().await;
    let stored = fleet.stored_config().await;
    assert_eq!(stored["config"]["name"], "Newer");
    assert_eq!(stored["sequence"].as_u64(), fleet.record(&format!("config.{INTEGRATION}")).await.0);
}

#[tokio::test]
async fn d3_a_redelivered_put_does_not_undo_a_newer_one() {
    let put = |fleet: &Fleet, account, integration, seal_to| {
        let body = named(fleet, "Older").to_string().into();
        Command::Put { integration, account, seal_to, body }
    };
    Box::pin(comes_again_after_a_newer_put(put)).await;
}

#[tokio::test]
async fn d3_a_redelivered_delete_does_not_undo_a_newer_put() {
    let delete = |_: &Fleet, account, integration, seal_to| Command::Delete { integration, account, seal_to };
    Box::pin(comes_again_after_a_newer_put(delete)).await;
}

#[tokio::test]
async fn a_config_whose_worker_dies_is_deleted_once() {
    let check = async |step: &str| {
        let (fleet, mut configurer) = Fleet::configured("http://127.0.0.1:9").await;
        configurer.kill().await;
        let mut first = fleet.worker_dying_at(step).await;
        let edge = fleet.own_edge().await;
        let credential = Credential::new(Secret::new(format!("X-Api-Key {}", fleet.admin_keys[0])));
        let caller = RequestContext { credential: Some(credential), ..RequestContext::default() };
        let seal_to = edge.seal_to(&caller).await;
        let (integration, account) = (Integration::parse(INTEGRATION).unwrap(), Account::parse(ACCOUNT).unwrap());
        let delete = Command::Delete { integration, account, seal_to };
        let takeover = async {
            first.ended().await;
            fleet.worker().await
        };
        let (deleted, _second) = tokio::join!(edge.bus.command(delete, &caller), takeover);
        deleted.expect("the second worker deletes it");
        fleet.idle().await;
        let stored = fleet.stored_config().await;
        let (newest, records) = fleet.record(&format!("config.{INTEGRATION}")).await;
        assert_eq!((newest, records), (Some(2), 2), "{step}");
        assert_eq!((&stored["config"], stored["sequence"].as_u64()), (&Value::Null, newest), "{step}");
        assert_eq!(fleet.events().await.len(), 1, "{step}");
    };
    tokio::join!(
        check("configure_2_record_written"),
        check("configure_3_kv_written"),
        check("configure_4_event_published"),
    );
}
