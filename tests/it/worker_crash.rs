//! Workers that die or are paused in the middle of an exchange: the caller's answer, the stored state, and that no
//! code is sent twice.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::command::Credential;
use tokenbus::internals::gateway::{Command, RequestContext, StateOwner};

use crate::fleet::{Fleet, Worker, eventually};
use crate::provider::{Provider, Scripted};
use crate::refresh_crash::applied;
use crate::support::child::signal;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;

const NAME: &str = "workspace1";
const CODE: &str = "canary-code";
/// Steps of an exchange after which there is no record yet.
pub(crate) const STEPS_BEFORE_RECORD: [&str; 3] =
    ["exchange_1_callback_checked", "exchange_2_login_consumed", "exchange_3_code_sent"];
/// Steps of an exchange after which the record is written.
pub(crate) const STEPS_WITH_RECORD: [&str; 8] = [
    "exchange_4_record_written",
    "apply_1_kv_written",
    "apply_2_answered",
    "apply_3_event_published",
    "apply_4_refresh_scheduled",
    "exchange_5_record_applied",
    "delivery_1_answered",
    "delivery_2_acked",
];

/// The observable state after the test.
struct Ending {
    place: &'static str,
    status: StatusCode,
    body: Value,
    token_requests: usize,
    events: Vec<Value>,
    stored: Option<Value>,
    kv_writes: u64,
    newest_record: Option<u64>,
    records: u64,
}

/// Runs a login whose worker dies at that failpoint, and starts another worker that takes over.
async fn dies_at(place: &'static str) -> Ending {
    let provider = Provider::generous().await;
    let (fleet, mut configurer) = Fleet::configured(&provider.url).await;
    configurer.kill().await;
    let mut first = fleet.worker_dying_at(place).await;
    let state = fleet.login(NAME).await;
    let takeover = async {
        assert!(!first.ended().await.success(), "{place}");
        fleet.worker().await
    };
    let ((status, body), _second) = tokio::join!(fleet.arrive(&state, CODE), takeover);
    ending(place, status, body, &fleet, &provider).await
}

async fn ending(place: &'static str, status: StatusCode, body: Value, fleet: &Fleet, provider: &Provider) -> Ending {
    fleet.idle().await;
    let (stored, kv_writes) = fleet.stored(NAME).await;
    let (newest_record, records) = fleet.record(&Fleet::path(NAME)).await;
    let (token_requests, events) = (provider.received().len(), fleet.events().await);
    Ending { place, status, body, token_requests, events, stored, kv_writes, newest_record, records }
}

impl Ending {
    /// Checks that the attempt began and left no record.
    #[track_caller]
    fn assert_interrupted(&self, token_requests: usize) {
        let Self { place, status, body, events, .. } = self;
        assert_eq!(*status, StatusCode::BAD_GATEWAY, "{place}: {body}");
        assert_eq!(body["reason"], "exchange_interrupted", "{place}: {body}");
        assert_eq!(self.token_requests, token_requests, "{place}");
        assert_eq!(events.len(), 1, "{place}: {events:?}");
        assert_eq!(events[0]["event"], "exchange_failed", "{place}");
        assert_eq!(events[0]["reason"], "exchange_interrupted", "{place}");
        assert_eq!((&self.stored, self.kv_writes, self.newest_record), (&None, 0, None), "{place}");
    }

    /// Checks that the login succeeded, with one token request.
    #[track_caller]
    fn assert_connected(&self) {
        let Self { place, status, body, events, .. } = self;
        assert_eq!(*status, StatusCode::OK, "{place}: {body}");
        assert_eq!(self.token_requests, 1, "{place}");
        assert_eq!(body["access_token"], "at-0", "{place}");
        assert_eq!(events.len(), 1, "{place}: {events:?}");
        assert_eq!((&events[0]["event"], &events[0]["sequence"]), (&json!("connected"), &body["sequence"]), "{place}");
        // The config's record is the stream's first, the connection's the second and last.
        assert_eq!((self.newest_record, self.records, &body["sequence"]), (Some(2), 2, &json!(2)), "{place}");
        let stored = self.stored.as_ref().expect("the connection is stored");
        assert_eq!((&stored["sequence"], self.kv_writes), (&body["sequence"], 1), "{place}");
    }
}

