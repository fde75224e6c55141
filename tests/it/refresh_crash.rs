//! Workers that die, or are paused for longer than the ack wait, at each step of a refresh: no reader ends up with an
//! older token, and a connection needs reauthorization only when the provider says so.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::bus::Bus;
use crate::fleet::{Fleet, Worker, eventually};
use crate::provider::{Provider, Received, Scripted};
use crate::support::child::signal;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;

pub(crate) const NAME: &str = "workspace1";

/// A strict provider: it accepts each refresh token once.
pub(crate) async fn strict_provider() -> Provider {
    let spent: Mutex<HashSet<String>> = Mutex::default();
    Provider::start(move |number, received| match received.form().remove("refresh_token") {
        Some(token) if !spent.lock().unwrap().insert(token.clone()) => {
            Scripted::json(400, &json!({ "error": "invalid_grant" }))
        }
        _ => Scripted::tokens(number),
    })
    .await
}

/// A provider that withholds its answers to refreshes until the gate opens.
pub(crate) async fn withholding_provider() -> (watch::Sender<bool>, Provider) {
    let (gate, opened) = watch::channel(false);
    let provider = Provider::start(move |number, received| {
        let answer = Scripted::tokens(number);
        if received.form().contains_key("refresh_token") { answer.once(&opened) } else { answer }
    })
    .await;
    (gate, provider)
}

pub(crate) fn refreshes(provider: &Provider) -> usize {
    provider.received().iter().filter(|received: &&Received| received.form().contains_key("refresh_token")).count()
}

/// A connection made by a worker that has ended, and its pushes.
pub(crate) async fn connected(provider: &Provider) -> (Fleet, Subscriber) {
    let (mut fleet, mut first) = Fleet::configured(&provider.url).await;
    let state = fleet.login(NAME).await;
    assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
    fleet.idle().await;
    first.kill().await;
    let tenant = fleet.nats.connect("demo").await;
    let pushes = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.*.*")).await.unwrap();
    Nats::flush(&tenant).await;
    // A refresh request returns a record younger than this. This one is older, and its successor, or
    // the failure to get one, is the answer to all later callers.
    fleet.settings.insert("TOKENBUS_REFRESH__MIN_INTERVAL".to_owned(), "10m".to_owned());
    Bus::of(&fleet.nats).await.age(NAME, fleet.setting("TOKENBUS_SECRETS__KEYS_FILE").as_ref()).await;
    (fleet, pushes)
}

/// Publishes the due message of the connection, as its schedule would at its time.
pub(crate) async fn due(fleet: &Fleet) {
    due_of(fleet, NAME).await;
}

async fn due_of(fleet: &Fleet, name: &str) {
    Bus::of(&fleet.nats).await.due(name).await;
}

/// Sequences that were pushed, in order; they may only grow.
fn pushed(pushes: &mut Subscriber) -> Vec<u64> {
    let mut sequences = Vec::new();
    while let Some(Some(message)) = pushes.next().now_or_never() {
        let sequence = message.headers.as_ref().and_then(|headers| headers.get("Nats-Sequence"));
        sequences.push(sequence.expect("a record has one").as_str().parse().unwrap());
    }
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    sequences
}

struct Ending {
    stored: Value,
    requests: usize,
    refreshed: usize,
    reauthorized: usize,
}

async fn ending(fleet: &Fleet, pushes: &mut Subscriber, provider: &Provider) -> Ending {
    fleet.idle().await;
    applied(fleet).await;
    let (stored, _) = fleet.stored(NAME).await;
    let stored = stored.expect("the connection is stored");
    let (newest, _) = fleet.record(&Fleet::path(NAME)).await;
    assert!(pushed(pushes).iter().max().copied() <= newest);
    let events = fleet.events().await;
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    let (refreshed, reauthorized) = (count("refreshed"), count("needs_reauthorization"));
    Ending { stored, requests: refreshes(provider), refreshed, reauthorized }
}

