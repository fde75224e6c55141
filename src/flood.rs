//! Tells a flood from a burst.
//!
//! Work that comes in a burst may wait, because it is soon done. So may that of clients that each wait for their answer: there
//! is never more of it. The work of a flood comes faster than it is done, so its queue fills up, and all that is accepted waits
//! as long as a full queue takes. So a queue that had to refuse something is short, until it has refused nothing for a second.

use std::time::{Duration, Instant};

/// Time without a refusal after which a flood is over.
const CALM: Duration = Duration::from_secs(1);

/// The time of a queue's last refusal.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Flood(Option<Instant>);

/// How much may wait in a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) in_burst: usize,
    /// Less, but enough that the queue does not run empty.
    pub(crate) in_flood: usize,
}

impl Flood {
    /// Returns true if one more may wait. A refusal begins the flood, or makes it last.
    pub(crate) fn admits(&mut self, waiting: usize, room: Room, now: Instant) -> bool {
        let most = if self.is_on(now) { room.in_flood } else { room.in_burst };
        if waiting >= most {
            self.refused(now);
        }
        waiting < most
    }

    /// Notes a refusal.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.0 = Some(now);
    }

    pub(crate) fn is_on(self, now: Instant) -> bool {
        self.0.is_some_and(|last| now.duration_since(last) < CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_refused_is_short_until_a_second_without_refusal_has_passed() {
        let (room, began) = (Room { in_burst: 10, in_flood: 2 }, Instant::now());
        let mut flood = Flood::default();
        let mut check = |ms, waiting, expected| {
            let admits = flood.admits(waiting, room, began + Duration::from_millis(ms));
            assert_eq!(admits, expected, "{waiting} wait after {ms} ms");
        };
        check(0, 9, true);
        check(0, 10, false);
        check(1, 2, false);
        check(2, 1, true);
        check(900, 9, false);
        check(1_899, 2, false);
        check(2_898, 1, true);
        check(2_899, 9, true);
    }
}
