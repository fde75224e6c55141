//! Latencies at constant rates: callbacks, refreshes, reads over HTTP and on the bus, and pushes from the provider's answer to
//! a subscriber. On one server that syncs every write, on one with `events.sync = false`, on one with the server's default
//! `sync_interval`, and on three nodes that sync every write. Beside them the bare chains ([`chain`]) at the same rates.
//! `cargo bench --bench latency`.
//!
//! A latency counts from the time at which its request should have left ([`load::open`]). The client's timer has a resolution of
//! a millisecond, which is part of each latency, but of no push's.
//!
//! `LATENCY_ONLY` limits the run to the shape with that name. `LATENCY_READS` sets the reads (100,000). `LATENCY_THIS` is
//! another binary in place of this build. `LATENCY_WRITE` is a name under which docs/ gets the figures as JSON and a plot as SVG.

#![expect(dead_code, reason = "the bench uses only a part of the tests' modules")]
#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot continue panics with the reason")]
#![expect(clippy::indexing_slicing, reason = "figures for people")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a bench are small"
)]

#[path = "parts/chain.rs"]
mod chain;
#[path = "parts/latencies.rs"]
mod latencies;
#[path = "parts/load.rs"]
mod load;
#[path = "parts/program.rs"]
mod program;
#[path = "../tests/it/provider.rs"]
mod provider;
#[path = "parts/server.rs"]
mod server;
#[path = "../tests/support/support.rs"]
mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chain::Kind;
use futures_util::StreamExt as _;
use latencies::Line;
use load::{Measured, closed, open};
use program::{INTEGRATION, Program, Shape};
use serde_json::Value;
use support::tokenbus::{ACCOUNT, PROGRAM};
use tokenbus::internals::config::env;

/// Connections that are refreshed and read.
const CONNECTIONS: usize = 1_000;
/// Clients that make them.
const CLIENTS: usize = 64;
/// Rates per second, each with its number of requests.
const CALLBACKS: (u32, usize) = (100, 1_000);
const REFRESHES: (u32, usize) = (200, 2_000);
const READ_RATE: u32 = 2_000;
const READS: usize = 100_000;
/// Longest time after the last refresh until its push arrives.
const LAST_PUSH: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let shapes = [
        ("one server", Shape::SYNCED),
        ("events.sync = false", Shape::EVENTS_ASYNC),
        ("default sync_interval", Shape { sync_interval: "2m", ..Shape::SYNCED }),
        ("three nodes", Shape { nodes: 3, ..Shape::SYNCED }),
    ];
    let only = env("LATENCY_ONLY");
    let reads = env("LATENCY_READS").and_then(|text| text.parse().ok()).unwrap_or(READS);
    let build = env("LATENCY_THIS").map_or(PathBuf::from(PROGRAM), PathBuf::from);
    let mut lines = Vec::new();
    for (name, shape) in shapes {
        if only.as_ref().is_none_or(|only| only == name) {
            let mut program = Program::start(&build, shape).await;
            lines.extend(measure(&program, reads).await.map(|(load, times)| Line { shape: name, load, times }));
            let bus = program.end().await;
            lines.extend(bare(bus).await.map(|(load, times)| Line { shape: name, load, times }));
            println!("{name}: done");
        }
    }
    print!("{}", latencies::table(&lines));
    if let Some(name) = env("LATENCY_WRITE") {
        latencies::write(&support::root().join("docs"), &name, &lines);
    }
}

async fn measure(program: &Program, reads: usize) -> [(&'static str, Measured); 5] {
    let made = program.callbacks((0..CONNECTIONS).map(|number| format!("c{number}"))).await;
    assert_eq!(closed(CLIENTS, CONNECTIONS, &made).await.failed, 0, "all logins succeed");
    let send = program.callbacks((0..CALLBACKS.1).map(|number| format!("rate{number}"))).await;
    let callbacks = open(CALLBACKS.0, CALLBACKS.1, &send).await;
    let (refreshes, pushes) = refreshes(program).await;
    let over_http = open(READ_RATE, reads, &program.reads(CONNECTIONS)).await;
    let on_the_bus = open(READ_RATE, reads, &program.bus_reads(CONNECTIONS).await).await;
    [
        ("callbacks, 100/s", callbacks),
        ("refreshes, 200/s", refreshes),
        ("pushes, 200/s", pushes),
        ("reads over HTTP, 2,000/s", over_http),
        ("reads on the bus, 2,000/s", on_the_bus),
    ]
}

/// The bare chains at the same rates, on the streams of the program that ran there.
async fn bare(bus: async_nats::Client) -> [(&'static str, Measured); 2] {
    let callbacks = chain::chain(bus.clone(), Kind::Callback, 0).await;
    let callbacks = open(CALLBACKS.0, CALLBACKS.1, &callbacks).await;
    let refreshes = chain::chain(bus, Kind::Refresh, 0).await;
    let refreshes = open(REFRESHES.0, REFRESHES.1, &refreshes).await;
    [("bare chain of callbacks, 100/s", callbacks), ("bare chain of refreshes, 200/s", refreshes)]
}

/// Latencies of refreshes, and of their pushes from the provider's answer to the subscriber.
async fn refreshes(program: &Program) -> (Measured, Measured) {
    let client = program.client().await;
    let pushes = client.subscribe(format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.*")).await;
    let mut pushes = pushes.expect("subscribed");
    client.flush().await.expect("the server has the subscription");
    #[expect(clippy::disallowed_methods, reason = "the bench waits for the task")]
    let reading = tokio::spawn(async move {
        let mut received = Vec::new();
        while let Ok(Some(push)) = tokio::time::timeout(LAST_PUSH, pushes.next()).await {
            received.push((push.payload, Instant::now()));
        }
        received
    });
    let (rate, requests) = REFRESHES;
    let refreshes = open(rate, requests, &program.refreshes(CONNECTIONS)).await;
    let began = Instant::now();
    let received = reading.await.expect("the reader does not panic");
    let times: Vec<_> = received
        .into_iter()
        .map(|(push, at)| {
            let push: Value = serde_json::from_slice(&push).expect("a push is JSON");
            let answered = program.answered(push["access_token"].as_str().expect("a push has a token"));
            Some(at.duration_since(answered.expect("the provider issued this token")))
        })
        .chain(std::iter::repeat(None))
        .take(requests)
        .collect();
    (refreshes, Measured::of(began.elapsed(), &times))
}
