//! Pages of an account with 100,000 connections among 200,000: the first list, for which the worker reads the names, pages at
//! the begin and in the middle, and a page after each of a series of writes; beside them the server's own search and count,
//! which a page took without the names. `cargo bench --bench lists`.
//!
//! The server does not sync its writes, so that filling the store is fast.

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

use std::time::Instant;

use fleet::{Fleet, INTEGRATION, Worker};
use futures_util::StreamExt as _;
use reqwest::StatusCode;
use seed::Seed;
use serde_json::{Value, json};
use support::nats::Nats;
use support::tokenbus::ACCOUNT;
use tokenbus::internals::config::env;
use tokenbus::subject::ConnectionKey;

/// Connections of the account, unless `LISTS` sets another number. Other accounts have as many together.
const MANY: usize = 100_000;
/// Other accounts.
const OTHERS: usize = 100;
const PAGES: usize = 200;
/// Longest median time of a page, in milliseconds.
const LIMIT: f64 = 30.0;
/// A month, in seconds: no refresh is due during the bench.
const LIFETIME: i64 = 30 * 86_400;
const PROVIDER: &str = "http://127.0.0.1:9";

#[tokio::main]
async fn main() {
    let many = env("LISTS").and_then(|text| text.parse().ok()).unwrap_or(MANY);
    let (fleet, worker) = Fleet::start_on(Nats::start_unsynced().await, PROVIDER).await.configure().await;
    let mut seed = Seed::on(&fleet, PROVIDER).await;
    let others: Vec<String> = (0..OTHERS).map(|_| nkeys::KeyPair::new_account().public_key()).collect();
    for number in 0..many {
        seed.connection(&key(&others[number % OTHERS], number), (LIFETIME, number)).await;
        seed.connection(&key(ACCOUNT, number), (LIFETIME, number)).await;
    }
    let before = memory(&worker);
    let (body, took) = page(&fleet, "").await;
    assert_eq!(body["results_total"], many);
    println!("first list of {many} connections: {took:.0} ms");
    println!("worker's memory: {before:.1} MiB before, {:.1} MiB after", memory(&worker));

    let mut server = Vec::new();
    let client = fleet.nats.connect("worker").await;
    for _ in 0..PAGES / 10 {
        server.push(search(&client).await);
    }
    let alone = median(&mut server);
    println!("the server's search for a page, and its count, alone: p50 {alone:.1} ms");

    let first = pages(&fleet, async || String::new()).await;
    let middle = middle(&fleet, many).await;
    let middle = pages(&fleet, async || middle.clone()).await;
    let mut number = many;
    let written = pages(&fleet, async || {
        number += 1;
        seed.connection(&key(ACCOUNT, number), (LIFETIME, number)).await;
        String::new()
    })
    .await;
    for (name, took) in [("first page", first), ("page in the middle", middle), ("first page after a write", written)] {
        println!("{name}: p50 {took:.1} ms, {:.2} of the server's time", took / alone);
        assert!(took <= LIMIT, "{name}: at most {LIMIT} ms");
    }
}

fn key(account: &str, number: usize) -> ConnectionKey {
    ConnectionKey::parse_kv_key(&format!("{account}.{INTEGRATION}.c{number}")).expect("a key")
}

/// Returns a page, and the milliseconds that it took.
async fn page(fleet: &Fleet, query: &str) -> (Value, f64) {
    let began = Instant::now();
    let (status, body) = fleet.get(&format!("oauth-connections?{query}")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    (body, began.elapsed().as_secs_f64() * 1e3)
}

/// Reads [`PAGES`] pages of 100. `prepare` runs before each and returns a part of its query. Returns the median.
async fn pages(fleet: &Fleet, mut prepare: impl AsyncFnMut() -> String) -> f64 {
    let mut took = Vec::new();
    for _ in 0..PAGES {
        let query = prepare().await;
        took.push(page(fleet, &format!("limit=100{query}")).await.1);
    }
    median(&mut took)
}

/// Returns a cursor in the middle of the list, as a part of a query.
async fn middle(fleet: &Fleet, many: usize) -> String {
    let (mut cursor, mut read) = (String::new(), 0);
    while read < many / 2 {
        let (body, _) = page(fleet, &format!("limit=1000&tokens=false{cursor}")).await;
        read += body["results"].as_array().map_or(0, Vec::len);
        cursor = format!("&cursor={}", body["next_cursor"].as_str().expect("there is more"));
    }
    cursor
}

/// Asks the server for a page in the way of a worker without the names. Returns the milliseconds.
async fn search(client: &async_nats::Client) -> f64 {
    let filter = format!("$KV.oauth_connections.{ACCOUNT}.*.*");
    let (inbox, began) = (client.new_inbox(), Instant::now());
    let mut answers = client.subscribe(inbox.clone()).await.expect("subscribed");
    for query in [
        json!({ "seq": 1, "multi_last": [filter], "batch": 100 }),
        json!({ "seq": 1, "next_by_subj": filter, "batch": 100 }),
    ] {
        let sent = client.publish_with_reply(
            "$JS.API.DIRECT.GET.KV_oauth_connections",
            inbox.clone(),
            query.to_string().into(),
        );
        sent.await.expect("sent");
        // An answer with a status is the last one.
        while answers.next().await.expect("an answer").status.is_none() {}
    }
    began.elapsed().as_secs_f64() * 1e3
}

fn median(took: &mut [f64]) -> f64 {
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// Memory of a process, in MiB.
fn memory(worker: &Worker) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux has this line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
