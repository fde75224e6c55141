//! The bus's time: the server's clock, which all processes share.
//!
//! Between two readings the time advances with this process's monotonic clock, so a step of its wall clock changes nothing.
//! The monotonic clock of a machine that was suspended may have stood still meanwhile, its wall clock has not: a difference
//! between the two leads to a new reading.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::permissions::own_user;
use crate::jetstream::{Nats, NatsError};
use crate::system;

/// Age from which a reading is repeated: two clocks drift apart by a few milliseconds in it.
const READING_INTERVAL: Duration = Duration::from_mins(1);
/// Shortest time between two readings that calls ask for.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// Difference between the process's clocks that leads to a new reading. Clocks that NTP corrects differ by less.
const MAX_STEP: SignedDuration = SignedDuration::from_secs(1);
/// Difference between the process's wall clock and the server's that is logged.
pub(crate) const MAX_DIFFERENCE: SignedDuration = SignedDuration::from_secs(30);
/// Difference from which a worker takes no commands. Certificates and JWTs are judged by a clock that is wrong, and it is
/// unknown which one is.
const UNUSABLE_DIFFERENCE: SignedDuration = SignedDuration::from_mins(5);
/// Interval at which a worker with a wrong clock looks whether it may take commands again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The wall clock of a process is too wrong for a worker to take commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock of this worker's machine is {} s {} the NATS server's, so the worker takes no commands; set both by NTP",
    .ahead.abs().as_secs(),
    if .ahead.is_negative() { "behind" } else { "ahead of" }
)]
pub(crate) struct ClockError {
    /// Lead of the process's clock over the server's.
    ahead: SignedDuration,
}

/// The bus's time in one process. Before the first reading it is the process's own.
#[derive(Debug)]
pub(crate) struct BusClock(Mutex<Reading>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The bus's time at `at`.
    time: Timestamp,
    at: Instant,
    /// The process's wall clock at `at`.
    wall: Timestamp,
}

impl Default for BusClock {
    fn default() -> Self {
        let now = system::now();
        Self(Mutex::new(Reading { time: now, at: Instant::now(), wall: now }))
    }
}

impl BusClock {
    pub(crate) fn now(&self) -> Timestamp {
        let Reading { time, at, .. } = *self.lock();
        system::later(time, at.elapsed())
    }

    /// Sets the clock to a time that a worker has sent.
    pub(crate) fn set(&self, time: Timestamp) {
        *self.lock() = Reading { time, at: Instant::now(), wall: system::now() };
    }

    /// Reads the server's clock. Takes the process's own if the user may not ask the server.
    pub(crate) async fn read(&self, nats: &Nats) -> Result<(), NatsError> {
        let ahead = own_user(nats).await?.map_or(SignedDuration::ZERO, |user| user.clock_ahead);
        self.set(system::now().saturating_add(ahead).unwrap_or(Timestamp::MAX));
        Ok(())
    }

    /// Reads the server's clock if the last reading is old, or if the process's clocks have moved apart since. Returns true
    /// if it did.
    pub(crate) async fn keep(&self, nats: &Nats) -> Result<bool, NatsError> {
        let Reading { at, wall, .. } = *self.lock();
        let elapsed = at.elapsed();
        let step = system::now().duration_since(system::later(wall, elapsed));
        let is_current = elapsed < READING_INTERVAL && step.abs() <= MAX_STEP;
        if !is_current {
            self.read(nats).await?;
        }
        Ok(!is_current)
    }

    /// Reads the server's clock unless it was just read: a process that stood still may have lost time.
    pub(crate) async fn read_again(&self, nats: &Nats) -> Result<(), NatsError> {
        let at = self.lock().at;
        if at.elapsed() < SHORTEST_INTERVAL { Ok(()) } else { self.read(nats).await }
    }

    /// Lead of the process's wall clock over the server's at the last reading.
    pub(crate) fn ahead(&self) -> SignedDuration {
        let Reading { time, wall, .. } = *self.lock();
        wall.duration_since(time)
    }

    /// # Errors
    /// If the process's wall clock is too wrong for a worker to take commands.
    pub(crate) fn check(&self) -> Result<(), ClockError> {
        let ahead = self.ahead();
        if ahead.abs() > UNUSABLE_DIFFERENCE { Err(ClockError { ahead }) } else { Ok(()) }
    }

    /// Waits until a worker may take commands.
    pub(crate) async fn usable(&self) {
        while self.check().is_err() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