#[tokio::test]
async fn b3_a_worker_killed_after_consuming_the_login_and_before_the_record_interrupts_the_exchange() {
    let [_, consumed, sent] = STEPS_BEFORE_RECORD;
    let check = async |step, token_requests| dies_at(step).await.assert_interrupted(token_requests);
    tokio::join!(check(consumed, 0), check(sent, 1));
}

#[tokio::test]
async fn a_worker_killed_after_the_record_is_completed_by_the_next() {
    let endings = join_all(STEPS_WITH_RECORD.map(dies_at)).await;
    endings.iter().for_each(Ending::assert_connected);
}

#[tokio::test]
async fn a_worker_killed_before_consuming_the_login_loses_nothing() {
    let [checked, ..] = STEPS_BEFORE_RECORD;
    dies_at(checked).await.assert_connected();
}

#[tokio::test]
async fn a_command_sent_without_a_worker_waits_for_one() {
    let provider = Provider::generous().await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    let state = fleet.login(NAME).await;
    let edge = fleet.own_edge().await;
    let owner = edge.owner(&state).await;
    worker.kill().await;
    let late = async {
        let jetstream = fleet.jetstream("setup").await;
        eventually("the command is queued", async || {
            jetstream.get_stream("OAUTH_COMMANDS").await.is_ok_and(|stream| stream.cached_info().state.messages == 1)
        })
        .await;
        fleet.worker().await
    };
    let command = exchange(&state, "canary-code", owner);
    let caller = with_key(&fleet);
    let (answer, _late) = tokio::join!(edge.bus.command(command, &caller), late);
    let body = serde_json::from_slice(&answer.expect("the late worker connects")).unwrap();
    ending("queued", StatusCode::OK, body, &fleet, &provider).await.assert_connected();
}

#[tokio::test]
async fn b3_a_worker_killed_during_its_token_request_leaves_the_older_connection_unchanged() {
    let victim = Arc::new(AtomicU32::new(0));
    let provider = Provider::start({
        let victim = Arc::clone(&victim);
        move |number, _| {
            if number == 0 {
                return Scripted::tokens(number);
            }
            signal(victim.load(Ordering::SeqCst), "KILL");
            Scripted::tokens(number).after(Duration::from_mins(1))
        }
    })
    .await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    victim.store(first.pid(), Ordering::SeqCst);
    let state = fleet.login(NAME).await;
    let (status, older) = fleet.arrive(&state, "older-code").await;
    assert_eq!(status, StatusCode::OK, "{older}");
    fleet.idle().await;
    let stored_before = fleet.stored(NAME).await;

    let state = fleet.login(NAME).await;
    let takeover = async {
        first.ended().await;
        fleet.worker().await
    };
    let ((status, body), _second) = tokio::join!(fleet.arrive(&state, CODE), takeover);
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    assert_eq!(body["reason"], "exchange_interrupted", "{body}");
    fleet.idle().await;
    assert_eq!(fleet.stored(NAME).await, stored_before);
    assert_eq!(fleet.record(&Fleet::path(NAME)).await.0, older["sequence"].as_u64());
    let codes: Vec<String> = provider.received().iter().map(|received| received.form()["code"].clone()).collect();
    assert_eq!(codes, ["older-code", CODE]);
    let events = fleet.events().await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[1]["reason"], "exchange_interrupted");
    let (status, read) = fleet.get(&format!("odd/oauth-token/{NAME}")).await;
    assert_eq!((status, read), (StatusCode::OK, older));
}

fn exchange(state: &str, code: &str, owner: StateOwner) -> Command {
    let query = Secret::new(format!("code={code}&state={state}"));
    Command::Exchange { state: Secret::new(state), query, owner, cookies: Vec::new() }
}

/// A request with the usual key.
fn with_key(fleet: &Fleet) -> RequestContext {
    let key = Secret::new(format!("X-Api-Key {}", fleet.admin_keys[0]));
    RequestContext { credential: Some(Credential::new(key)), ..RequestContext::default() }
}

/// A login whose worker was stopped, so that another worker has answered.
struct TakenOver {
    provider: Provider,
    fleet: Fleet,
    stopped: Worker,
    /// Kept running.
    _second: Worker,
    status: StatusCode,
    body: Value,
}

