//! Runs a task again after it fails.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Pause after a failure. Most failures are a bus that is away, and it usually returns within seconds.
pub(super) const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// A task that ran this long logs its next failure as a first one.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// Runs `attempt` until `stop` is cancelled. An attempt ends only when it fails, and returns its error; after
/// [`RESTART_PAUSE`] the next attempt begins. `task` completes the log line "cannot …".
pub(super) async fn run_until_stopped<F>(stop: &CancellationToken, task: &str, attempt: impl Fn() -> F)
where
    F: Future<Output: std::fmt::Display>,
{
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let began = Instant::now();
        let error = tokio::select! {
            () = stop.cancelled() => break,
            error = attempt() => error,
        };
        failures = if began.elapsed() < HEALTHY_AFTER { failures.saturating_add(1) } else { 1 };
        if is_logged(failures) {
            warn!("cannot {task}: {error}; trying again");
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// Of failures in a row, one a second, selects the first, then ever fewer, and finally one a minute.
pub(super) fn is_logged(failures: u32) -> bool {
    failures.is_multiple_of(60) || (failures < 60 && failures.is_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_failure_is_logged_once_a_minute() {
        let logged: Vec<u32> = (1..=180).filter(|failures| is_logged(*failures)).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16, 32, 60, 120, 180]);
    }
}
