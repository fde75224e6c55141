//! When a refresh token ends, and when a person is warned of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::StoredConnection;
use super::expiry::later;
use crate::integration::{LifetimeStart, RefreshTokenLifetime};
use crate::oauth::token::TokenSet;

/// Times before the end at which `reauthorization_due` is published.
const WARNINGS: [SignedDuration; 2] = [SignedDuration::from_hours(7 * 24), SignedDuration::from_hours(24)];
/// Difference up to which two ends are the same: answers state whole seconds, after a request of any duration.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(2);

pub(super) struct RefreshTokenEnd {
    pub(super) expiry: Option<Timestamp>,
    /// Time from which the lifetime counts.
    pub(super) since: Option<Timestamp>,
    /// True if a refresh does not move the end.
    pub(super) is_fixed: bool,
}

/// Returns the end of the refresh token after an answer with tokens. `old` is the connection before; `None` for a login, after
/// which a refresh is assumed to move the end.
pub(super) fn refresh_token_end(
    old: Option<&StoredConnection>,
    tokens: &TokenSet,
    config: Option<RefreshTokenLifetime>,
    now: Timestamp,
) -> RefreshTokenEnd {
    let old_end = old.and_then(|old| old.connection.refresh_token_expiry);
    let is_new = match old {
        Some(old) => tokens.refresh_token.is_some() && tokens.refresh_token != old.connection.refresh_token,
        None => true,
    };
    let from_use = config.is_some_and(|config| config.from == LifetimeStart::Use);
    let configured = config.filter(|_| is_new || from_use).map(|config| later(now, config.duration()));
    // A new token lives as long as the one before, if nothing states its lifetime.
    let repeated =
        old.filter(|_| is_new).and_then(StoredConnection::refresh_token_lifetime).map(|life| later(now, life));
    let expiry = tokens.refresh_token_expiry.or(configured).or(repeated).or(old_end);
    let has_moved = match (expiry, old_end) {
        (Some(new), Some(old)) => new.duration_since(old) > TOLERANCE,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let is_fixed = expiry.is_some() && !(is_new || from_use || has_moved);
    let since = if is_fixed { old.and_then(StoredConnection::refresh_token_since) } else { Some(now) };
    RefreshTokenEnd { expiry, since: since.filter(|_| expiry.is_some()), is_fixed }
}

impl StoredConnection {
    /// Time from which the refresh token's lifetime counts. Connections of earlier releases have only the time of their
    /// record.
    fn refresh_token_since(&self) -> Option<Timestamp> {
        let written = || Timestamp::from_second(i64::try_from(self.connection.modified).ok()?).ok();
        self.grant.refresh_token_since.or_else(written)
    }

    fn refresh_token_lifetime(&self) -> Option<Duration> {
        let end = self.connection.refresh_token_expiry?;
        Duration::try_from(end.duration_since(self.refresh_token_since()?)).ok()
    }

    /// Just before half of the refresh token's lifetime has passed, if a refresh moves its end.
    pub(super) fn refresh_by_age_at(&self) -> Option<Timestamp> {
        let life = self.refresh_token_lifetime().filter(|_| !self.grant.refresh_token_end_is_fixed)?;
        // Schedules are rounded up to whole seconds.
        let half = SignedDuration::try_from(life / 2).ok()?.saturating_add(SignedDuration::from_secs(1));
        self.connection.refresh_token_expiry?.checked_sub(half).ok()
    }

    /// Time of the next `reauthorization_due` event.
    pub(super) fn next_warning(&self) -> Option<Timestamp> {
        let end = self.connection.refresh_token_expiry.filter(|_| self.grant.refresh_token_end_is_fixed)?;
        let last = self.grant.reauthorization_warned.unwrap_or(Timestamp::MIN);
        WARNINGS.into_iter().filter_map(|before| end.checked_sub(before).ok()).find(|at| *at > last)
    }
}
