//! Overload: callbacks, refreshes and reads at five times the rate that the program sustains, and what another tenant notices
//! of it. `cargo bench --bench overload`.
//!
//! For each kind of request: the rate of 64 clients that each wait for their answer is the sustainable one. A fifth of it is the
//! unloaded rate, at which latencies are measured before the overload and after it. Then one tenant alone sends the overload,
//! while another one sends a few requests.
//!
//! Generator, provider, program and server share the machine. The table has the generator's own delay, and a line says how many cores
//! each kept busy.
//!
//! `OVERLOAD_ONLY` limits the run to the kind of that name. `OVERLOAD_THIS` is another binary in place of this build.

#![expect(dead_code, reason = "the bench uses only a part of the tests' modules")]
#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot continue panics with the reason")]
#![expect(clippy::indexing_slicing, reason = "figures for people")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a bench are small"
)]

#[path = "parts/flood.rs"]
mod flood;
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

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flood::{Flooded, Generator, Source, quantile};
use futures_util::{StreamExt as _, stream};
use nkeys::KeyPair;
use program::{INTEGRATION, Program, Shape};
use support::tokenbus::PROGRAM;
use tokenbus::internals::config::env;

/// Tenants that send the load together.
const TENANTS: usize = 4;
/// Connections of each tenant.
const CONNECTIONS: usize = 1_000;
/// Clients of the closed loop, and logins that begin at once.
const CLIENTS: usize = 64;
const PARALLEL: usize = 16;
/// How long each load lasts.
const CLOSED: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(10);
const OVERLOAD: Duration = Duration::from_secs(15);
/// The overload in sustainable rates, and the parts of it that count as unloaded: of all tenants, and of one of two.
const TIMES: f64 = 5.0;
const LOW: f64 = 5.0;
const LOWER: f64 = 10.0;
/// The first part of an overload, which fills the queues for a burst. It has a line of its own.
const ONSET: Duration = Duration::from_secs(2);
/// The overload is over when the p99 of a part of this length is at most twice the unloaded one again.
const PART: Duration = Duration::from_millis(500);
/// Interval of looks at the program's memory.
const LOOK: Duration = Duration::from_millis(200);
/// Limits per client are lifted: the load stands for that of many. The others are those of a deployment.
const SETTINGS: &[(&str, &str)] = &[("HTTP__MAX_CONNECTIONS_PER_ADDRESS", "4096"), ("WORKER__CONCURRENCY", "128")];

/// Requests of tenants in turn.
enum Load {
    /// Of connections in turn, by the route of that name.
    Connections { route: &'static str, keys: Vec<String>, next: AtomicUsize },
    /// Callbacks of pending logins, each with its key. A refused one comes again later.
    Callbacks(Mutex<VecDeque<(String, String)>>),
}

impl Source for Load {
    fn next(&self) -> Option<(String, String)> {
        match self {
            Self::Connections { route, keys, next } => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let name = number / keys.len() * 7 % CONNECTIONS;
                Some((format!("/hub/integrations/{INTEGRATION}/{route}/c{name}"), keys[number % keys.len()].clone()))
            }
            Self::Callbacks(pending) => pending.lock().expect("no thread panics with the lock").pop_front(),
        }
    }

    fn refused(&self, path: String, key: String) {
        if let Self::Callbacks(pending) = self {
            pending.lock().expect("no thread panics with the lock").push_back((path, key));
        }
    }
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Callbacks,
    Refreshes,
    Reads,
}

struct Bench {
    program: Program,
    generator: Arc<Generator>,
    /// A second tenant's own connections.
    other: Arc<Generator>,
    keys: Vec<String>,
    /// Logins begun so far: the next connection's name.
    logins: AtomicUsize,
}

