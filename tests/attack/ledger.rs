//! The ledger: the well-behaved tenant's requests with their answers, and their latencies.

use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies below this one count as equal: on a busy machine the scheduler decides over them.
const NOISE: Duration = Duration::from_millis(25);

/// Disturbances during a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    Quiet,
    /// The server holds acks back, without an attack.
    Slow,
    /// The server holds acks back, and all attackers are active.
    Attack,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Slow => "slow",
            Self::Attack => "attack",
        }
    }
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Login,
    Callback,
    Refresh,
    Deletion,
    HttpRead,
    NodeRead,
    List,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Callback => "callback",
            Self::Refresh => "refresh",
            Self::Deletion => "deletion",
            Self::HttpRead => "read over HTTP",
            Self::NodeRead => "read by a node",
            Self::List => "list",
        }
    }
}

/// A connection as the tenant knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Number of the newest access token in an answer.
    pub(crate) token: usize,
    pub(crate) is_deleted: bool,
}

/// A window's latencies.
struct Window {
    load: Load,
    reads: Vec<Duration>,
    writes: Vec<Duration>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    /// By name.
    pub(crate) connections: BTreeMap<String, Known>,
    /// Statements about the tenant's requests that do not hold.
    pub(crate) faults: Vec<String>,
    answers: BTreeMap<(Kind, Load, String), usize>,
    windows: Vec<Window>,
}

/// Medians of the ratios of p99.
pub(crate) struct Ratios {
    /// Of reads under attack by quiet ones.
    pub(crate) reads: f64,
    /// Of writes under attack by those at a slow server, because a write waits for acks one after another.
    pub(crate) writes: f64,
}

impl Ledger {
    pub(crate) fn begin_window(&mut self, load: Load) {
        self.windows.push(Window { load, reads: Vec::new(), writes: Vec::new() });
    }

    pub(crate) fn note(&mut self, kind: Kind, answer: &str, latency: Duration) {
        let window = self.windows.last_mut().expect("a window began");
        *self.answers.entry((kind, window.load, answer.to_owned())).or_default() += 1;
        match kind {
            Kind::Login | Kind::Callback | Kind::Refresh | Kind::Deletion => window.writes.push(latency),
            Kind::HttpRead | Kind::NodeRead => window.reads.push(latency),
            // Ten connections an answer: too few of them for a p99 of their own, and slower than the reads of one.
            Kind::List => {}
        }
    }

    pub(crate) fn print(&self) {
        println!("\n{:<16}{:<8}{:<12}{:>8}", "tenant", "load", "answer", "number");
        for ((kind, load, answer), number) in &self.answers {
            println!("{:<16}{:<8}{answer:<12}{number:>8}", kind.name(), load.name());
        }
    }

    /// Prints the p99 of all windows, and compares them.
    pub(crate) fn compare(&self) -> Ratios {
        let [reads, writes]: [fn(&Window) -> &[Duration]; 2] = [|window| &window.reads, |window| &window.writes];
        println!("\n{:<16}{:<8}p99 of each window in ms", "tenant", "load");
        let [reads, writes] = [("reads", reads), ("writes", writes)].map(|(name, latencies)| {
            [Load::Quiet, Load::Slow, Load::Attack].map(|load| {
                let windows = self.windows.iter().filter(|window| window.load == load);
                let p99: Vec<Duration> = windows.map(|window| p99(latencies(window))).collect();
                let shown: Vec<u128> = p99.iter().map(Duration::as_millis).collect();
                println!("{name:<16}{:<8}{shown:?}", load.name());
                p99
            })
        });
        let [[quiet, _, attack], [_, slow, attack_writes]] = [&reads, &writes];
        Ratios { reads: median_ratio(attack, quiet), writes: median_ratio(attack_writes, slow) }
    }
}

fn p99(latencies: &[Duration]) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default().max(NOISE)
}

fn median_ratio(loaded: &[Duration], calm: &[Duration]) -> f64 {
    let ratios = loaded.iter().zip(calm).map(|(loaded, calm)| loaded.as_secs_f64() / calm.as_secs_f64());
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
