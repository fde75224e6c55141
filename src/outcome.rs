//! Outcomes of commands, and the waits before retries.

use std::time::Duration;

use crate::command::WorkerReply;

/// Deliveries of a command before it becomes a dead letter: up to three minutes of retries.
pub(crate) const MAX_DELIVERIES: i64 = 12;
/// Deliveries of an event before its webhook abandons it: about ten hours of retries.
pub const MAX_WEBHOOK_DELIVERIES: i64 = 16;
// First and longest waits, before jitter.
const WEBHOOK_FIRST: Duration = Duration::from_secs(5);
const WEBHOOK_CAP: Duration = Duration::from_hours(1);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
const REFRESH_FIRST: Duration = Duration::from_secs(10);
// First and longest waits between explicit tries of a grant that has ended.
const EXPLICIT_FIRST: Duration = Duration::from_mins(1);
const EXPLICIT_CAP: Duration = Duration::from_hours(1);
// Shortest and longest waits between tries of a revocation.
const REVOCATION_FIRST: Duration = Duration::from_mins(1);
const REVOCATION_CAP: Duration = Duration::from_hours(1);
/// Failures of a refresh in a row after which the wait grows no more: it is then 10 s × 2⁷, about 21 minutes.
pub(crate) const REFRESH_DOUBLING_FAILURES: u32 = 8;

/// The outcome of one delivery of a command. Each outcome except `DeliveryLost` ends in exactly one confirmed ack.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The work took so long that the server delivered the command to another worker. Do nothing more.
    DeliveryLost,
    /// The command succeeded or failed finally: reply, then ack.
    Done(WorkerReply),
    /// Something is not available, as the text says: ask for another delivery after this time.
    Retry(Duration, String),
    /// A retry cannot succeed, for the reason in the text: publish a dead letter, reply, terminate.
    Reject(String),
    /// The message is a copy of a command that was taken before: reply, publish a dead letter, terminate, and leave what the
    /// command itself has done.
    RejectCopy,
}

/// Wait before delivery number `delivered + 1`: doubled each time, up to 30 seconds. The jitter (0 to 1) takes off up to half,
/// so that commands that failed together are not retried together.
#[must_use]
pub(crate) fn backoff(delivered: i64, jitter: f64) -> Duration {
    let doublings = u32::try_from(delivered.clamp(1, 16) - 1).unwrap_or(0);
    let full = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(BACKOFF_CAP);
    full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
}

/// Wait before the next try of a refresh, by the number of failures in a row: from ten seconds to about 21 minutes, with
/// the same jitter.
#[must_use]
pub(crate) fn backoff_refresh(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.clamp(1, REFRESH_DOUBLING_FAILURES) - 1;
    let full = REFRESH_FIRST.saturating_mul(2_u32.saturating_pow(doublings));
    full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
}

/// Wait before the next explicit try of a grant that has ended, by the number of failed tries: from a minute to an hour.
#[must_use]
pub(crate) fn backoff_explicit(failures: u32) -> Duration {
    EXPLICIT_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(EXPLICIT_CAP)
}

/// Wait before the next try of a revocation: as long as the connection has been deleted, from a minute to an hour. So the
/// waits double without a stored count. The same jitter.
#[must_use]
pub(crate) fn backoff_revocation(since_deletion: Duration, jitter: f64) -> Duration {
    since_deletion.clamp(REVOCATION_FIRST, REVOCATION_CAP).mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
}

/// Wait before the next try of a webhook: five seconds, then four times as long each time, up to an hour, with the same
/// jitter.
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
    fn the_wait_of_a_refresh_doubles_up_to_21_minutes() {
        let waits: Vec<u64> = [0, 1, 2, 7, 8, 9, u32::MAX].map(|count| backoff_refresh(count, 0.0).as_secs()).to_vec();
        assert_eq!(waits, [10, 10, 20, 640, 1_280, 1_280, 1_280]);
        assert_eq!(backoff_refresh(u32::MAX, 1.0).as_secs(), 640);
    }

    #[test]
    fn the_wait_between_explicit_tries_doubles_up_to_an_hour() {
        let waits: Vec<u64> = [0, 1, 5, 6, u32::MAX].map(|count| backoff_explicit(count).as_secs()).to_vec();
        assert_eq!(waits, [60, 120, 1_920, 3_600, 3_600]);
    }

    #[test]
    fn the_wait_of_a_revocation_is_as_long_as_the_time_since_the_deletion() {
        let waits = [0, 61, 600, 3_600, 600_000].map(|age| backoff_revocation(Duration::from_secs(age), 0.0).as_secs());
        assert_eq!(waits, [60, 61, 600, 3_600, 3_600]);
        assert_eq!(backoff_revocation(Duration::from_mins(10), 1.0).as_secs(), 300);
    }

    #[test]
    fn a_webhook_is_tried_for_about_ten_hours() {
        let waits = (1..MAX_WEBHOOK_DELIVERIES).map(|delivered| backoff_webhook(delivered, 0.0).as_secs());
        let waits: Vec<u64> = waits.collect();
        assert_eq!(waits[..6], [5, 20, 80, 320, 1_280, 3_600]);
        assert!((9 * 3_600..11 * 3_600).contains(&waits.iter().sum::<u64>()));
    }
}