impl Bench {
    async fn start(build: &std::path::Path) -> Self {
        let program = Program::start(build, Shape { settings: SETTINGS, ..Shape::SYNCED }).await;
        let mut keys = Vec::new();
        for number in 0..TENANTS {
            let account = KeyPair::new_account().public_key();
            keys.push(program.key_of(&format!("{number:012x}"), &account).await);
        }
        let [generator, other] = [1, 2].map(|last| Generator::new(program.address(), [127, 0, 0, last].into()));
        let bench = Self { program, generator, other, keys, logins: AtomicUsize::new(0) };
        let callbacks = Load::Callbacks(Mutex::default());
        bench.begin(&callbacks, &bench.keys, |number| format!("c{number}"), CONNECTIONS * TENANTS).await;
        let callbacks = Arc::new(callbacks);
        while pending(&callbacks) > 0 {
            bench.generator.closed(CLIENTS, CLOSED, &callbacks).await;
        }
        bench
    }

    /// Begins logins of these tenants in turn.
    async fn begin(&self, load: &Load, keys: &[String], name: impl Fn(usize) -> String, many: usize) {
        let Load::Callbacks(pending) = load else { return };
        let logins = (0..many).map(|number| {
            let (key, name) = (keys[number % keys.len()].clone(), name(number / keys.len()));
            async move { (self.program.login(&key, &name).await, key) }
        });
        let begun: Vec<_> = stream::iter(logins).buffer_unordered(PARALLEL).collect().await;
        pending.lock().expect("no thread panics with the lock").extend(begun);
    }

    /// A load of these tenants, with so many pending logins if it is one of callbacks.
    async fn load(&self, kind: Kind, keys: &[String], logins: f64) -> Arc<Load> {
        let route = |route| Load::Connections { route, keys: keys.to_vec(), next: AtomicUsize::new(0) };
        let load = match kind {
            Kind::Callbacks => Load::Callbacks(Mutex::default()),
            Kind::Refreshes => route("oauth-refresh-token"),
            Kind::Reads => route("oauth-token"),
        };
        let first = self.logins.fetch_add(logins as usize, Ordering::Relaxed);
        self.begin(&load, keys, |number| format!("l{}", first + number), logins as usize).await;
        Arc::new(load)
    }

    async fn measure(&self, kind: Kind) {
        let load = self.load(kind, &self.keys, 8_000.0).await;
        let closed = self.generator.closed(CLIENTS, CLOSED, &load).await;
        let rate = closed.count(is_accepted) as f64 / CLOSED.as_secs_f64();
        println!("{kind:?}: {rate:.0} per second with {CLIENTS} clients");
        line("closed loop", &closed, CLOSED);
        let seconds = (QUIET + OVERLOAD + QUIET).as_secs_f64();
        let load = self.load(kind, &self.keys, rate * seconds).await;
        let quiet = self.generator.flood(rate / LOW, QUIET, &load).await;
        line("unloaded", &quiet, QUIET);
        let before = self.program.memory();
        let flood = self.cores(self.generator.flood(rate * TIMES, OVERLOAD, &load));
        let (flooded, peak) = self.watched(flood).await;
        overload("overload", flooded);
        let after = self.generator.flood(rate / LOW, QUIET, &load).await;
        line("after it", &after, QUIET);
        let bound = 2.0 * quiet.quantile(0.99, is_accepted);
        println!("  p99 is back after {:.1} s", recovered(&after, bound).as_secs_f64());
        println!("  memory: before {before:.0} MiB, peak {peak:.0} MiB, after {:.0} MiB", self.program.memory());
        self.two_tenants(kind, rate).await;
    }

    /// One tenant floods, and another one sends a few requests.
    async fn two_tenants(&self, kind: Kind, rate: f64) {
        let (flooding, calm) = (&self.keys[..1], &self.keys[1..2]);
        let flooding = self.load(kind, flooding, rate * OVERLOAD.as_secs_f64()).await;
        let calm = self.load(kind, calm, rate / LOWER * (QUIET + OVERLOAD).as_secs_f64()).await;
        let quiet = self.other.flood(rate / LOWER, QUIET, &calm).await;
        line("tenant B alone", &quiet, QUIET);
        let floods = async {
            tokio::join!(
                self.generator.flood(rate * TIMES, OVERLOAD, &flooding),
                self.other.flood(rate / LOWER, OVERLOAD, &calm)
            )
        };
        let (flooded, beside) = self.cores(floods).await;
        overload("tenant A floods", flooded);
        overload("tenant B meanwhile", beside);
    }

