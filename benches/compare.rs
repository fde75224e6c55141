//! Compares two builds in pairs: `cargo bench --bench compare -- <other binary>`. Without another binary it measures this build
//! alone. Each round runs both builds one after the other, in changing order, each on a new server that syncs every write; the
//! ratio is the median of the rounds' ratios. The same rounds run the bare chains ([`chain`]) with this build's streams. Figures
//! with `events.sync = false` are this build's with that setting, beside the other build's without it.
//!
//! `COMPARE_ROUNDS` sets the rounds (4), `COMPARE_CALLBACKS` the callbacks of a round (1,500), `COMPARE_THIS` another binary in
//! place of this build. `COMPARE_WRITE` is a name under which docs/ gets the figures as JSON and a plot as SVG.

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
#[path = "parts/load.rs"]
mod load;
#[path = "parts/program.rs"]
mod program;
#[path = "../tests/it/provider.rs"]
mod provider;
#[path = "parts/report.rs"]
mod report;
#[path = "parts/server.rs"]
mod server;
#[path = "../tests/support/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chain::Kind;
use load::{closed, open};
use program::{Program, Shape};
use report::Row;
use support::tokenbus::PROGRAM;
use tokenbus::internals::config::env;

const ROUNDS: usize = 4;
const CALLBACKS: usize = 1_500;
const CLIENTS: usize = 64;
/// Requests of a single client.
const ALONE: usize = 200;
/// Callbacks per second of the open loop, and their number.
const RATE: u32 = 100;
const AT_RATE: usize = 500;
const READS: usize = 20_000;

/// Figures of one build in one round, by name.
type Figures = BTreeMap<&'static str, f64>;

#[tokio::main]
async fn main() {
    let other = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let number = |name: &str, default| env(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rounds, callbacks) = (number("COMPARE_ROUNDS", ROUNDS), number("COMPARE_CALLBACKS", CALLBACKS));
    let this = env("COMPARE_THIS").map_or(PathBuf::from(PROGRAM), PathBuf::from);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for is_ours in [round % 2 == 0, round % 2 != 0] {
            if is_ours {
                ours.push(measure(&this, callbacks, true).await);
            } else if let Some(other) = &other {
                theirs.push(measure(other, callbacks, false).await);
            }
        }
        println!("round {} of {rounds} done", round + 1);
    }
    let rows = rows(&ours, &theirs);
    print!("{}", report::table(&rows));
    if let Some(name) = env("COMPARE_WRITE") {
        report::write(&support::root().join("docs"), &name, &rows);
    }
}

async fn measure(build: &Path, callbacks: usize, is_ours: bool) -> Figures {
    let mut program = Program::start(build, Shape::SYNCED).await;
    let mut figures = Figures::new();
    figures.insert("memory of the idle program, MiB", program.memory());
    figures.insert("memory of an idle worker, MiB", program.memory_of_worker(build).await);
    let send = program.callbacks((0..callbacks).map(|number| format!("c{number}"))).await;
    let cpu = program.cpu();
    let many = closed(CLIENTS, callbacks, &send).await;
    figures.insert("callbacks, 64 clients, per second", many.per_second());
    figures.insert("callbacks, 64 clients, p99 ms", many.quantile(0.99));
    figures.insert("callbacks, CPU ms of program and server", cpu.milliseconds_each(&program, callbacks));
    figures.insert("callbacks, CPU ms of the server", cpu.servers_milliseconds_each(&program, callbacks));
    let send = program.callbacks((0..ALONE).map(|number| format!("alone{number}"))).await;
    figures.insert("callbacks, 1 client, p50 ms", closed(1, ALONE, &send).await.quantile(0.5));
    let send = program.callbacks((0..AT_RATE).map(|number| format!("rate{number}"))).await;
    let at_rate = open(RATE, AT_RATE, &send).await;
    figures.insert("callbacks, 100 per second, p50 ms", at_rate.quantile(0.5));
    figures.insert("callbacks, 100 per second, p99 ms", at_rate.quantile(0.99));
    let (send, cpu) = (program.refreshes(callbacks), program.cpu());
    let refreshes = closed(CLIENTS, callbacks, &send).await;
    figures.insert("refreshes, 64 clients, per second", refreshes.per_second());
    figures.insert("refreshes, CPU ms of program and server", cpu.milliseconds_each(&program, callbacks));
    figures.insert("refreshes, 1 client, p50 ms", closed(1, ALONE, &send).await.quantile(0.5));
    let (send, cpu) = (program.reads(callbacks), program.cpu());
    let reads = closed(CLIENTS, READS, &send).await;
    figures.insert("reads, HTTP, 64 clients, per second", reads.per_second());
    figures.insert("reads, HTTP, CPU ms of program and server", cpu.milliseconds_each(&program, READS));
    let (send, cpu) = (program.bus_reads(callbacks).await, program.cpu());
    let bus_reads = closed(CLIENTS, READS, &send).await;
    figures.insert("reads, bus, 64 clients, per second", bus_reads.per_second());
    figures.insert("reads, bus, CPU ms of program and server", cpu.milliseconds_each(&program, READS));
    let failed = many.failed + at_rate.failed + refreshes.failed + reads.failed + bus_reads.failed;
    figures.insert("requests that failed", failed as f64);
    let client = program.end().await;
    if is_ours {
        bare(&program, client, callbacks, &mut figures).await;
    }
    events_async(is_ours.then_some(build), callbacks, &mut figures).await;
    figures
}

