//! The time of one command's requests to its provider.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Starts with the command's first request. The config's `timeout` covers all of them together.
#[derive(Debug, Default)]
pub(in crate::worker) struct RequestTime(OnceLock<Instant>);

impl RequestTime {
    /// Starts the time if it has not started, and returns the rest of it.
    pub(super) fn left(&self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.0.get_or_init(Instant::now).elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_all_requests_of_a_command_share_one_time() {
        let timeout = Duration::from_secs(30);
        let time = RequestTime(OnceLock::from(Instant::now().checked_sub(Duration::from_secs(20)).unwrap()));
        assert!((9..=10).contains(&time.left(timeout).as_secs()));
        assert_eq!(time.left(Duration::from_secs(20)), Duration::ZERO);
        assert!(RequestTime::default().left(timeout).as_secs() >= 29);
    }
}
