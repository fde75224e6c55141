//! The time that commands which have sent something to a provider may still need this process, for its shutdown.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The latest of the times until which such commands may run. A command that ends earlier does not move it: a shutdown waits
/// only as long as a command runs.
#[derive(Debug, Default)]
pub(crate) struct Needs(Mutex<Option<Instant>>);

impl Needs {
    /// A command that sends something now may run for as long as this.
    pub(crate) fn extend(&self, by: Duration) {
        let until = Instant::now().checked_add(by);
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = (*latest).max(until);
    }

    /// Returns the time that is left; zero if no command needs any.
    pub(crate) fn left(&self) -> Duration {
        let latest = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_need_counts() {
        let needs = Needs::default();
        assert_eq!(needs.left(), Duration::ZERO);
        needs.extend(Duration::from_mins(2));
        needs.extend(Duration::from_mins(1));
        assert!((110..=120).contains(&needs.left().as_secs()));
    }
}