/// Waits until KV is as new as the record. A worker that lost its command applies the record without it.
pub(crate) async fn applied(fleet: &Fleet) {
    eventually("KV is as new as the record", async || {
        let stored = fleet.stored(NAME).await.0.and_then(|stored| stored["sequence"].as_u64());
        stored == fleet.record(&Fleet::path(NAME)).await.0
    })
    .await;
}

async fn dies_at(place: &'static str) -> Ending {
    let provider = strict_provider().await;
    let (fleet, mut pushes) = connected(&provider).await;
    let mut doomed = fleet.worker_dying_at(place).await;
    due(&fleet).await;
    assert!(!doomed.ended().await.success(), "{place}");
    let _second = fleet.worker().await;
    eventually("the provider has received the request", async || refreshes(&provider) > 0).await;
    ending(&fleet, &mut pushes, &provider).await
}

#[tokio::test]
async fn d2_a_worker_killed_outside_the_window_loses_no_token() {
    let places = [
        "refresh_1_permit_taken",
        "refresh_3_record_written",
        "apply_1_kv_written",
        "apply_2_answered",
        "apply_3_event_published",
        "apply_4_refresh_scheduled",
        "refresh_4_record_applied",
        "delivery_1_answered",
        "delivery_2_acked",
    ];
    for (place, ending) in places.iter().zip(join_all(places.map(dies_at)).await) {
        assert_eq!((ending.requests, ending.refreshed, ending.reauthorized), (1, 1, 0), "{place}");
        assert_eq!(ending.stored["status"], "active", "{place}");
    }
}

