//! What becomes of a command, and how long to wait before it is tried again.

use std::time::Duration;

use crate::command::WorkerReply;

/// Deliveries after which a command is given up.
pub(crate) const MAX_DELIVERIES: i64 = 12;
/// Deliveries of an event after which its webhook is given up: about ten hours.
pub const MAX_WEBHOOK_DELIVERIES: i64 = 16;
const WEBHOOK_FIRST: Duration = Duration::from_secs(5);
const WEBHOOK_CAP: Duration = Duration::from_hours(1);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
const REFRESH_FIRST: Duration = Duration::from_secs(10);
const REFRESH_CAP: Duration = Duration::from_mins(30);

/// What happens next with a command. Each ends in exactly one confirmed ack, unless it is another worker's by now.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It took so long that the server has given it to another worker: not a word about it.
    Lost,
    /// It is done, well or badly: answer, then ack.
    Done(WorkerReply),
    /// Something is away: deliver it again after this long.
    Retry(Duration, String),
    /// No retry mends it: dead letter, answer, terminate.
    Reject(String),
}

/// How long to wait before delivery number `delivered + 1`: doubled each time, capped, with the jitter (0 to 1)
/// taking away up to half, so that what failed together does not come back together.
#[must_use]
pub(crate) fn backoff(delivered: i64, jitter: f64) -> Duration {
    let doublings = u32::try_from(delivered.clamp(1, 16) - 1).unwrap_or(0);
    let full = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(BACKOFF_CAP);
    full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
}

/// How long to wait before a refresh is tried again after so many failures in a row: from ten seconds to about twenty
/// minutes, with the same jitter.
#[must_use]
pub(crate) fn backoff_refresh(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.clamp(1, 8) - 1;
    let full = REFRESH_FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(REFRESH_CAP);
    full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
}

/// How long to wait before a webhook is tried again: from five seconds, four times as long each time, up to an hour,
/// with the same jitter.
#[must_use]
pub(crate) fn backoff_webhook(delivered: i64, jitter: f64) -> Duration {
    let steps = u32::try_from(delivered.clamp(1, 8) - 1).unwrap_or(0);
    let full = WEBHOOK_FIRST.saturating_mul(4_u32.saturating_pow(steps)).min(WEBHOOK_CAP);
    full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap() {
        #[track_caller]
        fn check(delivered: i64, jitter: f64, milliseconds: u128) {
            assert_eq!(backoff(delivered, jitter).as_millis(), milliseconds);
        }
        check(i64::MIN, 0.0, 500);
        check(1, 0.0, 500);
        check(1, 1.0, 250);
        check(2, 0.0, 1_000);
        check(7, 0.0, 30_000);
        check(i64::MAX, 0.0, 30_000);
    }

    #[test]
    fn a_webhook_is_tried_for_about_ten_hours() {
        let waits = (1..MAX_WEBHOOK_DELIVERIES).map(|delivered| backoff_webhook(delivered, 0.0).as_secs());
        let waits: Vec<u64> = waits.collect();
        assert_eq!(waits[..6], [5, 20, 80, 320, 1_280, 3_600]);
        assert!((9 * 3_600..11 * 3_600).contains(&waits.iter().sum::<u64>()));
    }
}
