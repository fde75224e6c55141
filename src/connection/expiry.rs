//! When a connection's token is near its expiry, and when it is refreshed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{OauthConnection, Status};

/// Shortest time between a scheduled refresh and the expiry, so that a refresh that fails can be tried again before the token
/// expires. Longer than the hold of a refresh whose worker died. Tokens that live for less than four minutes are refreshed at
/// half their lifetime.
pub(crate) const MIN_MARGIN: Duration = Duration::from_mins(2);

impl OauthConnection {
    /// Time of the next scheduled refresh: the margin before the expiry, and at least a second from now and `min_interval` after
    /// the record. The jitter (0 to 1) moves it earlier by up to a tenth of the margin, so that connections of one login wave
    /// are not refreshed together. Returns `None` if the connection is not active or has no refresh token or expiry.
    #[must_use]
    #[doc(hidden)]
    pub fn refresh_at(&self, now: Timestamp, min_interval: Duration, jitter: f64) -> Option<Timestamp> {
        let (expiry, _) = self.expiry.zip(self.refresh_token.as_ref()).filter(|_| self.status == Status::Active)?;
        let margin = self.margin();
        let earlier = margin + margin.mul_f64(0.1 * jitter.clamp(0.0, 1.0));
        let after = |time: Timestamp, wait: Duration| {
            SignedDuration::try_from(wait).ok().and_then(|wait| time.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
        };
        // A record from the future, of a server whose clock has gone back, counts as written now.
        let written = i64::try_from(self.modified).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let soonest = after(now, Duration::from_secs(1)).max(after(written.unwrap_or(now).min(now), min_interval));
        Some(expiry.checked_sub(earlier).unwrap_or(soonest).max(soonest))
    }

    /// Returns true if the connection is refreshed on a schedule: it is active and has an expiry and a refresh token.
    #[must_use]
    pub(crate) fn is_kept_alive(&self) -> bool {
        self.status == Status::Active && self.expiry.is_some() && self.refresh_token.is_some()
    }

    /// Remaining validity that a reader gets if it does not ask for any: `wish`, but at most half the token's lifetime.
    /// With more, every read would refresh a short-lived token.
    #[must_use]
    pub(crate) fn min_valid_default(&self, wish: Duration) -> Duration {
        wish.min(self.lifetime() / 2)
    }

    /// Returns true if the access token expires within `min_valid`, or within half the margin if that is not given. Half,
    /// so that the scheduled refresh has time to finish first.
    #[must_use]
    pub(crate) fn is_near_expiry(&self, now: Timestamp, min_valid: Option<Duration>) -> bool {
        let needed = min_valid.unwrap_or_else(|| self.margin() / 2);
        self.expiry.is_some_and(|expiry| expiry.checked_sub(needed).unwrap_or(Timestamp::MIN) <= now)
    }

    /// Time from which the access token is near its expiry: half the margin before it. Returns `None` without a token or an
    /// expiry.
    #[must_use]
    pub(crate) fn near_expiry_at(&self) -> Option<Timestamp> {
        let (expiry, _) = self.expiry.zip(self.access_token.as_ref())?;
        expiry.checked_sub(self.margin() / 2).ok()
    }

    /// Returns true if the record is younger than `age`. A record from the near future counts too, because clocks differ; one
    /// from the far future does not, or a clock that is slow would make it young for a long time.
    #[must_use]
    pub(crate) fn is_younger_than(&self, age: Duration, now: Timestamp) -> bool {
        let modified = i64::try_from(self.modified).unwrap_or(i64::MAX);
        let apart = now.as_second().saturating_sub(modified).saturating_abs();
        apart < i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
    }

    /// Time between a scheduled refresh and the expiry: a tenth of the lifetime, at least [`MIN_MARGIN`], and at most half the
    /// lifetime.
    fn margin(&self) -> Duration {
        let lifetime = self.lifetime();
        MIN_MARGIN.max(lifetime / 10).min(lifetime / 2)
    }

    fn lifetime(&self) -> Duration {
        self.expires_in.and_then(|seconds| u64::try_from(seconds).ok()).map_or(Duration::ZERO, Duration::from_secs)
    }
}