    /// Prints how many cores were busy meanwhile.
    async fn cores<T>(&self, load: impl Future<Output = T>) -> T {
        let (began, cpu, own) = (Instant::now(), self.program.cpu(), Program::own_cpu());
        let done = load.await;
        let seconds = began.elapsed().as_secs_f64();
        let [program, server] = cpu.cores(&self.program, seconds);
        let own = (Program::own_cpu() - own) / seconds;
        println!("  cores: program {program:.2}, server {server:.2}, generator and provider {own:.2}");
        done
    }

    /// Returns the most memory that the program had meanwhile, too.
    async fn watched(&self, flood: impl Future<Output = Flooded>) -> (Flooded, f64) {
        let (mut flood, mut peak) = (std::pin::pin!(flood), 0.0_f64);
        loop {
            peak = peak.max(self.program.memory());
            if let Ok(flooded) = tokio::time::timeout(LOOK, &mut flood).await {
                return (flooded, peak);
            }
        }
    }
}

fn is_accepted(status: u16) -> bool {
    status == 200
}

fn is_refused(status: u16) -> bool {
    status == 429 || status == 503
}

/// Returns the end of the last part whose p99 is above the bound.
fn recovered(after: &Flooded, bound: f64) -> Duration {
    let parts = (QUIET.as_millis() / PART.as_millis()) as u32;
    let is_slow = |part: &u32| {
        let (from, to) = (PART * *part, PART * (*part + 1));
        let answers = after.answers.iter().filter(|answer| (from..to).contains(&answer.at));
        quantile(answers.map(|answer| answer.took).collect(), 0.99) > bound
    };
    (0..parts).rfind(is_slow).map_or(Duration::ZERO, |part| PART * (part + 1))
}

fn line(name: &str, flooded: &Flooded, lasts: Duration) {
    let seconds = lasts.as_secs_f64();
    let sent = flooded.answers.len() as f64 / seconds;
    let accepted = flooded.count(is_accepted) as f64 / seconds;
    let counts = [429, 503, 504, 0].map(|code| flooded.count(|status| status == code));
    let other = flooded.answers.len() - flooded.count(is_accepted) - counts.iter().sum::<usize>();
    let [busy, refused, late, none] = counts;
    println!(
        "  {name}: {sent:.0}/s sent, {accepted:.0}/s accepted, 429: {busy}, 503: {refused}, 504: {late}, no answer: {none}, \
         other: {other}, not sent: {}",
        flooded.unsent
    );
    println!(
        "    accepted p50 {:.1} ms, p99 {:.1} ms; refused p50 {:.1} ms, p99 {:.1} ms; generator late p50 {:.1} ms, p99 {:.1} ms",
        flooded.quantile(0.5, is_accepted),
        flooded.quantile(0.99, is_accepted),
        flooded.quantile(0.5, is_refused),
        flooded.quantile(0.99, is_refused),
        flooded.late(0.5),
        flooded.late(0.99),
    );
}

/// Lines for the first part of an overload, and for the rest.
fn overload(name: &str, Flooded { mut answers, unsent }: Flooded) {
    let rest = answers.split_off(answers.partition_point(|answer| answer.at < ONSET));
    line(&format!("{name}, first two seconds"), &Flooded { answers, unsent: 0 }, ONSET);
    line(name, &Flooded { answers: rest, unsent }, OVERLOAD.saturating_sub(ONSET));
}

#[tokio::main]
async fn main() {
    let build = env("OVERLOAD_THIS").map_or(PathBuf::from(PROGRAM), PathBuf::from);
    let only = env("OVERLOAD_ONLY");
    for kind in [Kind::Callbacks, Kind::Refreshes, Kind::Reads] {
        if only.as_ref().is_none_or(|only| *only == format!("{kind:?}").to_lowercase()) {
            // A program of its own, so that no kind finds what another one has left.
            Bench::start(&build).await.measure(kind).await;
        }
    }
}

fn pending(load: &Load) -> usize {
    match load {
        Load::Callbacks(pending) => pending.lock().expect("no thread panics with the lock").len(),
        Load::Connections { .. } => 0,
    }
}
