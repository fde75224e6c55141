//! The clock and the random generator. No other module reads them directly; core code takes time and randomness as arguments.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fail::fail_point;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Time for which a long computation keeps other tasks waiting.
const SLICE: Duration = Duration::from_millis(1);

/// This machine's wall clock. Workers use the bus's time ([`crate::protocol::bus_clock`]) for what is stored.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
pub fn now() -> Timestamp {
    fail_point!("system_clock", |seconds| {
        let ahead =
            seconds.and_then(|seconds| seconds.parse().ok()).map_or(SignedDuration::ZERO, SignedDuration::from_secs);
        Timestamp::now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    });
    Timestamp::now()
}

/// Adds a duration. Returns the largest timestamp instead of overflowing.
#[must_use]
pub(crate) fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Random bytes from a cryptographic generator that the operating system seeds.
#[must_use]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes);
    bytes
}

/// A random number from 0 to 1.
#[must_use]
pub fn random_share() -> f64 {
    f64::from(u32::from_be_bytes(random())) / f64::from(u32::MAX)
}

/// A new id of 128 bits, base64url, 22 characters.
#[must_use]
pub fn random_id() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random::<16>())
}

/// Cuts a long computation into slices, between which other tasks run.
pub(crate) struct TimeSlice(Instant);

impl TimeSlice {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Lets other tasks run if the slice has ended. Call it between short parts of the computation.
    pub(crate) async fn pause(&mut self) {
        if self.0.elapsed() >= SLICE {
            tokio::task::yield_now().await;
            self.0 = Instant::now();
        }
    }
}
