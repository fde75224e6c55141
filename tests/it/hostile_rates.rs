//! Floods of plain calls, and a provider that hangs: other callers are answered as before.

mod hung_provider;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::client::Request;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokenbus::subject::ConnectionKey;

use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::latency::{bound, compare};
use crate::provider::Provider;
use crate::seed::Seed;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;

/// Latencies below this one count as equal, so a loaded median of 10 ms is always good enough. A debug build takes about
/// twenty times as long for a call, and the flood takes all the CPU that it gets.
const NOISE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 25 } else { 5 });
/// Largest ratio of loaded and quiet medians.
const MOST: f64 = 2.0;
/// Calls a second of the flood, and calls that it sends at once.
const RATE: f64 = 20_000.0;
const BURST: u32 = 100;
/// Calls sent at once to find out how fast the worker reads them.
const PROBE: u32 = 5_000;
/// Connections of the account that lists: more than a page holds.
const LISTED: usize = 500;
/// Full pages that it asks for at once.
const PAGES: usize = 40;
/// A month, in seconds: no refresh is due during the test.
const LIFETIME: i64 = 30 * 86_400;

/// A worker, and two accounts with connections.
struct Neighbours {
    fleet: Fleet,
    /// May call for any account.
    caller: Client,
    _worker: Worker,
    _provider: Provider,
}

impl Neighbours {
    async fn start(connections: usize) -> Self {
        let provider = Provider::generous().await;
        let (fleet, worker) = Fleet::configured(&provider.url).await;
        let mut seed = Seed::on(&fleet, &provider.url).await;
        let calm = fleet.other_account.clone();
        for number in 0..connections {
            seed.connection(&key(ACCOUNT, number), (LIFETIME, number)).await;
        }
        seed.connection(&key(&calm, 0), (LIFETIME, 0)).await;
        let caller = fleet.nats.connect("admin").await;
        fleet.ready().await;
        let neighbours = Self { fleet, caller, _worker: worker, _provider: provider };
        eventually("the connections are stored", async || neighbours.read(&calm).await.is_some()).await;
        neighbours
    }

    /// Reads the token of an account's first connection. Returns nothing if the worker refuses.
    async fn read(&self, account: &str) -> Option<Value> {
        self.call(account, "token", &question()).await
    }

    async fn call(&self, account: &str, call: &str, question: &str) -> Option<Value> {
        let request = Request::new().payload(question.to_owned().into()).timeout(Some(Duration::from_secs(5)));
        let answer = self.caller.send_request(format!("ms.oauth.{account}.{call}"), request).await.ok()?;
        serde_json::from_slice(&answer.payload).ok()
    }

    /// A call of the account that is not hostile.
    async fn calm_call(&self) {
        let connection = self.read(&self.fleet.other_account).await.expect("the calm account is never refused");
        assert!(connection["access_token"].is_string(), "{connection}");
    }

    /// Returns the number of calls that the worker takes in each second, at most [`RATE`]. A debug build on a busy machine
    /// does not reach that, and what the worker has not read delays all callers alike.
    async fn rate(&self) -> f64 {
        let operator = self.fleet.nats.connect("operator").await;
        let mut wire = Wire::connect(&self.fleet.nats, "demo").await;
        let mut rates = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            wire.send_text(&token_calls(PROBE)).await;
            // The worker reads this question after the calls, and answers it before them.
            operator.request("$SRV.PING.tokenbus", "".into()).await.expect("the worker answers");
            rates.push(f64::from(PROBE) / began.elapsed().as_secs_f64());
            self.caught_up().await;
        }
        println!("{rates:.0?} calls read each second");
        rates.sort_unstable_by(f64::total_cmp);
        RATE.min(rates[2] / 2.0)
    }

    /// Calls without waiting for answers, then waits until the worker has caught up.
    async fn flood(&self, rate: f64, goes_on: &AtomicBool) {
        let mut wire = Wire::connect(&self.fleet.nats, "demo").await;
        let burst = token_calls(BURST);
        let mut pace = tokio::time::interval(Duration::from_secs_f64(f64::from(BURST) / rate));
        let (mut sent, began) = (0, Instant::now());
        while goes_on.load(Ordering::Relaxed) {
            pace.tick().await;
            wire.send_text(&burst).await;
            sent += BURST;
        }
        println!("{:.0} calls/s", f64::from(sent) / began.elapsed().as_secs_f64());
        self.caught_up().await;
    }

    async fn caught_up(&self) {
        eventually("the worker has caught up", async || self.read(ACCOUNT).await.is_some()).await;
    }

    /// Asks for full pages, many at once.
    async fn list(&self, goes_on: &AtomicBool) {
        while goes_on.load(Ordering::Relaxed) {
            let question = json!({ "limit": LISTED }).to_string();
            let pages = join_all((0..PAGES).map(|_| self.call(ACCOUNT, "list", &question))).await;
            let pages: Vec<Value> = pages.into_iter().flatten().collect();
            assert!(pages.iter().all(|page| page["next_cursor"].is_string()), "not all pages are full");
            println!("{} of {PAGES} pages", pages.len());
        }
    }
}

fn key(account: &str, number: usize) -> ConnectionKey {
    ConnectionKey::parse_kv_key(&format!("{account}.{INTEGRATION}.c{number}")).expect("a key")
}

/// Calls for whose answers nothing waits.
fn token_calls(many: u32) -> String {
    let question = question();
    let call = format!("PUB ms.oauth.{ACCOUNT}.token _INBOX.x {}\r\n{question}\r\n", question.len());
    (0..many).map(|_| call.as_str()).collect()
}

fn question() -> String {
    json!({ "integration_id": INTEGRATION, "connection_id": "c0" }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn h11_many_plain_calls_of_one_tenant_delay_no_call_of_another() {
    let neighbours = Neighbours::start(1).await;
    let rate = neighbours.rate().await;
    let flood = |goes_on| neighbours.flood(rate, goes_on);
    let compared = compare(NOISE, async || neighbours.calm_call().await, flood).await;
    assert!(compared.p50 <= bound(MOST), "{compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h11_many_full_pages_of_one_tenant_delay_no_call_of_another() {
    let neighbours = Neighbours::start(LISTED).await;
    let compared = compare(NOISE, async || neighbours.calm_call().await, |goes_on| neighbours.list(goes_on)).await;
    assert!(compared.p50 <= bound(MOST), "{compared:?}");
}
