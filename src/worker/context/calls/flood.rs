//! Tells a flood from a burst.
//!
//! The calls of a burst, or of clients that each wait for their answer, are soon carried out, and may wait. Those of a flood come
//! so fast that most of them find no room in the queue.

use std::time::Duration;

use tokio::time::Instant;

/// Time for which arrivals and refusals are counted before they decide about the next such time.
const COUNTED: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Flood {
    since: Option<Instant>,
    arrived: usize,
    refused: usize,
    is_on: bool,
}

impl Flood {
    /// Counts a call, and the `unsent` calls that its gateway refused before it. Returns true if the call is one of a flood: most calls
    /// of the last half second found no room.
    pub(super) fn arrived(&mut self, now: Instant, unsent: usize) -> bool {
        let passed = self.since.map(|since| now - since);
        if passed.is_none_or(|passed| passed >= COUNTED) {
            // Without a call for longer than that, nothing is known.
            let is_recent = passed.is_some_and(|passed| passed < COUNTED * 2);
            *self = Self { since: Some(now), is_on: is_recent && 2 * self.refused > self.arrived, ..Self::default() };
        }
        self.arrived += 1 + unsent;
        self.refused += unsent;
        self.is_on
    }

    /// Returns true in a flood. It ends when no call has arrived for a while.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.is_on && self.since.is_some_and(|since| now - since < COUNTED * 2)
    }

    /// Counts calls that found no room, or lost theirs to another one.
    pub(super) fn refused(&mut self, calls: usize) {
        self.refused += calls;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts calls from `began` on, one each millisecond. Returns true if the last one is of a flood.
    fn count(flood: &mut Flood, began: Instant, calls: std::ops::Range<u64>, is_refused: impl Fn(u64) -> bool) -> bool {
        calls.fold(false, |_, number| {
            let is_on = flood.arrived(began + Duration::from_millis(number), 0);
            flood.refused(usize::from(is_refused(number)));
            is_on
        })
    }

    #[tokio::test]
    async fn a_flood_lasts_as_long_as_most_calls_are_refused() {
        let (mut flood, began) = (Flood::default(), Instant::now());
        assert!(!count(&mut flood, began, 0..500, |number| number % 2 == 0), "half of them is not most");
        assert!(!count(&mut flood, began, 500..1_000, |number| number % 3 > 0));
        assert!(count(&mut flood, began, 1_000..1_500, |number| number % 3 > 0));
        assert!(count(&mut flood, began, 1_500..2_000, |_| false));
        assert!(!count(&mut flood, began, 2_000..2_500, |_| true));
        assert!(!count(&mut flood, began, 3_500..3_501, |_| false), "it is long ago");
    }

    #[tokio::test]
    async fn calls_that_a_gateway_refuses_by_itself_show_a_flood_too() {
        let (mut flood, began) = (Flood::default(), Instant::now());
        let mut arrive = |milliseconds, unsent| flood.arrived(began + Duration::from_millis(milliseconds), unsent);
        assert!(!arrive(0, 3));
        assert!(arrive(500, 0));
        assert!(!arrive(1_000, 0), "none was refused");
    }
}
