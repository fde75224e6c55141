//! Limits the refreshes of each integration: how many run at once, and how many start per second, in this process.
//!
//! A refresh that finds no capacity reserves a slot, leaves the queue, and returns by a schedule at that time. So the
//! refreshes of a provider in an outage hold up no others. The time of a slot depends on the rate, or on how long requests
//! take when they use four fifths of the permits. A refresh that comes at its slot and finds no permit goes ahead of all that
//! have none yet. docs/decisions/0012-reserved-slots.md compares this with random waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::subject::Integration;

/// Shortest wait. Schedules have a resolution of one second.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// Reserved time that may lie ahead before new refreshes must wait: one second's worth starts at once.
const BURST: Duration = Duration::from_secs(1);
/// Longest wait. A refresh that finds no capacity then reserves another slot.
const MAX_WAIT: Duration = Duration::from_mins(10);
/// Integrations to remember. When a further one arrives, the idle ones are forgotten, with the measured duration of their
/// requests.
const KEPT_INTEGRATIONS: usize = 1_024;

pub(crate) struct RefreshLimiter {
    concurrency: usize,
    gap: Duration,
    by_integration: Mutex<HashMap<Integration, Limiter>>,
}

struct Limiter {
    permits: Arc<Semaphore>,
    slots: Arc<Mutex<Slots>>,
}

impl Limiter {
    /// Returns true if no permit is held and no reserved time lies ahead. Each permit, and each call of
    /// [`RefreshLimiter::acquire`] in progress, holds a reference to the slots.
    fn is_idle(&self, now: Instant) -> bool {
        let have_passed = |slots: &Slots| slots.next <= now && slots.overdue <= now;
        Arc::strong_count(&self.slots) == 1 && have_passed(&lock(&self.slots))
    }
}

/// The slots reserved so far.
struct Slots {
    next: Instant,
    /// Next slot for refreshes that came at their slot and found no permit.
    overdue: Instant,
    /// Smoothed duration of a request.
    request_time: Duration,
}

/// Reason to start a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartReason {
    /// Due for the first time.
    Due,
    /// Returns at a reserved slot.
    AtSlot,
    /// A caller waits for the result. It gets no slot, because it asks again itself.
    ForCaller,
}

/// Permit for one refresh. Returned on drop.
pub(crate) struct RefreshPermit {
    _permit: OwnedSemaphorePermit,
    slots: Arc<Mutex<Slots>>,
    since: Instant,
}

impl RefreshLimiter {
    /// Allows each integration `concurrency` refreshes at once and `rate` per second.
    #[must_use]
    pub(crate) fn new(concurrency: usize, rate: u32) -> Self {
        let gap = Duration::from_secs(1) / rate.max(1);
        Self { concurrency: concurrency.max(1), gap, by_integration: Mutex::default() }
    }

    /// Takes a permit. Without capacity, reserves a slot and returns the wait until that slot as the error.
    pub(crate) fn acquire(
        &self,
        integration: &Integration,
        reason: StartReason,
        now: Instant,
    ) -> Result<RefreshPermit, Duration> {
        let (permits, slots) = {
            let mut limiters = lock(&self.by_integration);
            if limiters.len() >= KEPT_INTEGRATIONS && !limiters.contains_key(integration) {
                limiters.retain(|_, limiter| !limiter.is_idle(now));
            }
            let limiter = limiters.entry(integration.clone()).or_insert_with(|| Limiter {
                permits: Arc::new(Semaphore::new(self.concurrency)),
                slots: Arc::new(Mutex::new(Slots { next: now, overdue: now, request_time: Duration::ZERO })),
            });
            (Arc::clone(&limiter.permits), Arc::clone(&limiter.slots))
        };
        let mut reserved = lock(&slots);
        let end = reserved.next.max(reserved.overdue).max(now);
        let is_early = reason == StartReason::Due && end > now + BURST;
        match permits.try_acquire_owned() {
            Ok(permit) if !is_early => {
                if reason != StartReason::AtSlot {
                    reserved.next = reserved.next.max(now) + self.gap;
                }
                drop(reserved);
                Ok(RefreshPermit { _permit: permit, slots, since: now })
            }
            Ok(_) | Err(_) if reason == StartReason::ForCaller => Err(MIN_WAIT),
            Ok(_) | Err(_) => {
                // Plan for four fifths of the permits: planning for all, many refreshes would find none at their slot.
                let share = reserved.request_time * 5 / 4 / u32::try_from(self.concurrency).unwrap_or(u32::MAX);
                let gap = self.gap.max(share);
                let slot = if reason == StartReason::AtSlot { reserved.overdue.max(now) } else { end };
                // A refresh that returns without a permit uses a second slot.
                reserved.next = (end + gap).min(now + MAX_WAIT);
                if reason == StartReason::AtSlot {
                    reserved.overdue = (slot + gap).min(now + MAX_WAIT);
                }
                Err((slot - now).max(MIN_WAIT))
            }
        }
    }
}

