//! The seeded schedule of faults. A seed makes the same schedule each time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::links::Cut;
use crate::provider_log::Behaviour;

/// Time without faults at the begin.
const CALM: Duration = Duration::from_secs(3);
/// Milliseconds from one fault to the next.
const PAUSE: Range<u64> = 1_500..4_500;
/// Milliseconds for which a killed process is away.
const AWAY: Range<u64> = 300..4_000;
/// Milliseconds for which a process is stopped: longer than the ack wait of 5 s.
const STOPPED: Range<u64> = 6_000..12_000;
/// Milliseconds of a provider's behaviour, of a cut, and of a full stream.
const SPELL: Range<u64> = 3_000..9_000;
/// Milliseconds from a new key to its use, and of a wrong clock: workers read the keyring, and look at the clock, every 5 s.
const NOTICED: Range<u64> = 6_000..12_000;
/// Streams whose leader is killed.
const LED: [&str; 3] = ["OAUTH", "OAUTH_COMMANDS", "KV_oauth_connections"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillWorker(usize),
    StopWorker(usize),
    KillGateway(usize),
    KillServer(usize),
    StopServer(usize),
    KillLeader(&'static str),
    /// The routes of that server to the others.
    CutServer(usize, Cut),
    /// Of a process, all workers before all gateways.
    Cut(usize, Cut),
    /// The same process's clock is that many seconds ahead.
    Clock(usize, i64),
    /// The stream of records has no room.
    Full,
    /// A new key, which seals from the end of the fault on.
    NewKey,
    Provider(Behaviour),
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::KillWorker(_) => "worker killed",
            Self::StopWorker(_) => "worker stopped",
            Self::KillGateway(_) => "gateway killed",
            Self::KillServer(_) => "nats-server killed",
            Self::StopServer(_) => "nats-server stopped",
            Self::KillLeader(_) => "stream's leader killed",
            Self::CutServer(_, Cut::ToServer | Cut::ToProcess) => "routes cut one way",
            Self::CutServer(..) => "routes cut",
            Self::Cut(_, Cut::Silent) => "link silent",
            Self::Cut(_, Cut::ToServer | Cut::ToProcess) => "link cut one way",
            Self::Cut(_, _) => "link closed",
            Self::Clock(..) => "clock an hour off",
            Self::Full => "stream full",
            Self::NewKey => "new key",
            Self::Provider(Behaviour::Slow) => "provider slow",
            Self::Provider(Behaviour::Broken) => "provider broken",
            Self::Provider(_) => "provider lying",
        }
    }

    /// Each target has one fault at a time. All servers are one target, so that a cluster keeps its majority.
    fn target(self) -> (u8, usize) {
        match self {
            Self::KillWorker(number) | Self::StopWorker(number) => (0, number),
            Self::KillGateway(number) => (1, number),
            Self::KillServer(_) | Self::StopServer(_) | Self::KillLeader(_) | Self::CutServer(..) => (2, 0),
            Self::Provider(_) => (3, 0),
            Self::Cut(number, _) => (4, number),
            Self::Clock(number, _) => (5, number),
            Self::Full => (6, 0),
            Self::NewKey => (7, 0),
        }
    }

    fn length(self) -> Range<u64> {
        match self {
            Self::KillWorker(_) | Self::KillGateway(_) | Self::KillServer(_) | Self::KillLeader(_) => AWAY,
            Self::StopWorker(_) | Self::StopServer(_) => STOPPED,
            Self::Provider(_) | Self::Cut(..) | Self::CutServer(..) | Self::Full => SPELL,
            Self::Clock(..) | Self::NewKey => NOTICED,
        }
    }
}

/// Processes that faults may befall.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) servers: usize,
    pub(crate) workers: usize,
    pub(crate) gateways: usize,
}

/// The begin or end of a fault, at that time from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    pub(crate) is_begin: bool,
}

/// The steps of a run in order. The last one ends with the run.
pub(crate) fn schedule(seed: u64, sizes: Sizes, length: Duration) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ends: BTreeMap<(u8, usize), Duration> = BTreeMap::new();
    let (mut steps, mut at) = (Vec::new(), CALM);
    while at < length {
        let fault = any(&mut random, sizes, at.as_secs_f64() / length.as_secs_f64());
        let end = (at + Duration::from_millis(random.random_range(fault.length()))).min(length);
        // Random numbers are used up alike whether or not the target is free.
        if ends.get(&fault.target()).is_none_or(|until| *until < at) {
            ends.insert(fault.target(), end);
            steps.push(Step { at, fault, is_begin: true });
            steps.push(Step { at: end, fault, is_begin: false });
        }
        at += Duration::from_millis(random.random_range(PAUSE));
    }
    steps.sort_by_key(|step| step.at);
    steps
}

fn any(random: &mut StdRng, sizes: Sizes, share: f64) -> Fault {
    let dice = random.random_range(0..106);
    let worker = random.random_range(0..sizes.workers);
    let gateway = random.random_range(0..sizes.gateways);
    let process = random.random_range(0..sizes.workers + sizes.gateways);
    let server = random.random_range(0..sizes.servers);
    let stream = LED[random.random_range(0..LED.len())];
    let cut = [Cut::Closed, Cut::Silent, Cut::ToServer, Cut::ToProcess][random.random_range(0..4)];
    let hour = if random.random() { 3_600 } else { -3_600 };
    // After the restart of a single server, refreshes wait for 101 s. Before half of the run it would have none.
    let may_kill_server = sizes.servers > 1 || share > 0.5;
    match dice {
        0..19 => Fault::KillWorker(worker),
        19..29 => Fault::KillGateway(gateway),
        29..36 if sizes.servers > 1 => Fault::KillLeader(stream),
        29..43 if may_kill_server => Fault::KillServer(server),
        29..47 => Fault::StopServer(server),
        47..57 => Fault::StopWorker(worker),
        57..70 => Fault::Cut(process, cut),
        70..76 => Fault::Provider(Behaviour::Slow),
        76..81 => Fault::Provider(Behaviour::Broken),
        81..86 => Fault::Provider(Behaviour::Lying),
        86..91 => Fault::Clock(process, hour),
        91..95 => Fault::Full,
        95..101 if sizes.servers > 1 => Fault::CutServer(server, cut),
        _ => Fault::NewKey,
    }
}

pub(crate) fn print(steps: &[Step]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.is_begin) {
        *counts.entry(step.fault.name()).or_default() += 1;
    }
    println!("\nfaults");
    for (name, number) in counts {
        println!("{name:<24}{number:>6}");
    }
}

#[test]
fn a_seed_makes_the_same_schedule_which_ends_each_fault_within_the_run() {
    let (sizes, length) = (Sizes { servers: 1, workers: 2, gateways: 2 }, Duration::from_mins(2));
    for seed in 0..50 {
        let steps = schedule(seed, sizes, length);
        assert_eq!(steps, schedule(seed, sizes, length));
        assert!(steps.len() > 20, "{seed}: {steps:?}");
        assert!(steps.iter().all(|step| step.at <= length));
        let count = |is_begin| steps.iter().filter(|step| step.is_begin == is_begin).count();
        assert_eq!(count(true), count(false));
    }
    assert_ne!(schedule(1, sizes, length), schedule(2, sizes, length));
}
