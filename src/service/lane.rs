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
pub struct Lanes {
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
    /// How long a request takes, smoothed.
    took: Duration,
}

/// How somebody comes to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// Due, for the first time.
    New,
    /// Due, with a turn given before.
    Booked,
    /// Asked for by somebody who waits.
    Asked,
}

/// A place at the provider, free again when dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    line: Arc<Mutex<Line>>,
    since: Instant,
}

impl Lanes {
    /// Lines with so many places and so many turns a second for each integration.
    #[must_use]
    pub fn new(concurrency: usize, rate: u32) -> Self {
        let gap = Duration::from_secs(1) / rate.max(1);
        Self { concurrency: concurrency.max(1), gap, by_integration: Mutex::default() }
    }

    /// A place, or how long to stay away.
    ///
    /// # Errors
    /// How long it is until the turn that was given instead.
    pub fn enter(&self, integration: &Integration, ticket: Ticket, now: Instant) -> Result<Place, Duration> {
        let (places, line) = {
            let mut lanes = lock(&self.by_integration);
            let lane = lanes.entry(integration.clone()).or_insert_with(|| Lane {
                places: Arc::new(Semaphore::new(self.concurrency)),
                line: Arc::new(Mutex::new(Line { next: now, took: Duration::ZERO })),
            });
            (Arc::clone(&lane.places), Arc::clone(&lane.line))
        };
        let mut turns = lock(&line);
        let is_early = ticket == Ticket::New && turns.next > now + BURST;
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
                let turn = turns.next.max(now);
                let share = turns.took / u32::try_from(self.concurrency).unwrap_or(u32::MAX);
                turns.next = (turn + self.gap.max(share)).min(now + FARTHEST);
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

    #[test]
    fn the_rate_holds_with_places_to_spare() {
        let (lanes, now) = (Lanes::new(100, 10), Instant::now());
        let slack = integration("slack");
        let entered = (0..30).filter(|_| lanes.enter(&slack, Ticket::New, now).is_ok()).count();
        assert!((10..=12).contains(&entered), "{entered}");
        assert!(lanes.enter(&slack, Ticket::New, now + Duration::from_secs(9)).is_ok());
    }
}