/// The bare chains on the streams of the program that ran there.
async fn bare(program: &Program, client: async_nats::Client, callbacks: usize, figures: &mut Figures) {
    let (send, cpu) = (chain::chain(client.clone(), Kind::Callback, 0).await, program.cpu());
    let many = closed(CLIENTS, callbacks, &send).await.per_second();
    figures.insert("bare chain, callbacks, CPU ms of the server", cpu.servers_milliseconds_each(program, callbacks));
    figures.insert("bare chain, callbacks, 64 clients, per second", many);
    figures.insert("callbacks, share of the bare chain", figures["callbacks, 64 clients, per second"] / many);
    let send = chain::chain(client.clone(), Kind::Callback, callbacks).await;
    figures.insert("bare chain, callbacks, 1 client, p50 ms", closed(1, ALONE, &send).await.quantile(0.5));
    let send = chain::chain(client, Kind::Refresh, 0).await;
    let many = closed(CLIENTS, callbacks, &send).await.per_second();
    figures.insert("bare chain, refreshes, 64 clients, per second", many);
    figures.insert("refreshes, share of the bare chain", figures["refreshes, 64 clients, per second"] / many);
}

/// This build with `events.sync = false`. The other build's figures are those that it has.
async fn events_async(build: Option<&Path>, callbacks: usize, figures: &mut Figures) {
    let (logins, refreshes) = match build {
        Some(build) => {
            let program = Program::start(build, Shape::EVENTS_ASYNC).await;
            let send = program.callbacks((0..callbacks).map(|number| format!("c{number}"))).await;
            let many = closed(CLIENTS, callbacks, &send).await.per_second();
            (many, closed(CLIENTS, callbacks, &program.refreshes(callbacks)).await.per_second())
        }
        None => (figures["callbacks, 64 clients, per second"], figures["refreshes, 64 clients, per second"]),
    };
    figures.insert("callbacks, 64 clients, events.sync = false, per second", logins);
    figures.insert("refreshes, 64 clients, events.sync = false, per second", refreshes);
}

fn rows(ours: &[Figures], theirs: &[Figures]) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in ours.first().into_iter().flat_map(BTreeMap::keys) {
        let of = |rounds: &[Figures]| rounds.iter().filter_map(|it| it.get(name).copied()).collect::<Vec<_>>();
        let (this, other) = (of(ours), of(theirs));
        let ratio = median(this.iter().zip(&other).map(|(this, other)| this / other).collect());
        rows.push(Row { name, this: median(this).expect("there are rounds"), other: median(other), ratio });
    }
    rows
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], upper) } else { upper })
}
