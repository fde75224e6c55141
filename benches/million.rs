//! A million connections: a worker's start time and its memory, a repair pass included; the time of a read and of a page of
//! a list, compared with a thousand connections. `cargo bench --bench million`.
//!
//! The server does not sync its writes, so that filling the store is fast. Nothing that the bench measures writes.

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

use std::time::{Duration, Instant};

use fleet::{Fleet, INTEGRATION, Worker};
use reqwest::StatusCode;
use seed::Seed;
use serde_json::Value;
use support::nats::Nats;
use support::tokenbus::ACCOUNT;
use tokenbus::internals::config::env;
use tokenbus::subject::ConnectionKey;

/// Number of connections, unless `MILLION` sets another.
const MANY: usize = 1_000_000;
/// Connections in the first measurement. The account whose reads are measured also has this many among all others.
const FEW: usize = 1_000;
/// One connection in ten belongs to the large account.
const LARGE: usize = 10;
const READS: usize = 3_000;
/// A month, in seconds: no refresh is due during the bench.
const LIFETIME: i64 = 30 * 86_400;
/// Upper limits for a start, in seconds; for a worker's memory, in MiB; and for the ratio of a read's time to its time
/// with a thousand connections.
const LIMITS: (f64, u64, f64) = (2.0, 100, 1.3);
const PROVIDER: &str = "http://127.0.0.1:9";

#[tokio::main]
async fn main() {
    let many = env("MILLION").and_then(|text| text.parse().ok()).unwrap_or(MANY);
    let (fleet, mut worker) = Fleet::start_on(Nats::start_unsynced().await, PROVIDER).await.configure().await;
    let mut seed = Seed::on(&fleet, PROVIDER).await;
    for number in 0..FEW {
        seed.connection(&key(ACCOUNT, &format!("few{number}")), (LIFETIME, number)).await;
    }
    fleet.get(&format!("{INTEGRATION}/oauth-token/few{}", FEW - 1)).await;
    let few = reads(&fleet, "few", FEW).await;
    println!("{FEW} connections: read p50 {:.2} ms, p99 {:.2} ms", few.0, few.1);
    page(&fleet, "oauth-connections?limit=100", FEW).await;
    worker.kill().await;
    drop(worker);

    let spread = fill(&mut seed, &fleet, many).await;
    let (worker, took) = start(&fleet, many).await;
    let cold = reads(&fleet, "spread", spread).await;
    let warm = reads(&fleet, "spread", spread).await;
    println!("{many} connections: read p50 {:.2} ms, p99 {:.2} ms (first time)", cold.0, cold.1);
    println!("{many} connections: read p50 {:.2} ms, p99 {:.2} ms (again)", warm.0, warm.1);
    println!("ratio of the reads' p50: {:.2} first time, {:.2} again", cold.0 / few.0, warm.0 / few.0);
    page(&fleet, "oauth-connections?limit=100", FEW + spread).await;
    large_page(&fleet, many).await;
    let memory = peak(&worker);
    println!("worker's peak memory, reads and a repair pass included: {memory} MiB");
    let (seconds, mebibytes, ratio) = LIMITS;
    assert!(took < seconds, "a worker is ready in less than {seconds} s");
    assert!(memory < mebibytes, "a worker uses less than {mebibytes} MiB");
    assert!(cold.0.max(warm.0) <= few.0 * ratio, "a read takes at most {ratio} times as long");
}

fn key(account: &str, name: &str) -> ConnectionKey {
    ConnectionKey::parse_kv_key(&format!("{account}.{INTEGRATION}.{name}")).expect("a key")
}

/// Makes all other connections. Returns the number of those in the account whose reads are measured.
async fn fill(seed: &mut Seed, fleet: &Fleet, many: usize) -> usize {
    let began = Instant::now();
    let accounts: Vec<String> = (0..many / FEW).map(|_| nkeys::KeyPair::new_account().public_key()).collect();
    let mut spread = 0;
    for number in FEW..many {
        let name = format!("c{number}");
        if number.is_multiple_of(many / FEW) {
            seed.connection(&key(ACCOUNT, &format!("spread{spread}")), (LIFETIME, number)).await;
            spread += 1;
        } else if number.is_multiple_of(LARGE) {
            seed.connection(&key(&fleet.other_account, &name), (LIFETIME, number)).await;
        } else {
            seed.connection(&key(&accounts[number % accounts.len()], &name), (LIFETIME, number)).await;
        }
    }
    println!("filled in {:.0} s", began.elapsed().as_secs_f64());
    spread
}

/// Starts a worker that runs a repair pass at once. Returns it and its start time in seconds.
async fn start(fleet: &Fleet, many: usize) -> (Worker, f64) {
    let began = Instant::now();
    let worker = fleet.worker_with(&[("TOKENBUS_REFRESH__REPAIR_INTERVAL", "1s")]);
    while !worker.log().contains("ready for commands and calls") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed().as_secs_f64();
    println!("{many} connections: worker ready after {took:.2} s, peak memory {} MiB", peak(&worker));
    fleet.ready().await;
    (worker, took)
}

/// Reads one connection after the other, `READS` times; p50 and p99 in milliseconds.
async fn reads(fleet: &Fleet, name: &str, of: usize) -> (f64, f64) {
    let mut took = Vec::new();
    for number in 0..READS {
        let began = Instant::now();
        let path = format!("{INTEGRATION}/oauth-token/{name}{}", (number * 7) % of);
        let (status, body) = fleet.get(&path).await;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
    }
    took.sort_by(f64::total_cmp);
    (took[READS / 2], took[READS * 99 / 100])
}

async fn page(fleet: &Fleet, path: &str, total: usize) -> Option<String> {
    let (mut took, mut body) = (Vec::new(), Value::Null);
    for _ in 0..5 {
        let began = Instant::now();
        body = fleet.get(path).await.1;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let entries = body["results"].as_array().map_or(0, Vec::len);
    println!(
        "page of {entries} out of {} of the account: {:.1} ms, {:.1} ms at most",
        body["results_total"], took[2], took[4]
    );
    assert_eq!(body["results_total"].as_u64(), Some(total as u64));
    body["next_cursor"].as_str().map(str::to_owned)
}

/// Measures pages of the account that has a tenth of all connections.
async fn large_page(fleet: &Fleet, many: usize) {
    let mut cursor = String::new();
    for _ in 0..3 {
        let began = Instant::now();
        let path = format!("oauth-connections?limit=100{cursor}");
        let (_, body) = fleet.get_as(&fleet.admin_keys[1], &path).await;
        let (entries, total) = (body["results"].as_array().map_or(0, Vec::len), &body["results_total"]);
        println!("page of {entries} out of {total} of {many}: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
        cursor = format!("&cursor={}", body["next_cursor"].as_str().expect("there is more"));
    }
}

/// Peak memory of a process, in MiB.
fn peak(worker: &Worker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux has this line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}