impl TakenOver {
    async fn at(place: &str) -> Self {
        let provider = Provider::generous().await;
        let (fleet, mut configurer) = Fleet::configured(&provider.url).await;
        configurer.kill().await;
        let stopped = fleet.worker_stopping_at(place).await;
        let state = fleet.login(NAME).await;
        let takeover = async {
            stopped.stopped().await;
            fleet.worker().await
        };
        let ((status, body), second) = tokio::join!(fleet.arrive(&state, CODE), takeover);
        fleet.idle().await;
        Self { provider, fleet, stopped, _second: second, status, body }
    }
}

/// A login whose worker is paused at that failpoint until another worker has finished it.
async fn stopped_at(place: &'static str) {
    let TakenOver { provider, fleet, stopped: first, _second, status, body } = TakenOver::at(place).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{place}: {body}");
    assert_eq!(fleet.stored(NAME).await.0, None, "{place}");

    // The first worker's tokens are stored although the caller has had 504, because no newer record exists.
    first.signal("CONT");
    eventually("the late connection has an event", async || fleet.events().await.len() == 2).await;
    let events = fleet.events().await;
    assert_eq!(events[0]["reason"], "exchange_interrupted", "{place}");
    assert_eq!(events[1]["event"], "connected", "{place}");
    applied(&fleet).await;
    assert_eq!(fleet.stored(NAME).await.1, 1, "{place}");
    assert_eq!(provider.received().len(), 1, "{place}");
}

#[tokio::test]
async fn b3_a_worker_paused_before_the_record_stores_a_late_but_complete_connection() {
    stopped_at("exchange_3_code_sent").await;
}

/// The caller has been told to start again, so the code is not sent any more.
#[tokio::test]
async fn b3_h3_a_worker_paused_before_the_code_sends_nothing_when_it_continues() {
    let TakenOver { provider, fleet, stopped: first, _second, status, body } =
        TakenOver::at("exchange_2_login_consumed").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    first.signal("CONT");
    let left = async || first.log().contains("another worker has the command");
    eventually("the first worker leaves the command", left).await;
    assert_eq!((provider.received().len(), fleet.events().await.len()), (0, 1));
}

#[tokio::test]
async fn a_worker_paused_before_consuming_the_login_finds_its_work_done() {
    let TakenOver { provider, fleet, stopped: mut first, _second, status, body } =
        TakenOver::at("exchange_1_callback_checked").await;
    first.signal("CONT");
    let ended = |log: &str| log.contains("another worker has the command");
    eventually("the first worker ends its delivery", async || ended(&first.log())).await;
    first.signal("TERM");
    assert!(first.ended().await.success());
    ending("stopped before the mark", status, body, &fleet, &provider).await.assert_connected();
}

#[tokio::test]
async fn d3_e8_a_paused_worker_neither_overwrites_nor_pushes() {
    let provider = Provider::generous().await;
    let (fleet, mut configurer) = Fleet::configured(&provider.url).await;
    configurer.kill().await;
    let first = fleet.worker_stopping_at("exchange_3_code_sent").await;
    let edge = fleet.own_edge().await;
    let tenant = fleet.nats.connect("demo").await;
    let mut pushed = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.*.*")).await.unwrap();
    Nats::flush(&tenant).await;
    // Both logins begin before: calls would go to the stopped worker, too.
    let (old, new) = (fleet.login(NAME).await, fleet.login(NAME).await);
    let owner = edge.owner(&new).await;
    let takeover = async {
        first.stopped().await;
        fleet.worker().await
    };
    let ((status, body), _second) = tokio::join!(fleet.arrive(&old, "old-code"), takeover);
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    let newer =
        edge.bus.command(exchange(&new, "new-code", owner), &with_key(&fleet)).await.expect("the second one connects");
    let newer: Value = serde_json::from_slice(&newer).unwrap();
    assert_eq!(newer["access_token"], "at-1");

    first.signal("CONT");
    eventually("the late exchange is refused", async || first.log().contains("superseded")).await;
    fleet.idle().await;
    let reasons: Vec<Value> = fleet.events().await.iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(reasons, [json!("exchange_interrupted"), Value::Null]);
    let (stored, writes) = fleet.stored(NAME).await;
    assert_eq!((&stored.unwrap()["sequence"], writes), (&newer["sequence"], 1));
    assert_eq!(fleet.record(&Fleet::path(NAME)).await.0, newer["sequence"].as_u64());
    assert_eq!(provider.received().len(), 2);

    // A message of the tenant to itself, which arrives after all pushes.
    let last = format!("ms.integration.oauth.{ACCOUNT}.odd.last");
    tenant.publish(last.clone(), "".into()).await.unwrap();
    let token: Value = serde_json::from_slice(&pushed.next().await.unwrap().payload).unwrap();
    assert_eq!(token["access_token"], "at-1");
    assert_eq!(pushed.next().await.unwrap().subject.as_str(), last);
}

