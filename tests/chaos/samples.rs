//! What processes and streams hold under constant load, sampled, and compared to find what grows.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::Context;
use futures_util::TryStreamExt as _;
use serde_json::Value;

/// Streams that grow with the requests by design: events until their maximum age, the marker of each revoked API key, and ids of
/// calls for a quarter of an hour. They are judged by the request.
const GROWING: [&str; 3] = ["OAUTH_EVENTS", "KV_oauth_api_keys", "KV_oauth_nonces"];

/// What a quantity measures, which says how much it may vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Resident memory of a worker or gateway.
    ProgramMib,
    /// Resident memory of nats-server, printed and not judged: for each stream it keeps a buffer of up to 8 MiB, which grows with
    /// the stream's newest file.
    ServerMib,
    /// Objects on the server's heap, right after a garbage collection. Some belong to stored messages.
    ServerObjects,
    Handles,
    Threads,
    Connections,
    /// Subscriptions and consumers: some requests have one for a while.
    Interest,
    Messages,
    Kib,
    /// Messages of a growing stream for each request, and bytes of such a message.
    Ratio,
}

impl Unit {
    /// The share and the amount by which the median of the last quarter may exceed that of the quarter before. In a run of
    /// twenty minutes a gateway has about 4,000 requests in a quarter, so one that loses 300 bytes at each request exceeds it.
    fn allowance(self) -> (f64, f64) {
        match self {
            Self::ProgramMib => (0.01, 0.5),
            Self::ServerMib => (f64::INFINITY, 0.0),
            Self::ServerObjects => (0.05, 2_000.0),
            Self::Handles => (0.0, 5.0),
            Self::Threads => (0.0, 3.0),
            Self::Connections => (0.0, 2.0),
            Self::Interest => (0.02, 10.0),
            Self::Messages => (0.02, 20.0),
            Self::Kib => (0.02, 32.0),
            Self::Ratio => (0.03, 0.05),
        }
    }
}

/// Samples of each quantity, by its name.
#[derive(Default)]
pub(crate) struct Samples {
    all: BTreeMap<String, (Unit, Vec<f64>)>,
}

impl Samples {
    pub(crate) fn add(&mut self, name: String, unit: Unit, value: f64) {
        self.all.entry(name).or_insert((unit, Vec::new())).1.push(value);
    }

    /// Samples a process.
    pub(crate) fn add_process(&mut self, name: &str, pid: u32) {
        let of_program = name != "nats-server";
        let count = |folder: &str| std::fs::read_dir(format!("/proc/{pid}/{folder}")).map_or(0, Iterator::count);
        let memory = if of_program { Unit::ProgramMib } else { Unit::ServerMib };
        self.add(format!("{name}: memory, MiB"), memory, resident(pid));
        self.add(format!("{name}: file handles"), Unit::Handles, float(count("fd")));
        self.add(format!("{name}: threads"), Unit::Threads, float(count("task")));
    }

    /// Samples the server, by its own account.
    pub(crate) async fn add_server(&mut self, system: &async_nats::Client) {
        let answer = system.request("$SYS.REQ.SERVER.PING.VARZ", "".into()).await.expect("the server answers");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        let number = |name: &str| answer["data"][name].as_f64().expect("a number");
        self.add("NATS connections".to_owned(), Unit::Connections, number("connections"));
        self.add("NATS connections since the start".to_owned(), Unit::Connections, number("total_connections"));
        self.add("NATS subscriptions".to_owned(), Unit::Interest, number("subscriptions"));
    }

    /// Samples the server's heap, by the profiles that it offers there.
    pub(crate) async fn add_heap(&mut self, profiles: &str) {
        let url = format!("{profiles}/debug/pprof/heap?gc=1&debug=1");
        let profile = reqwest::get(url).await.expect("the server answers").text().await.expect("a profile in text");
        let objects =
            profile.lines().find_map(|line| line.strip_prefix("# HeapObjects = ")).expect("it counts objects");
        let objects = objects.trim().parse().expect("a number");
        self.add("nats-server: objects on the heap".to_owned(), Unit::ServerObjects, objects);
    }

    /// Samples all streams, after so many requests.
    pub(crate) async fn add_streams(&mut self, jetstream: &Context, requests: usize) {
        let streams: Vec<_> = jetstream.streams().try_collect().await.expect("the server lists its streams");
        for stream in streams {
            let (name, state) = (stream.config.name, stream.state);
            let (messages, bytes) = (float(state.messages), float(state.bytes));
            self.add(format!("{name}: consumers"), Unit::Interest, float(state.consumer_count));
            if GROWING.contains(&name.as_str()) {
                self.add(format!("{name}: messages a request"), Unit::Ratio, messages / float(requests.max(1)));
                self.add(format!("{name}: KiB a message"), Unit::Ratio, bytes / messages.max(1.0) / 1_024.0);
            } else {
                self.add(format!("{name}: messages"), Unit::Messages, messages);
                self.add(format!("{name}: KiB"), Unit::Kib, bytes / 1_024.0);
            }
        }
    }