impl Drop for RefreshPermit {
    fn drop(&mut self) {
        let (elapsed, mut slots) = (self.since.elapsed(), lock(&self.slots));
        slots.request_time = (slots.request_time * 7 + elapsed) / 8;
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
    fn a_full_integration_reserves_slots_in_order_and_holds_up_no_other() {
        let (limiter, now) = (RefreshLimiter::new(2, 10), Instant::now());
        let (dead, good) = (integration("dead"), integration("good"));
        let held = [(); 2].map(|()| limiter.acquire(&dead, StartReason::Due, now).ok().unwrap());
        let mut before = Duration::ZERO;
        for _ in 0..30 {
            let wait = limiter.acquire(&dead, StartReason::Due, now).err().unwrap();
            assert!(wait >= MIN_WAIT && wait >= before, "{wait:?} after {before:?}");
            before = wait;
        }
        assert!(before >= Duration::from_secs(2), "ten a second: {before:?}");
        assert_eq!(limiter.acquire(&dead, StartReason::ForCaller, now).err(), Some(MIN_WAIT));
        assert!(limiter.acquire(&good, StartReason::Due, now).is_ok());
        drop(held);
        assert!(limiter.acquire(&dead, StartReason::AtSlot, now).is_ok(), "at its slot");
        assert!(limiter.acquire(&dead, StartReason::Due, now).is_err(), "after the reserved slots");
    }

    /// More refreshes are due at once than there are permits for, and the duration of requests varies: a refresh that finds no
    /// permit at its slot must wait only a short time, not until the end of the backlog.
    #[test]
    fn d7_a_refresh_at_its_slot_is_not_sent_to_the_end_of_the_backlog() {
        let (limiter, start, slack) = (RefreshLimiter::new(4, 100), Instant::now(), integration("slack"));
        let mut held: Vec<(u64, RefreshPermit)> = Vec::new();
        // Time of the attempt in milliseconds, number of the refresh, and its first slot.
        let mut coming: BTreeSet<(u64, u64, Option<u64>)> = (0..2_000).map(|who| (0, who, None)).collect();
        let (mut latest, mut last) = (0, 0);
        while let Some((now, who, slot)) = coming.pop_first() {
            held.retain(|(until, _)| *until > now);
            for limiter in lock(&limiter.by_integration).values() {
                // No time passes in this test, so the duration is set by hand.
                lock(&limiter.slots).request_time = Duration::from_millis(195);
            }
            let attempt = if slot.is_some() { StartReason::AtSlot } else { StartReason::Due };
            match limiter.acquire(&slack, attempt, start + Duration::from_millis(now)) {
                Ok(permit) => {
                    held.push((now + 50 + who * 7_919 % 290, permit));
                    (latest, last) = (latest.max(now - slot.unwrap_or(now)), now);
                }
                Err(wait) => {
                    let comes = now + u64::try_from(wait.as_millis()).unwrap();
                    coming.insert((comes, who, slot.or(Some(comes))));
                }
            }
        }
        assert!(latest < 30_000, "{latest} ms after its slot, in a backlog of {last} ms");
        assert!(last < 130_000, "{last} ms, but four permits need 98 s");
    }

    #[test]
    fn idle_integrations_are_forgotten_and_busy_ones_are_not() {
        let (limiter, start) = (RefreshLimiter::new(1, 100), Instant::now());
        let (busy, full) = (integration("busy"), integration("full"));
        let _held = limiter.acquire(&busy, StartReason::Due, start).ok().unwrap();
        drop(limiter.acquire(&full, StartReason::Due, start).ok().unwrap());
        lock(&lock(&limiter.by_integration)[&full].slots).next = start + MAX_WAIT;
        for number in 0..5 * KEPT_INTEGRATIONS {
            let now = start + Duration::from_millis(20) * u32::try_from(number).unwrap();
            drop(limiter.acquire(&integration(&format!("app{number}")), StartReason::Due, now).ok().unwrap());
        }
        let kept = lock(&limiter.by_integration).len();
        assert!(kept <= KEPT_INTEGRATIONS, "{kept}");
        let later = start + Duration::from_secs(200);
        assert!(limiter.acquire(&busy, StartReason::AtSlot, later).is_err(), "its permit is held");
        assert!(limiter.acquire(&full, StartReason::Due, later).is_err(), "its slots are reserved");
    }

    #[test]
    fn the_rate_holds_while_permits_are_free() {
        let (limiter, now) = (RefreshLimiter::new(100, 10), Instant::now());
        let slack = integration("slack");
        let entered = (0..30).filter(|_| limiter.acquire(&slack, StartReason::Due, now).is_ok()).count();
        assert!((10..=12).contains(&entered), "{entered}");
        assert!(limiter.acquire(&slack, StartReason::Due, now + Duration::from_secs(9)).is_ok());
    }

    /// Tries per refresh, and milliseconds until the last refresh starts, when all are due at once.
    #[derive(Debug, Clone, Copy)]
    struct Backlog {
        tries: f64,
        last: u64,
    }

    /// Simulates refreshes that are due at once. `acquire` returns a permit or the wait in milliseconds.
    fn simulate<P>(many: u64, mut acquire: impl FnMut(StartReason, u64) -> Result<P, u64>) -> Backlog {
        let mut held: Vec<(u64, P)> = Vec::new();
        let mut coming: BTreeSet<(u64, u64, bool)> = (0..many).map(|who| (0, who, false)).collect();
        let (mut tries, mut last) = (0_u32, 0);
        while let Some((now, who, has_slot)) = coming.pop_first() {
            held.retain(|(until, _)| *until > now);
            tries += 1;
            match acquire(if has_slot { StartReason::AtSlot } else { StartReason::Due }, now) {
                Ok(permit) => {
                    held.push((now + 50 + who * 7_919 % 290, permit));
                    last = now;
                }
                Err(wait) => drop(coming.insert((now + wait, who, true))),
            }
        }
        Backlog { tries: f64::from(tries) / f64::from(u32::try_from(many).unwrap()), last }
    }

    fn with_slots(many: u64) -> Backlog {
        let (limiter, start, slack) = (RefreshLimiter::new(4, 100), Instant::now(), integration("slack"));
        simulate(many, |attempt, now| {
            for limiter in lock(&limiter.by_integration).values() {
                lock(&limiter.slots).request_time = Duration::from_millis(195);
            }
            let acquired = limiter.acquire(&slack, attempt, start + Duration::from_millis(now));
            acquired.map_err(|wait| u64::try_from(wait.as_millis()).unwrap())
        })
    }

    /// The alternative: a semaphore, and a random wait from one second to `longest`.
    fn with_jitter(many: u64, longest: u64) -> Backlog {
        let (permits, mut random) = (Arc::new(Semaphore::new(4)), 88_172_645_463_325_252_u64);
        simulate(many, |_, _| {
            Arc::clone(&permits).try_acquire_owned().map_err(|_full| {
                // Xorshift: the figures must be the same in each run.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                1_000 + random % (longest - 1_000)
            })
        })
    }

    /// Holds docs/decisions/0012-reserved-slots.md, and prints its figures.
    #[test]
    fn d7_slots_need_few_tries_for_any_backlog() {
        for many in [500, 2_000, 10_000] {
            let slots = with_slots(many);
            println!("{many} due at once, slots: {slots:?}");
            for longest in [10_000, 30_000, 120_000] {
                println!("{many} due at once, waits up to {longest} ms: {:?}", with_jitter(many, longest));
            }
            assert!(slots.tries < 3.0 && slots.last < 65 * many, "{many}: {slots:?}");
        }
        assert!(with_jitter(10_000, 30_000).tries > 4.0 * with_slots(10_000).tries);
    }
}
