//! The number of calls that run at once.
//!
//! If the CPU is the bottleneck, more calls at once only delay each other. If the NATS server is far away, more calls at once
//! are answered. The delay with which tasks run tells the two apart: the limit grows by one while it is short, and is halved
//! while it is long.

use std::time::Duration;

/// Longest delay of a task that is ready to run. A call has a handful of such delays.
const LATE: Duration = Duration::from_millis(1);
/// Calls at once on each core before anything is known: enough for a server less than a millisecond away.
const FIRST_PER_CORE: usize = 16;
/// Gateways' calls that may wait for something else than the CPU, which no delay shows: at most 64 look up their account.
const SLOW: usize = 64;
/// Fewest commands at once on each core, with the calls that lead to them. A command may pass 200 ms on the bus.
const COMMANDS_PER_CORE: usize = 32;
/// Most of them in a flood. Few, so that each is soon done, and enough that the server stores several with one sync.
const IN_FLOOD_PER_CORE: usize = 8;
/// Most calls at once.
const HIGHEST: usize = 1_024;

#[derive(Debug)]
pub(super) struct Limit {
    most: usize,
    lowest: usize,
    highest: usize,
    highest_in_flood: usize,
    /// Delays since the last change, and how many of them were long.
    noted: usize,
    late: usize,
}

impl Limit {
    /// At least one call for each core.
    pub(super) fn of_nodes(cores: usize) -> Self {
        Self::between(cores, FIRST_PER_CORE * cores, HIGHEST.max(cores))
    }

    /// At least one call for each core, in addition to those that wait for something else.
    pub(super) fn of_gateways(cores: usize) -> Self {
        let Self { most, lowest, highest, .. } = Self::of_nodes(cores);
        Self::between(SLOW + lowest, SLOW + most, SLOW + highest)
    }

    /// More of them, because most of a command's time passes on the bus.
    pub(super) fn of_commands(cores: usize) -> Self {
        let lowest = COMMANDS_PER_CORE * cores;
        let limit = Self::between(lowest, lowest, HIGHEST.max(lowest));
        Self { highest_in_flood: IN_FLOOD_PER_CORE * cores, ..limit }
    }

    pub(super) fn fixed(most: usize) -> Self {
        Self::between(most, most, most)
    }

    fn between(lowest: usize, first: usize, highest: usize) -> Self {
        let most = first.clamp(lowest, highest);
        Self { most, lowest, highest, highest_in_flood: highest, noted: 0, late: 0 }
    }

    pub(super) fn most(&self, in_flood: bool) -> usize {
        if in_flood { self.most.min(self.highest_in_flood) } else { self.most }
    }

    /// Takes the delay of one call into account. Changes the limit after as many calls as run at once.
    pub(super) fn note(&mut self, delay: Duration) {
        self.noted += 1;
        self.late += usize::from(delay > LATE);
        if self.noted >= self.most {
            let is_late = 2 * self.late > self.noted;
            let most = if is_late { self.most / 2 } else { self.most + 1 };
            (self.most, self.noted, self.late) = (most.clamp(self.lowest, self.highest), 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes as many equal delays.
    fn after(mut limit: Limit, calls: usize, delay: Duration) -> Limit {
        (0..calls).for_each(|_| limit.note(delay));
        limit
    }

    #[test]
    fn h11_the_limit_follows_the_delay() {
        let limit = Limit::of_nodes(2);
        assert_eq!(limit.most(false), 32);
        let limit = after(limit, 32, Duration::ZERO);
        assert_eq!(limit.most(false), 33);
        let limit = after(limit, 33 + 16 + 8 + 4, LATE * 2);
        assert_eq!(limit.most(false), 2);
        let limit = after(limit, 100, LATE * 2);
        assert_eq!(limit.most(false), 2, "one for each core");
        let limit = after(limit, HIGHEST * HIGHEST, LATE);
        assert_eq!(limit.most(false), HIGHEST);
        assert_eq!(after(Limit::of_gateways(2), 1_000, LATE * 2).most(false), SLOW + 2);
        assert_eq!(after(Limit::of_commands(2), 1_000, LATE * 2).most(false), 2 * COMMANDS_PER_CORE);
        assert_eq!(Limit::of_commands(2).most(true), 2 * IN_FLOOD_PER_CORE);
        assert_eq!(Limit::of_nodes(2).most(true), 32);
        assert_eq!(after(Limit::fixed(3), 100, Duration::ZERO).most(false), 3);
        assert_eq!(after(Limit::fixed(3), 100, LATE * 2).most(false), 3);
    }
}
