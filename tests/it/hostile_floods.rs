//! Floods of calls: other callers are answered as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::client::Request;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::command::Credential;
use tokenbus::internals::gateway::{Backend, BackendError, Call, RequestContext};
use tokio::task::JoinSet;

use crate::fleet::{Fleet, INTEGRATION, Worker};
use crate::latency::{NOISE, bound, compare};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;

/// Largest ratio of loaded and quiet latencies.
const MOST: f64 = 2.0;
/// A block of headers whose value holds a lone carriage return: async-nats 0.51 panics at it.
const LONE_CR: &str = "NATS/1.0\r\nx: a\rb\r\n\r\n";

/// A worker, and the connection `one` of the account that is not hostile.
struct Calm {
    fleet: Fleet,
    /// May call for any account.
    caller: Client,
    _worker: Worker,
    _provider: Provider,
}

impl Calm {
    async fn start() -> Self {
        let provider = Provider::generous().await;
        let (fleet, worker) = Fleet::configured(&provider.url).await;
        let login = fleet.get_as(&fleet.admin_keys[1], &format!("{INTEGRATION}/oauth-login/one")).await;
        let state = crate::fleet::state_of(&login.1);
        let callback = format!("oauth-callback?code=code&state={state}");
        assert_eq!(fleet.get_as(&fleet.admin_keys[1], &callback).await.0, 200);
        let caller = fleet.nats.connect("admin").await;
        fleet.ready().await;
        Self { fleet, caller, _worker: worker, _provider: provider }
    }

    /// A call of the calm account's node.
    async fn node_call(&self) {
        let question = json!({ "integration_id": INTEGRATION, "connection_id": "one" }).to_string();
        let subject = format!("ms.oauth.{}.token", self.fleet.other_account);
        let request = Request::new().payload(question.into()).timeout(Some(Duration::from_secs(5)));
        let answer = self.caller.send_request(subject, request).await.expect("a worker answers");
        let body: Value = serde_json::from_slice(&answer.payload).expect("a connection");
        assert!(body["access_token"].is_string(), "{body}");
    }

    /// A call of the calm account over HTTP.
    async fn http_call(&self) {
        let path = format!("{INTEGRATION}/oauth-token/one");
        let (status, body) = self.fleet.get_as(&self.fleet.admin_keys[1], &path).await;
        assert_eq!(status, 200, "{body}");
    }
}

/// Sends a thousand messages a second with headers that async-nats cannot read.
async fn malformed(fleet: &Fleet, user: &str, subject: &str, goes_on: &AtomicBool) {
    let mut wire = Wire::connect(&fleet.nats, user).await;
    let (head, all) = (LONE_CR.len(), LONE_CR.len() + 2);
    let message = format!("HPUB {subject} _INBOX.x {head} {all}\r\n{LONE_CR}{{}}\r\n");
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while goes_on.load(Ordering::Relaxed) {
        pace.tick().await;
        wire.send_text(&message.repeat(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_malformed_headers_of_one_tenant_delay_no_call_of_another() {
    let calm = Calm::start().await;
    let subject = format!("ms.oauth.{ACCOUNT}.token");
    let compared =
        compare(NOISE, async || calm.node_call().await, |goes_on| malformed(&calm.fleet, "demo", &subject, goes_on))
            .await;
    assert!(compared.p99 <= bound(MOST), "{compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_malformed_headers_of_one_gateway_delay_no_call_of_another() {
    let calm = Calm::start().await;
    let compared = compare(
        NOISE,
        async || calm.http_call().await,
        |goes_on| malformed(&calm.fleet, "edge", "oauth.edge.token", goes_on),
    )
    .await;
    assert!(compared.p99 <= bound(MOST), "{compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h10_a_stopped_worker_fails_no_read() {
    let calm = Calm::start().await;
    let stopped = calm.fleet.worker().await;
    let _third = calm.fleet.worker().await;
    calm.http_call().await;
    stopped.signal("STOP");
    stopped.stopped().await;
    for _ in 0..12 {
        let began = Instant::now();
        calm.http_call().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    // The server has dropped the stopped worker by then.
    tokio::time::sleep(Duration::from_secs(30)).await;
    for _ in 0..12 {
        let began = Instant::now();
        calm.http_call().await;
        assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    }
    stopped.signal("CONT");
}

/// One read of the calm account's token by a gateway.
async fn read(gateway: &Backend, key: &str) -> Result<(), BackendError> {
    let credential = Some(Credential::new(Secret::new(format!("X-Api-Key {key}"))));
    let context = RequestContext { credential, ..RequestContext::default() };
    let question = json!({ "integration_id": INTEGRATION, "connection_id": "one" });
    gateway.call(Call::Token, &context, &question).await.map(drop)
}

/// Reads for three seconds, from 16 clients that wait for each answer. Returns the reads a second.
async fn sustained(gateway: &Backend, key: &str) -> u32 {
    let end = Instant::now() + Duration::from_secs(3);
    let client = async || {
        let mut answers = 0;
        while Instant::now() < end {
            read(gateway, key).await.expect("a token");
            answers += 1;
        }
        answers
    };
    join_all((0..16).map(|_| client())).await.into_iter().sum::<u32>() / 3
}

#[tokio::test(flavor = "multi_thread")]
async fn h10_an_overload_leads_to_few_second_tries() {
    const OVERLOAD: u32 = 5;
    const SECONDS: u32 = 8;
    const TICK: Duration = Duration::from_millis(20);
    const TICKS: u32 = 50;
    let calm = Calm::start().await;
    let gateway = calm.fleet.own_edge().await;
    let key = calm.fleet.admin_keys[1].clone();
    let rate = sustained(&gateway.bus, &key).await;

    let bus = calm.fleet.nats.connect("worker").await;
    let mut again = bus.subscribe("oauth.again.*").await.expect("a subscription");
    bus.flush().await.expect("the server answers");
    let mut pace = tokio::time::interval(TICK);
    let mut calls = JoinSet::new();
    for _ in 0..SECONDS * TICKS {
        pace.tick().await;
        for _ in 0..rate * OVERLOAD / TICKS {
            let (gateway, key) = (Arc::clone(&gateway.bus), key.clone());
            calls.spawn(async move { read(&gateway, &key).await.is_ok() });
        }
    }
    let all = calls.len();
    let answered = calls.join_all().await.into_iter().filter(|is_token| *is_token).count();
    let mut second_tries = 0;
    while tokio::time::timeout(Duration::from_secs(1), again.next()).await.is_ok() {
        second_tries += 1;
    }
    println!("at {OVERLOAD} times {rate} reads a second: {second_tries} second tries of {all}, {answered} answered");
    assert!(second_tries * 20 < all, "{second_tries} second tries of {all} calls");
}