/// Until the wait is over, callers get the reason and the time to retry.
#[tokio::test]
async fn d4_a_worker_killed_inside_the_window_causes_one_retry_and_no_loop() {
    let provider = strict_provider().await;
    let (fleet, mut pushes) = connected(&provider).await;
    let mut doomed = fleet.worker_dying_at("refresh_2_token_sent").await;
    due(&fleet).await;
    assert!(!doomed.ended().await.success());
    let _second = fleet.worker().await;
    wait_until_held(&fleet).await;
    fleet.ready().await;
    let (status, body) = fleet.get(&format!("odd/oauth-refresh-token/{NAME}")).await;
    assert_eq!((status, &body["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("refresh_interrupted")), "{body}");
    // Due messages do not send it either, regardless of their number.
    let before = fleet.deliveries("refresh").await;
    due(&fleet).await;
    eventually("the due refresh is delivered", async || fleet.deliveries("refresh").await > before).await;
    fleet.idle().await;
    assert_eq!(refreshes(&provider), 1, "the first worker may still write its record");
    eventually("the message is sent again", async || refreshes(&provider) == 2).await;
    let ending = ending(&fleet, &mut pushes, &provider).await;
    assert_eq!((ending.requests, ending.refreshed, ending.reauthorized), (2, 0, 0));
    // A second look decides.
    assert_eq!(ending.stored["status"], "active");
    assert_eq!(ending.stored["refresh_failure"]["reason"], "invalid_grant");
}

/// Waits until the refresh of a dead or silent worker is held.
async fn wait_until_held(fleet: &Fleet) {
    let reason = async || fleet.stored(NAME).await.0.map(|stored| stored["refresh_failure"]["reason"].clone());
    eventually("the refresh is held", async || reason().await == Some(json!("refresh_interrupted"))).await;
    fleet.idle().await;
}

/// A proxy between one worker and the bus, which a test can cut.
struct Proxy {
    url: String,
    cut: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn to(bus: &str) -> Self {
        let bus = bus.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("nats://{}", listener.local_addr().expect("a listener has an address"));
        let (cut, is_cut) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((here, _)) = listener.accept().await {
                connections.spawn(forward(here, bus.clone(), is_cut.clone()));
            }
        });
        Self { url, cut, _tasks: tasks }
    }
}

async fn forward(mut here: TcpStream, bus: String, mut is_cut: watch::Receiver<bool>) {
    let Ok(mut there) = TcpStream::connect(&bus).await else { return };
    tokio::select! {
        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
        _ = copy_bidirectional(&mut here, &mut there) => {}
    }
}

/// The worker that is cut off holds the only valid token, and stores it when it is connected again.
#[tokio::test]
async fn d3_a_worker_cut_off_after_the_providers_answer_may_store_it_later() {
    let received = Arc::new(Mutex::new(None::<watch::Sender<bool>>));
    let spent: Mutex<HashSet<String>> = Mutex::default();
    let provider = Provider::start({
        let received = Arc::clone(&received);
        move |number, request| {
            let Some(token) = request.form().remove("refresh_token") else { return Scripted::tokens(number) };
            if let Some(cut) = received.lock().unwrap().as_ref() {
                cut.send_replace(true);
            }
            let is_new = spent.lock().unwrap().insert(token);
            if is_new { Scripted::tokens(number) } else { Scripted::json(400, &json!({ "error": "invalid_grant" })) }
        }
    })
    .await;
    let (fleet, mut pushes) = connected(&provider).await;
    let way = Proxy::to(&fleet.nats.url).await;
    let first = fleet.worker_with(&[("TOKENBUS_NATS__URL", &way.url)]);
    first.ready().await;
    *received.lock().unwrap() = Some(way.cut.clone());
    due(&fleet).await;
    eventually("the refresh token is sent", async || refreshes(&provider) == 1).await;
    let cut = Instant::now();
    let _second = fleet.worker().await;
    wait_until_held(&fleet).await;
    // Long, but the worker returns before its timeout.
    sleep_until(cut + Duration::from_secs(20)).await;
    received.lock().unwrap().take();
    way.cut.send_replace(false);
    let newer = async || fleet.events().await.iter().any(|event| event["event"] == "refreshed");
    eventually("the first worker writes its record", newer).await;
    let ending = ending(&fleet, &mut pushes, &provider).await;
    assert_eq!((ending.requests, ending.refreshed, ending.reauthorized), (1, 1, 0));
    assert_eq!(ending.stored["status"], "active");
    assert!(first.log().contains("record not confirmed"), "it was cut off: {}", first.log());
}

#[tokio::test]
async fn d2_after_a_worker_killed_during_the_token_request_the_next_one_asks_again() {
    let victim = Arc::new(AtomicU32::new(0));
    let provider = Provider::start({
        let victim = Arc::clone(&victim);
        move |number, received| {
            if received.form().contains_key("refresh_token") {
                let pid = victim.swap(0, Ordering::SeqCst);
                if pid > 0 {
                    signal(pid, "KILL");
                }
            }
            Scripted::tokens(number)
        }
    })
    .await;
    let (fleet, mut pushes) = connected(&provider).await;
    let mut first = fleet.worker().await;
    victim.store(first.pid(), Ordering::SeqCst);
    due(&fleet).await;
    first.ended().await;
    let _second = fleet.worker().await;
    eventually("the message is sent again", async || refreshes(&provider) == 2).await;
    let ending = ending(&fleet, &mut pushes, &provider).await;
    // A provider that accepts a refresh token twice tolerates the retry.
    assert_eq!((ending.requests, ending.refreshed, ending.stored["status"].as_str()), (2, 1, Some("active")));
}

/// Pauses a worker at that failpoint until another one has finished its refresh, then continues it. The bus is away from the paused
/// worker for that time after its pause.
async fn stops_at(place: &'static str, away: Duration) -> Ending {
    let provider = strict_provider().await;
    let (fleet, mut pushes) = connected(&provider).await;
    let way = Proxy::to(&fleet.nats.url).await;
    let stopped = fleet.worker_with(&[("FAIL_STOP_AT", place), ("TOKENBUS_NATS__URL", &way.url)]);
    stopped.ready().await;
    fleet.ready().await;
    due(&fleet).await;
    stopped.stopped().await;
    let second: Worker = fleet.worker().await;
    fleet.idle().await;
    let is_over = async || {
        let events = fleet.events().await;
        let is_refused = |event: &Value| event["reason"] == "invalid_grant";
        events.iter().any(|event| event["event"] == "refreshed" || is_refused(event))
    };
    eventually("another worker has ended the command", is_over).await;
    fleet.idle().await;
    way.cut.send_replace(!away.is_zero());
    stopped.signal("CONT");
    tokio::time::sleep(away).await;
    way.cut.send_replace(false);
    let went_on =
        |log: &str| ["done", "another worker has the command", "ack not confirmed"].iter().any(|end| log.contains(end));
    eventually("the first worker continues", async || went_on(&stopped.log())).await;
    drop(second);
    ending(&fleet, &mut pushes, &provider).await
}

#[tokio::test]
async fn d3_a_paused_worker_restores_no_older_token() {
    let places = [
        "refresh_1_permit_taken",
        "refresh_3_record_written",
        "apply_1_kv_written",
        "apply_2_answered",
        "apply_3_event_published",
        "delivery_1_answered",
    ];
    for (place, ending) in places.iter().zip(join_all(places.map(|place| stops_at(place, Duration::ZERO))).await) {
        assert_eq!((ending.requests, ending.refreshed, ending.reauthorized), (1, 1, 0), "{place}");
        assert_eq!(ending.stored["status"], "active", "{place}");
    }
}

#[tokio::test]
async fn d3_a_worker_paused_inside_the_window_overwrites_nothing() {
    // The pause is longer than the time that a worker has for its record after its lease. With the bus away, its first try fails too.
    let away = [Duration::ZERO, Duration::from_secs(4)];
    for ending in join_all(away.map(|away| stops_at("refresh_2_token_sent", away))).await {
        // The provider refuses the second request. The first worker still has the new tokens: nothing is newer than they are.
        assert_eq!((ending.requests, ending.refreshed, ending.reauthorized), (2, 1, 0));
        assert_eq!(ending.stored["status"], "active");
    }
}

#[tokio::test]
async fn d1_fifty_refreshes_over_three_workers_are_one_token_request() {
    let provider = Provider::start(|number, _| Scripted::tokens(number).after(Duration::from_millis(300))).await;
    let (fleet, _pushes) = connected(&provider).await;
    let _workers = [fleet.worker().await, fleet.worker().await, fleet.worker().await];
    fleet.ready().await;
    let path = format!("odd/oauth-refresh-token/{NAME}");
    let answers = join_all((0..50).map(|_| fleet.get(&path))).await;
    for (status, body) in &answers {
        assert_eq!((*status, &body["sequence"]), (StatusCode::OK, &answers[0].1["sequence"]), "{body}");
    }
    println!("50 refreshes over three workers: {} token request", refreshes(&provider));
    assert_eq!(refreshes(&provider), 1);
}

#[tokio::test]
async fn d9_refreshes_due_while_no_worker_ran_are_done_in_the_order_of_their_due_time() {
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    let names = ["e", "b", "d", "a", "c"];
    for name in names {
        let state = fleet.login(name).await;
        assert_eq!(fleet.arrive(&state, name).await.0, StatusCode::OK);
    }
    fleet.idle().await;
    first.kill().await;
    let jetstream = fleet.jetstream("worker").await;
    let stream = async || jetstream.get_stream("OAUTH_SCHEDULE").await.unwrap().cached_info().state.clone();
    let last = stream().await.last_sequence;
    let sorted = ["a", "b", "c", "d", "e"];
    for (number, name) in (1..).zip(sorted) {
        due_of(&fleet, name).await;
        // Each schedule fires before the next is set.
        eventually("the refresh becomes due", async || stream().await.last_sequence == last + 2 * number).await;
    }
    let _worker = fleet.worker_with(&[("TOKENBUS_WORKER__CONCURRENCY", "1")]);
    eventually("all are refreshed", async || refreshes(&provider) == sorted.len()).await;
    let refreshed = provider.received().into_iter().filter_map(|received| received.form().remove("refresh_token"));
    let order: Vec<String> = refreshed.collect();
    let expected = sorted.map(|name| names.iter().position(|it| *it == name).map(|number| format!("rt-{number}")));
    assert_eq!(order, expected.map(Option::unwrap));
}
