//! Ten thousand connections that expire within one minute, three workers, a provider that takes 50 ms: how many are
//! refreshed before their expiry, how often, and how early. `cargo bench --bench minute`.

#![expect(dead_code, reason = "the bench uses only a part of the tests' modules")]
#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot continue panics with the reason")]
#![expect(clippy::indexing_slicing, reason = "figures for people")]

#[path = "../tests/support/fleet.rs"]
mod fleet;
#[path = "../tests/it/provider.rs"]
mod provider;
#[path = "../tests/support/seed.rs"]
mod seed;
#[path = "../tests/support/support.rs"]
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet::{Fleet, INTEGRATION, eventually};
use provider::{Provider, Scripted};
use seed::Seed;
use serde_json::json;
use support::tokenbus::ACCOUNT;
use tokenbus::internals::config::env;
use tokenbus::subject::ConnectionKey;

/// Number of connections, unless `MINUTE` sets another.
const CONNECTIONS: usize = 10_000;
/// Extra lifetime of all tokens, so that the first is due only after the last was made.
const LIFETIME: i64 = 240;

#[tokio::main]
async fn main() {
    let many = env("MINUTE").and_then(|text| text.parse().ok()).unwrap_or(CONNECTIONS);
    let refreshed: Arc<Mutex<HashMap<usize, Vec<Instant>>>> = Arc::default();
    let provider = Provider::start({
        let refreshed = Arc::clone(&refreshed);
        move |_, received| {
            let token = received.form().remove("refresh_token").expect("nothing but refreshes");
            let number = token.trim_start_matches('0').parse().unwrap_or(0);
            refreshed.lock().expect("no thread panics with the lock").entry(number).or_default().push(Instant::now());
            let body = json!({ "access_token": "new", "refresh_token": "next", "expires_in": 86_400 });
            Scripted::json(200, &body).after(Duration::from_millis(50))
        }
    })
    .await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    worker.kill().await;
    let expiries = seed(&fleet, &provider.url, many).await;
    let workers = [fleet.worker().await, fleet.worker().await, fleet.worker().await];
    wait_for_all(&fleet, &refreshed, many).await;
    report(&refreshed.lock().expect("no thread panics with the lock"), &expiries);
    drop(workers);
}

/// Makes the connections, with expiries spread over a minute. Returns the expiry of each.
async fn seed(fleet: &Fleet, provider_url: &str, many: usize) -> Vec<Instant> {
    let (mut seed, began) = (Seed::on(fleet, provider_url).await, Instant::now());
    let mut expiries = Vec::new();
    for number in 0..many {
        let spread = i64::try_from(number * 60 / many).expect("a minute");
        let lifetime = LIFETIME + spread - i64::try_from(began.elapsed().as_secs()).expect("not that long");
        let key = ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.{INTEGRATION}.c{number}")).expect("a key");
        expiries.push(Instant::now() + Duration::from_secs(lifetime.unsigned_abs()));
        seed.connection(&key, (lifetime, number)).await;
    }
    let took = began.elapsed().as_secs_f64();
    println!("made {many} connections in {took:.1} s; all expire within the same minute");
    expiries
}

/// Waits until all connections were refreshed and no work is left. A second refresh of a connection is then counted, too.
async fn wait_for_all(fleet: &Fleet, refreshed: &Mutex<HashMap<usize, Vec<Instant>>>, many: usize) {
    let deadline = Instant::now() + Duration::from_mins(10);
    while refreshed.lock().expect("no thread panics with the lock").len() < many {
        if Instant::now() > deadline {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // One message for each connection: its next refresh is set, and no due refresh is left.
    let (jetstream, schedules) = (fleet.jetstream("setup").await, u64::try_from(many).expect("not that many"));
    eventually("each connection has its next schedule", async || {
        let stream = jetstream.get_stream("OAUTH_SCHEDULE").await;
        stream.is_ok_and(|stream| stream.cached_info().state.messages == schedules)
    })
    .await;
    fleet.idle().await;
}

fn report(refreshed: &HashMap<usize, Vec<Instant>>, expiries: &[Instant]) {
    let once = refreshed.values().filter(|times| times.len() == 1).count();
    let mut before: Vec<f64> = Vec::new();
    let mut late = 0;
    for (number, expiry) in expiries.iter().enumerate() {
        match refreshed.get(&number).and_then(|times| times.first()) {
            Some(time) if time < expiry => before.push((*expiry - *time).as_secs_f64()),
            Some(_) | None => late += 1,
        }
    }
    before.sort_by(f64::total_cmp);
    let times = refreshed.values().flatten();
    let took = times.clone().max().zip(times.min()).map_or(0.0, |(last, first)| (*last - *first).as_secs_f64());
    println!("refreshed exactly once: {once} of {}; late or never: {late}", expiries.len());
    println!("token requests: {} within {took:.1} s", refreshed.values().map(Vec::len).sum::<usize>());
    if let (Some(least), Some(most)) = (before.first(), before.last()) {
        println!(
            "time left until the expiry: at least {least:.1} s, p50 {:.1} s, at most {most:.1} s",
            before[before.len() / 2]
        );
    }
    assert_eq!((once, late), (expiries.len(), 0), "each connection is refreshed once, before its expiry");
}
