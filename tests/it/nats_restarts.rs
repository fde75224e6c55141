//! What a single server with `persist_mode: async` may lose when it is killed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, eventually};
use crate::provider::{Provider, Scripted};
use crate::refresh_crash::{connected, due, refreshes, strict_provider, withholding_provider};
use crate::support::tokenbus::ACCOUNT;

const NAME: &str = "workspace1";
/// Longer than a worker tries to store a record.
const OUTAGE: Duration = Duration::from_secs(40);

async fn token(fleet: &Fleet, name: &str) -> (StatusCode, Value) {
    fleet.get(&format!("{INTEGRATION}/oauth-token/{name}")).await
}

#[tokio::test]
async fn d4_new_tokens_are_stored_after_the_server_was_away_for_longer_than_a_write_may_take() {
    let (gate, provider) = withholding_provider().await;
    let (mut fleet, _pushes) = connected(&provider).await;
    let before = fleet.record(&Fleet::path(NAME)).await.1;
    let _worker = fleet.worker().await;
    fleet.ready().await;
    due(&fleet).await;
    eventually("the refresh token was sent", async || refreshes(&provider) == 1).await;
    fleet.nats.kill().await;
    gate.send_replace(true);
    tokio::time::sleep(OUTAGE).await;
    fleet.nats.restart_once_killed().await;
    fleet.ready().await;
    let refreshed = async || fleet.stored(NAME).await.0.is_some_and(|it| it["sequence"].as_u64() > Some(before));
    eventually("the new tokens are stored", refreshed).await;
    fleet.idle().await;
    assert_eq!(token(&fleet, NAME).await.0, StatusCode::OK);
    assert_eq!(refreshes(&provider), 1);
}

#[tokio::test]
async fn b3_a_gateway_sends_a_callback_again_that_a_restarted_server_has_lost() {
    let provider = strict_provider().await;
    let (mut fleet, mut first) = Fleet::configured(&provider.url).await;
    let queue = fleet.nats.store().join("jetstream/OAUTH/streams/OAUTH_COMMANDS");
    first.kill().await;
    let mut stopped = fleet.worker_stopping_at("exchange_1_callback_checked").await;
    let state = fleet.login(NAME).await;
    fleet.idle().await;
    let kept = tempfile::tempdir().expect("a temporary folder");
    copy(&queue, kept.path());
    let arriving = fleet.arrive(&state, "code");
    let losing = async {
        stopped.stopped().await;
        fleet.nats.kill().await;
        std::fs::remove_dir_all(&queue).expect("the queue has files");
        copy(&kept.path().join("OAUTH_COMMANDS"), queue.parent().expect("a folder of streams"));
        stopped.kill().await;
        fleet.nats.restart_once_killed().await;
        fleet.worker().await
    };
    let ((status, body), _second) = tokio::join!(arriving, losing);
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(token(&fleet, NAME).await.0, StatusCode::OK);
    let codes = provider.received().iter().filter(|received| received.form().contains_key("code")).count();
    assert_eq!(codes, 1);
}

/// What a crash may leave of a consumer that has stored no ack yet: its position, and none of its messages.
#[tokio::test]
async fn b3_queues_that_come_back_empty_deliver_what_is_queued_next() {
    let provider = strict_provider().await;
    let (mut fleet, mut first) = Fleet::configured(&provider.url).await;
    first.kill().await;
    let mut stopped = fleet.worker_stopping_at("exchange_1_callback_checked").await;
    let state = fleet.login(NAME).await;
    let arriving = fleet.arrive(&state, "code");
    let losing = async {
        stopped.stopped().await;
        stopped.kill().await;
        Bus::of(&fleet.nats).await.due_for("another", &json!(1)).await;
        take_due_without_ack(&fleet).await;
        fleet.nats.stop().await;
        for queue in ["OAUTH_COMMANDS", "OAUTH_SCHEDULE"] {
            let messages = fleet.nats.store().join("jetstream/OAUTH/streams").join(queue).join("msgs");
            std::fs::remove_dir_all(messages).expect("the queue has files");
        }
        fleet.nats.restart_once_killed().await;
        fleet.worker().await
    };
    let ((status, body), _second) = tokio::join!(arriving, losing);
    assert_eq!(status, StatusCode::OK, "{body}");
    let bus = Bus::of(&fleet.nats).await;
    bus.due_for("another", &json!(1)).await;
    let due = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.another.refresh.due");
    eventually("the due refresh is taken", async || bus.last("OAUTH_SCHEDULE", &due).await.is_none()).await;
}

async fn take_due_without_ack(fleet: &Fleet) {
    let jetstream = fleet.jetstream("setup").await;
    let consumer: PullConsumer =
        jetstream.get_consumer_from_stream("due", "OAUTH_SCHEDULE").await.expect("it is there");
    let mut messages = consumer.batch().max_messages(1).messages().await.expect("a pull");
    messages.next().await.expect("a message").expect("a message");
}

