//! Latency of one caller while others load the same program: quiet and loaded windows alternate, and their ratios count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Windows of each kind.
const WINDOWS: usize = 10;
/// Calls in one window.
const CALLS: usize = 60;
/// Time from one call to the next: fewer a second than the gateway takes from one credential.
const PACE: Duration = Duration::from_millis(12);
/// Latencies below this one count as equal: on a busy machine the scheduler decides over them.
pub(crate) const NOISE: Duration = Duration::from_millis(25);
/// Environment variable with a factor for the bounds. `.ci/run` doubles them, because its tests share the machine.
const FACTOR: &str = "LATENCY_BOUND_FACTOR";

/// Medians over all windows.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Loaded p99 by quiet p99.
    pub(crate) p99: f64,
    /// Loaded p50 by quiet p50.
    pub(crate) p50: f64,
}

/// Returns the bound of a ratio on this machine.
pub(crate) fn bound(most: f64) -> f64 {
    let factor = std::env::var_os(FACTOR)
        .map_or(1.0, |factor| factor.to_str().and_then(|factor| factor.parse().ok()).expect("the factor is a number"));
    most * factor
}

/// Runs windows of calls, with and without load. `load` runs until its flag is false. Latencies below `noise` count as equal.
pub(crate) async fn compare<L>(
    noise: Duration,
    call: impl AsyncFn(),
    load: impl Fn(&'static AtomicBool) -> L,
) -> Compared
where
    L: Future<Output = ()>,
{
    let (mut p99, mut p50) = (Vec::new(), Vec::new());
    for _ in 0..WINDOWS {
        let quiet = window(&call).await;
        let goes_on: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(true)));
        let (loaded, ()) = tokio::join!(
            async {
                let loaded = window(&call).await;
                goes_on.store(false, Ordering::Relaxed);
                loaded
            },
            load(goes_on),
        );
        println!("p50 {:?}, loaded {:?}", quiet[CALLS / 2], loaded[CALLS / 2]);
        let ratio = |part: usize| ratio(quiet[part].max(noise), loaded[part].max(noise));
        p99.push(ratio(CALLS * 99 / 100));
        p50.push(ratio(CALLS / 2));
    }
    Compared { p99: median(p99), p50: median(p50) }
}

/// The latencies of a window's calls, sorted.
async fn window(call: &impl AsyncFn()) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(CALLS);
    let mut pace = tokio::time::interval(PACE);
    for _ in 0..CALLS {
        pace.tick().await;
        let began = Instant::now();
        call().await;
        latencies.push(began.elapsed());
    }
    latencies.sort_unstable();
    latencies
}

fn ratio(quiet: Duration, loaded: Duration) -> f64 {
    loaded.as_secs_f64() / quiet.as_secs_f64()
}

pub(crate) fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_unstable_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