#[tokio::test]
async fn a_command_with_a_slow_provider_stays_with_one_worker() {
    let provider = Provider::start(|number, _| Scripted::tokens(number).after(Duration::from_secs(8))).await;
    let (fleet, _first) = Fleet::configured(&provider.url).await;
    let _second = fleet.worker().await;
    let state = fleet.login(NAME).await;
    let (status, body) = fleet.arrive(&state, CODE).await;
    ending("slow", status, body, &fleet, &provider).await.assert_connected();
    assert_eq!(fleet.deliveries("exchange").await, 1);
}

/// A provider that sends SIGTERM to `victim` when it is asked, and answers two seconds later.
async fn terminating_provider(victim: &Arc<AtomicU32>) -> Provider {
    let victim = Arc::clone(victim);
    Provider::start(move |number, _| {
        signal(victim.load(Ordering::SeqCst), "TERM");
        Scripted::tokens(number).after(Duration::from_secs(2))
    })
    .await
}

#[tokio::test]
async fn a_worker_that_gets_sigterm_finishes_its_commands() {
    let victim = Arc::default();
    let provider = terminating_provider(&victim).await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    victim.store(worker.pid(), Ordering::SeqCst);
    let state = fleet.login(NAME).await;
    let ((status, body), ended): (_, ExitStatus) = tokio::join!(fleet.arrive(&state, CODE), worker.ended());
    assert!(ended.success(), "{ended}\n{}", worker.log());
    ending("worker told to stop", status, body, &fleet, &provider).await.assert_connected();
}

#[tokio::test]
async fn an_edge_that_gets_sigterm_answers_its_open_requests() {
    let victim = Arc::default();
    let provider = terminating_provider(&victim).await;
    let (mut fleet, _worker) = Fleet::configured(&provider.url).await;
    victim.store(fleet.edge_pid(), Ordering::SeqCst);
    let state = fleet.login(NAME).await;
    let (status, body) = fleet.arrive(&state, CODE).await;
    assert!(fleet.edge_ended().await.success());
    ending("edge told to stop", status, body, &fleet, &provider).await.assert_connected();
}

#[tokio::test]
async fn workers_continue_after_a_bus_killed_during_an_exchange_is_back() {
    let victim = Arc::new(AtomicU32::new(0));
    let provider = Provider::start({
        let victim = Arc::clone(&victim);
        move |number, _| {
            if number == 0 {
                signal(victim.load(Ordering::SeqCst), "KILL");
            }
            Scripted::tokens(number)
        }
    })
    .await;
    let (mut fleet, _worker) = Fleet::configured(&provider.url).await;
    victim.store(fleet.nats.pid(), Ordering::SeqCst);
    let state = fleet.login(NAME).await;
    let arrived = fleet.arrive(&state, CODE);
    let ((status, body), ()) = tokio::join!(arrived, fleet.nats.restart_once_killed());
    let is_allowed = matches!(status.as_u16(), 200 | 502 | 503 | 504);
    assert!(is_allowed, "{status}: {body}");
    fleet.ready().await;
    fleet.idle().await;
    let codes: Vec<String> = provider.received().iter().map(|received| received.form()["code"].clone()).collect();
    assert_eq!(codes, [CODE]);
    let (stored, _) = fleet.stored(NAME).await;
    let (newest, _) = fleet.record(&Fleet::path(NAME)).await;
    assert_eq!(stored.and_then(|stored| stored["sequence"].as_u64()), newest);
    if status == StatusCode::OK {
        assert_eq!(body["sequence"].as_u64(), newest);
    }

    let state = fleet.login(NAME).await;
    let (status, body) = fleet.arrive(&state, "next-code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}