/// What a loss of power may leave of events that the server does not sync: an older stream, and the newer position of a webhook's
/// consumer.
async fn sends_after_loss(answer: u16, keeps_one: bool) {
    let receiver = Provider::start(move |_, _| Scripted::new(answer, "text/plain", "")).await;
    let provider = Provider::generous().await;
    let mut fleet = Fleet::start(&provider.url).await;
    for (name, value) in [
        ("EVENTS__SYNC", "false".to_owned()),
        ("WEBHOOKS__URL", format!("{}/hook", receiver.url)),
        ("WEBHOOKS__SECRET", format!("whsec_{}", BASE64_STANDARD.encode([7; 32]))),
        ("WEBHOOKS__EVENTS", "[connected]".to_owned()),
    ] {
        fleet.settings.insert(format!("TOKENBUS_{name}"), value);
    }
    // A stream keeps the mode that it was created with.
    fleet.jetstream("setup").await.delete_stream("OAUTH_EVENTS").await.expect("deleted");
    let (mut fleet, mut first) = fleet.configure().await;
    let sent = async |fleet: &Fleet, name: &str| {
        let state = fleet.login(name).await;
        assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
        let is_sent = async || receiver.received().iter().any(|received| received.body.contains(name));
        eventually(&format!("the event of {name} is sent ({answer}, {keeps_one})"), is_sent).await;
    };
    let events = fleet.nats.store().join("jetstream/OAUTH/streams/OAUTH_EVENTS");
    let kept = tempfile::tempdir().expect("a temporary folder");
    sent(&fleet, "one").await;
    if keeps_one {
        fleet.nats.stop().await;
        copy(&events.join("msgs"), kept.path());
        fleet.nats.restart_once_killed().await;
        fleet.ready().await;
        sent(&fleet, "two").await;
        sent(&fleet, "three").await;
    }
    first.kill().await;
    fleet.nats.stop().await;
    std::fs::remove_dir_all(events.join("msgs")).expect("the events have files");
    if keeps_one {
        copy(&kept.path().join("msgs"), &events);
    }
    fleet.nats.restart_once_killed().await;
    let _second = fleet.worker().await;
    fleet.ready().await;
    sent(&fleet, "four").await;
}

#[tokio::test]
async fn a_webhook_gets_new_events_after_events_were_lost() {
    for answer in [500, 204] {
        for keeps_one in [false, true] {
            sends_after_loss(answer, keeps_one).await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{}", from.display());
}

#[tokio::test]
async fn g2_a_killed_server_that_does_not_sync_events_loses_none_but_the_last_and_no_success() {
    let provider = Provider::generous().await;
    let mut fleet = Fleet::start(&provider.url).await;
    fleet.settings.insert("TOKENBUS_EVENTS__SYNC".to_owned(), "false".to_owned());
    // A stream keeps the mode that it was created with.
    fleet.jetstream("setup").await.delete_stream("OAUTH_EVENTS").await.expect("deleted");
    let (mut fleet, _worker) = fleet.configure().await;
    let mode = Bus::of(&fleet.nats).await.info("OAUTH_EVENTS").await.config.persist_mode;
    assert_eq!(mode, Some(async_nats::jetstream::stream::PersistenceMode::Async));
    let names = |kind: &str, most: usize| (0..most).map(|number| format!("{kind}{number}")).collect::<Vec<_>>();
    let (earlier, last) = (names("earlier", 5), names("last", 20));
    for name in &earlier {
        let state = fleet.login(name).await;
        assert_eq!(fleet.arrive(&state, name).await.0, StatusCode::OK);
    }
    fleet.idle().await;
    let mut states = Vec::new();
    for name in &last {
        states.push(fleet.login(name).await);
    }
    let arriving: Vec<_> = states.iter().map(|state| fleet.arrive(state, "code")).collect();
    let (first_answer, mut answered) = watch::channel(false);
    let arriving = join_all(arriving.into_iter().map(async |arriving| {
        let answer = arriving.await;
        first_answer.send_replace(true);
        answer
    }));
    let killing = async {
        answered.wait_for(|is_answered| *is_answered).await.expect("a callback is answered");
        fleet.nats.kill().await;
        fleet.nats.restart_once_killed().await;
    };
    let (answers, ()) = tokio::join!(arriving, killing);
    fleet.ready().await;
    fleet.idle().await;
    for (name, (status, body)) in last.iter().zip(&answers).filter(|(_, (status, _))| *status == StatusCode::OK) {
        let (read, stored) = token(&fleet, name).await;
        assert_eq!(read, StatusCode::OK, "{name} {status}: {stored}");
        assert!(stored["sequence"].as_u64() >= body["sequence"].as_u64(), "{name}: {stored}");
    }
    let events = Bus::of(&fleet.nats).await.events("connected").await;
    let has_event = |name: &&String| events.iter().any(|event| event["connection_id"] == **name);
    assert_eq!(earlier.iter().filter(|name| !has_event(name)).count(), 0, "{events:?}");
}
