//! Refreshes stand in line before their integration: so many at once, so many a second, for each process. Whoever
//! finds it full gets a turn and comes back then, so that one provider's outage holds up nobody else's refreshes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::subject::Integration;

/// Schedules have seconds: nobody can come back sooner.
const SOONEST: Duration = Duration::from_secs(1);
/// What the line may be ahead of the clock before anybody is sent away: a second's worth goes through at once.
const BURST: Duration = Duration::from_secs(1);
/// No turn is farther away; whoever finds it full again then gets another.
const FARTHEST: Duration = Duration::from_mins(10);

/// The lines of a process.
pub(crate) struct Lanes {
    concurrency: usize,
    gap: Duration,
    by_integration: Mutex<HashMap<Integration, Lane>>,
}

struct Lane {
    places: Arc<Semaphore>,
    line: Arc<Mutex<Line>>,
}

/// The turns given out so far.
struct Line {
    next: Instant,
    /// Those of whoever came at his turn and found all places taken: before everybody who has none yet.
    overdue: Instant,
    /// How long a request takes, smoothed.
    took: Duration,
}

/// How somebody comes to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// Due, for the first time.
    New,
    /// Due, with a turn given before.
    Booked,
    /// Asked for by somebody who waits.
    Asked,
}

/// A place at the provider, free again when dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    line: Arc<Mutex<Line>>,
    since: Instant,
}

impl Lanes {
    /// Lines with so many places and so many turns a second for each integration.
    #[must_use]
    pub(crate) fn new(concurrency: usize, rate: u32) -> Self {
        let gap = Duration::from_secs(1) / rate.max(1);
        Self { concurrency: concurrency.max(1), gap, by_integration: Mutex::default() }
    }

    /// A place, or how long to stay away.
    ///
    /// # Errors
    /// How long it is until the turn that was given instead.
    pub(crate) fn enter(&self, integration: &Integration, ticket: Ticket, now: Instant) -> Result<Place, Duration> {
        let (places, line) = {
            let mut lanes = lock(&self.by_integration);
            let lane = lanes.entry(integration.clone()).or_insert_with(|| Lane {
                places: Arc::new(Semaphore::new(self.concurrency)),
                line: Arc::new(Mutex::new(Line { next: now, overdue: now, took: Duration::ZERO })),
            });
            (Arc::clone(&lane.places), Arc::clone(&lane.line))
        };
        let mut turns = lock(&line);
        let end = turns.next.max(turns.overdue).max(now);
        let is_early = ticket == Ticket::New && end > now + BURST;
        match places.try_acquire_owned() {
            Ok(permit) if !is_early => {
                if ticket != Ticket::Booked {
                    turns.next = turns.next.max(now) + self.gap;
                }
                drop(turns);
                Ok(Place { _permit: permit, line, since: now })
            }
            Ok(_) | Err(_) if ticket == Ticket::Asked => Err(SOONEST),
            Ok(_) | Err(_) => {
                // Four fifths of the places: where all are planned for, many who come at their turn find none.
                let share = turns.took * 5 / 4 / u32::try_from(self.concurrency).unwrap_or(u32::MAX);
                let gap = self.gap.max(share);
                let turn = if ticket == Ticket::Booked { turns.overdue.max(now) } else { end };
                // Whoever comes twice takes the place of two.
                turns.next = (end + gap).min(now + FARTHEST);
                if ticket == Ticket::Booked {
                    turns.overdue = (turn + gap).min(now + FARTHEST);
                }
                Err((turn - now).max(SOONEST))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (took, mut line) = (self.since.elapsed(), lock(&self.line));
        line.took = (line.took * 7 + took) / 8;
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn integration(name: &str) -> Integration {
        Integration::parse(name).unwrap()
    }

    #[test]
    fn a_full_integration_sends_away_in_order_and_holds_up_no_other() {
        let (lanes, now) = (Lanes::new(2, 10), Instant::now());
        let (dead, good) = (integration("dead"), integration("good"));
        let held = [(); 2].map(|()| lanes.enter(&dead, Ticket::New, now).ok().unwrap());
        let mut before = Duration::ZERO;
        for _ in 0..30 {
            let wait = lanes.enter(&dead, Ticket::New, now).err().unwrap();
            assert!(wait >= SOONEST && wait >= before, "{wait:?} after {before:?}");
            before = wait;
        }
        assert!(before >= Duration::from_secs(2), "ten a second: {before:?}");
        assert_eq!(lanes.enter(&dead, Ticket::Asked, now).err(), Some(SOONEST));
        assert!(lanes.enter(&good, Ticket::New, now).is_ok());
        drop(held);
        assert!(lanes.enter(&dead, Ticket::Booked, now).is_ok(), "its turn has come");
        assert!(lanes.enter(&dead, Ticket::New, now).is_err(), "behind those in line");
    }

    /// More is due at once than there are places for, and requests take now less, now more: whoever comes at his turn
    /// and finds no place waits for a short time, and not behind all who have none yet.
    #[test]
    fn d7_whoever_has_a_turn_is_not_sent_to_the_end_of_the_line() {
        let (lanes, start, slack) = (Lanes::new(4, 100), Instant::now(), integration("slack"));
        let mut held: Vec<(u64, Place)> = Vec::new();
        // When each comes, in milliseconds, who it is, and when its turn was.
        let mut coming: BTreeSet<(u64, u64, Option<u64>)> = (0..2_000).map(|who| (0, who, None)).collect();
        let (mut latest, mut last) = (0, 0);
        while let Some((now, who, turn)) = coming.pop_first() {
            held.retain(|(until, _)| *until > now);
            for lane in lock(&lanes.by_integration).values() {
                // In this test no time passes.
                lock(&lane.line).took = Duration::from_millis(195);
            }
            let ticket = if turn.is_some() { Ticket::Booked } else { Ticket::New };
            match lanes.enter(&slack, ticket, start + Duration::from_millis(now)) {
                Ok(place) => {
                    held.push((now + 50 + who * 7_919 % 290, place));
                    (latest, last) = (latest.max(now - turn.unwrap_or(now)), now);
                }
                Err(wait) => {
                    let comes = now + u64::try_from(wait.as_millis()).unwrap();
                    coming.insert((comes, who, turn.or(Some(comes))));
                }
            }
        }
        assert!(latest < 30_000, "{latest} ms behind its turn, in a line of {last} ms");
        assert!(last < 130_000, "{last} ms, when four places at once take 98 s");
    }

    #[test]
    fn the_rate_holds_with_places_to_spare() {
        let (lanes, now) = (Lanes::new(100, 10), Instant::now());
        let slack = integration("slack");
        let entered = (0..30).filter(|_| lanes.enter(&slack, Ticket::New, now).is_ok()).count();
        assert!((10..=12).contains(&entered), "{entered}");
        assert!(lanes.enter(&slack, Ticket::New, now + Duration::from_secs(9)).is_ok());
    }
}
