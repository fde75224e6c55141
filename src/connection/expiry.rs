//! When a connection's token is near its expiry, and when it is refreshed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{OauthConnection, ResultRecord, Status, StoredConnection};

/// Shortest time between a scheduled refresh and the expiry, so that a refresh that fails can be tried again before the token
/// expires. Longer than the hold of a refresh whose worker died. Tokens that live for less than four minutes are refreshed at
/// half their lifetime.
pub(crate) const MIN_MARGIN: Duration = Duration::from_mins(2);
/// Interval of tries while no config fits. A worker that stores a config starts these refreshes at once; this interval covers
/// a worker that died before it did so.
const PAUSE: Duration = Duration::from_mins(15);

/// Adds a duration. Returns the largest timestamp instead of overflowing.
pub(super) fn later(time: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| time.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

impl StoredConnection {
    /// Time at which the schedule starts the connection's refresh again: to get a new token, to publish an event, or to end a
    /// token that nothing can renew. Whole seconds, because schedules drop the fraction and must not fire too early. Returns
    /// `None` if time changes nothing.
    #[must_use]
    #[doc(hidden)]
    pub fn next_due(&self, now: Timestamp, min_interval: Duration, jitter: f64) -> Option<Timestamp> {
        let connection = &self.connection;
        let end = connection.expiry.filter(|_| connection.access_token.is_some());
        let at = match (connection.status, &connection.refresh_token) {
            (Status::Revoked, _) => None,
            (Status::NeedsReauthorization, _) | (Status::Active, None) => end,
            (Status::Active, Some(_)) => {
                let failure = self.refresh_failure.as_ref();
                let refresh = match failure {
                    Some(failure) if failure.is_pause() => Some(later(now, PAUSE)),
                    Some(failure) if failure.next_try.is_some() => failure.next_try,
                    Some(_) | None => {
                        let by_age = self.refresh_by_age_at().map(|at| at.max(connection.soonest(now, min_interval)));
                        [connection.refresh_at(now, min_interval, jitter), by_age].into_iter().flatten().min()
                    }
                };
                let token_expired = end.filter(|_| failure.is_some_and(|failure| !failure.token_expired));
                [refresh, token_expired, self.next_warning()].into_iter().flatten().min()
            }
        }?;
        let at = at.max(later(now, Duration::from_secs(1)));
        let is_whole = at.subsec_nanosecond() == 0;
        Timestamp::from_second(if is_whole { at.as_second() } else { at.as_second().saturating_add(1) }).ok()
    }

    /// Returns the record with the result of the last login or refresh.
    #[must_use]
    pub(crate) fn last_result(&self) -> ResultRecord {
        let OauthConnection { sequence, modified, .. } = self.connection;
        self.grant.last_result.unwrap_or(ResultRecord { sequence, modified })
    }

    /// Returns true if the connection needs a schedule.
    #[must_use]
    pub(crate) fn has_due_time(&self) -> bool {
        self.next_due(Timestamp::UNIX_EPOCH, Duration::ZERO, 0.0).is_some()
    }
}

impl ResultRecord {
    /// Returns true if the record is younger than `age`. A record from the near future counts too, because clocks differ; one
    /// from the far future does not, or a clock that is slow would make it young for a long time.
    #[must_use]
    pub(crate) fn is_younger_than(self, age: Duration, now: Timestamp) -> bool {
        let modified = i64::try_from(self.modified).unwrap_or(i64::MAX);
        let apart = now.as_second().saturating_sub(modified).saturating_abs();
        apart < i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
    }
}

impl OauthConnection {
    /// Time of the next scheduled refresh: the margin before the expiry, and at least a second from now and
    /// `min_interval` after the record. The jitter (0 to 1) moves it earlier by up to a tenth of the margin, so that
    /// connections of one login wave are not refreshed together. Returns `None` if the connection is not active or has
    /// no refresh token or expiry.
    #[must_use]
    #[doc(hidden)]
    pub fn refresh_at(&self, now: Timestamp, min_interval: Duration, jitter: f64) -> Option<Timestamp> {
        let (expiry, _) = self.expiry.zip(self.refresh_token.as_ref()).filter(|_| self.status == Status::Active)?;
        let margin = self.margin();
        let earlier = margin + margin.mul_f64(0.1 * jitter.clamp(0.0, 1.0));
        let soonest = self.soonest(now, min_interval);
        Some(expiry.checked_sub(earlier).unwrap_or(soonest).max(soonest))
    }

    fn soonest(&self, now: Timestamp, min_interval: Duration) -> Timestamp {
        // A record from the future, of a server whose clock has gone back, counts as written now.
        let written = i64::try_from(self.modified).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        later(now, Duration::from_secs(1)).max(later(written.unwrap_or(now).min(now), min_interval))
    }

    /// Returns true if a refresh can replace the access token before it expires: the connection is active and has an
    /// expiry and a refresh token.
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
