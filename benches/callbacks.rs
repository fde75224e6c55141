//! Callbacks per second of one edge and one worker, and the latency that they add to the provider's. For comparison, the
//! same run measures JetStream's writes per second on this machine. `cargo bench --bench callbacks`.

#![expect(dead_code, reason = "the bench uses only a part of the tests' modules")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot continue panics with the reason"
)]

#[path = "../tests/it/provider.rs"]
mod provider;
#[path = "../tests/support/support.rs"]
mod support;
#[path = "../tests/it/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use provider::Provider;
use reqwest::StatusCode;
use support::nats::Nats;
use tokio::task::JoinSet;
use url::Url;
use world::World;

const CLIENTS: u32 = 16;
const CALLBACKS: u32 = 2_000;
const WRITES: u32 = 20_000;

#[tokio::main]
async fn main() {
    let unlimited =
        [("HTTP__ADDRESS_RATE", "0"), ("HTTP__CREDENTIAL_RATE", "0"), ("OAUTH__MAX_PENDING_LOGINS", "10000")];
    let world = World::with_settings(Provider::generous().await, &unlimited).await;
    let mut callbacks = Vec::new();
    for number in 0..CALLBACKS {
        let login = world.login(&format!("bench{number}")).await;
        callbacks.push(world.callback(&[("code", "code"), ("state", &login.state)]));
    }
    let (elapsed, mut latencies) = send_all(callbacks).await;
    latencies.sort_unstable();
    let quantile = |hundredth: usize| {
        let latency = latencies.get((latencies.len() - 1) * hundredth / 100).expect("there are callbacks");
        latency.as_secs_f64() * 1e3
    };
    let callbacks = f64::from(CALLBACKS) / elapsed.as_secs_f64();
    let writes = write_alone(&world.tokenbus.nats).await;
    println!("callbacks, {CLIENTS} clients: {callbacks:.0} per second");
    println!("added latency: p50 {:.1} ms, p99 {:.1} ms (the provider answers at once)", quantile(50), quantile(99));
    println!("JetStream alone, {CLIENTS} clients: {writes:.0} writes per second (512 bytes, synced)");
    println!("ratio: one callback costs as much as {:.1} writes", writes / callbacks);
}

/// Sends all callbacks, one at a time in each client. Returns the whole time and each latency.
async fn send_all(callbacks: Vec<Url>) -> (Duration, Vec<Duration>) {
    let (callbacks, next) = (Arc::new(callbacks), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CLIENTS {
        let (callbacks, next) = (Arc::clone(&callbacks), Arc::clone(&next));
        clients.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
            let mut latencies = Vec::new();
            while let Some(callback) = callbacks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                let answer = http.get(callback.clone()).send().await.expect("tokenbus answers");
                assert_eq!(answer.status(), StatusCode::OK);
                latencies.push(sent.elapsed());
            }
            latencies
        });
    }
    let latencies = clients.join_all().await.concat();
    (began.elapsed(), latencies)
}

/// Writes per second into a stream. Each client waits for one ack before its next write, as the worker does.
async fn write_alone(nats: &Nats) -> f64 {
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for client in 0..CLIENTS {
        let connection = nats.connect("worker").await;
        clients.spawn(async move {
            let jetstream = async_nats::jetstream::new(connection);
            for _ in 0..WRITES / CLIENTS {
                let subject = format!("oauth.dead.bench.a.b.{client}");
                jetstream.publish(subject, vec![0; 512].into()).await.expect("sent").await.expect("stored");
            }
        });
    }
    clients.join_all().await;
    f64::from(WRITES) / began.elapsed().as_secs_f64()
}