    /// Prints the newest samples: one line, and a header above the first.
    pub(crate) fn print_newest(&self, at: Duration, requests: usize) {
        let newest = self.all.iter().filter_map(|(name, (unit, values))| Some((name, *unit, *values.last()?)));
        let newest: Vec<_> = newest.collect();
        let sum = |unit: Unit, of: &str| {
            let own = newest.iter().filter(|(name, is, _)| *is == unit && name.contains(of));
            own.map(|(_, _, value)| value).sum::<f64>()
        };
        if self.all.values().all(|(_, values)| values.len() == 1) {
            println!(
                "     s requests  workers  gateways  server objects  handles threads  connections consumers  messages     KiB"
            );
            println!("                     MiB       MiB     MiB");
        }
        println!(
            "{:>6} {requests:>8} {:>8.1} {:>9.1} {:>7.1} {:>7} {:>8} {:>7} {:>12} {:>9} {:>9} {:>7.0}",
            at.as_secs(),
            sum(Unit::ProgramMib, "worker"),
            sum(Unit::ProgramMib, "edge"),
            sum(Unit::ServerMib, ""),
            sum(Unit::ServerObjects, ""),
            sum(Unit::Handles, ""),
            sum(Unit::Threads, ""),
            sum(Unit::Connections, "NATS connections") - sum(Unit::Connections, "since"),
            sum(Unit::Interest, ": consumers"),
            sum(Unit::Messages, ""),
            sum(Unit::Kib, ""),
        );
    }

    /// Compares the medians of the third and of the last quarter, prints them, and returns the names of what has grown.
    pub(crate) fn grown(&self) -> Vec<String> {
        println!("\n{:<44}{:>12}{:>12}{:>12}", "median", "quarter 3", "quarter 4", "at most");
        let mut grown = Vec::new();
        for (name, (unit, values)) in &self.all {
            let Growth { third, last, most } = Growth::of(*unit, values);
            let verdict = if last > most { " GROWS" } else { "" };
            println!("{name:<44}{third:>12.2}{last:>12.2}{most:>12.2}{verdict}");
            if last > most {
                grown.push(name.clone());
            }
        }
        grown
    }
}

struct Growth {
    third: f64,
    last: f64,
    /// Most that the last quarter may have.
    most: f64,
}

impl Growth {
    fn of(unit: Unit, values: &[f64]) -> Self {
        let quarter = values.len() / 4;
        let (before, last) = values.split_at(values.len() - quarter);
        let (third, last) = (median(&before[before.len() - quarter..]), median(last));
        let (share, amount) = unit.allowance();
        Self { third, last, most: third * (1.0 + share) + amount }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().expect("each quarter of a run has a sample")
}

/// Resident memory of a process in MiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux has this line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1_024.0
}

fn float(number: impl TryInto<u32>) -> f64 {
    number.try_into().map_or(f64::MAX, f64::from)
}

#[test]
fn what_grows_is_found_and_what_varies_is_not() {
    #[track_caller]
    fn check(unit: Unit, sample: impl Fn(f64) -> f64, grows: bool) {
        let mut samples = Samples::default();
        // Noise of one percent, in a period that no quarter has.
        for number in 0..120 {
            let noise = 1.0 + f64::from(number % 7 - 3) / 300.0;
            samples.add("it".to_owned(), unit, sample(f64::from(number)) * noise);
        }
        assert_eq!(!samples.grown().is_empty(), grows, "{unit:?}");
    }
    let (requests, mib) = (300.0, 1_048_576.0);
    check(Unit::ProgramMib, |_| 40.0, false);
    check(Unit::ProgramMib, |at| 40.0 + 2.0 * (1.0 - (-at / 20.0).exp()), false);
    check(Unit::ProgramMib, |at| 40.0 + at * requests * 150.0 / mib, true);
    check(Unit::ServerObjects, |at| 60_000.0 + f64::from(at % 5.0 > 3.0) * 5_000.0, false);
    check(Unit::ServerObjects, |at| 60_000.0 + at * requests, true);
    check(Unit::Handles, |at| 30.0 + at % 3.0, false);
    check(Unit::Handles, |at| 30.0 + at / 5.0, true);
    check(Unit::Threads, |at| 8.0 + at / 20.0, false);
    check(Unit::Threads, |at| 8.0 + at / 8.0, true);
    check(Unit::Messages, |at| 500.0 + at / 2.0, false);
    check(Unit::Messages, |at| 500.0 + 2.0 * at, true);
    check(Unit::Ratio, |_| 0.7, false);
    check(Unit::Ratio, |at| 0.7 * (1.0 + at / 200.0), true);
}
