//! The life of a grant: how answers of the provider, callers and time change a connection.
//!
//! Pure functions; `worker/commands/refresh.rs` carries out what they return. [`begin`] decides what a refresh does before
//! anything is sent, [`renewed`] and [`conclude`] what follows from the answer. The time of the next refresh follows from the resulting state
//! alone ([`StoredConnection::next_due`]), so any worker can set a lost schedule again.
//!
//! - An access token that is still valid is never removed.
//! - A dead grant ends after two refusals, 30 s or more apart, or after one if the access token is at its end.
//! - Failures that say nothing about the grant end it when the access token has expired and `refresh.give_up_after` has
//!   passed. Failures that blame the provider or the integration never do.

#[cfg(any(test, feature = "internals"))]
pub(crate) mod model;
#[cfg(test)]
mod properties;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::expiry::later;
use super::{CONFIG_CHANGED, GrantFacts, INTERRUPTED, NO_CONFIG, OauthConnection, RefreshFailure, Status};
use super::{StoredConnection, refresh_token_end};
use crate::event::EventKind;
use crate::integration::{IssuedAt, RefreshTokenLifetime};
use crate::oauth::token::TokenSet;
use crate::outcome::{backoff_explicit, backoff_refresh};
use crate::secret::Secret;

/// Reason of [`Status::NeedsReauthorization`]: the access token has expired and there is no refresh token.
const EXPIRED: &str = "expired";
/// Reason of [`Status::NeedsReauthorization`]: refreshes failed for too long.
const REFRESH_FAILING: &str = "refresh_failing";
/// Validity of the access token up to which one refusal of the grant suffices: a second look would come too late.
const SECOND_LOOK_MIN_VALID: SignedDuration = SignedDuration::from_mins(2);
/// Part of the access token's remaining validity after which the provider is asked again.
const SECOND_LOOK_SHARE: i32 = 10;
/// Shortest wait before the second look. A refusal before then may have the same short-lived cause as the first one.
const SECOND_LOOK_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// Longest wait before the second look, also for access tokens without an expiry.
const SECOND_LOOK_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// Unclear failures before a connection is given up. Fewer may come from one short disturbance.
const UNCLEAR_FAILURES: u32 = 5;
/// HTTP status for a caller whose try comes too early (RFC 6585).
const TOO_MANY_REQUESTS: u16 = 429;

/// Meaning of a failed refresh for the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// `invalid_grant`: the provider does not accept the refresh token.
    DeadGrant,
    /// The provider does not accept the integration's own credentials.
    ClientRefused,
    /// The provider is unreachable, overloaded or broken.
    Temporary,
    /// Every other answer.
    Unclear,
    /// Nothing was sent: the integration has no config, or one of another client or origin.
    Paused,
}

/// A refresh that returned no tokens.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub meaning: Meaning,
    /// For events, from a fixed list.
    pub reason: String,
    /// HTTP status for callers.
    pub status: u16,
    /// Shortest wait that the provider asks for.
    pub retry_after: Option<Duration>,
}

/// Settings of the worker and of the integration that the rules depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub min_interval: Duration,
    pub give_up_after: Duration,
    /// Lifetime in seconds of access tokens whose answers have none.
    pub default_expires_in: Option<u32>,
    pub refresh_token_lifetime: Option<RefreshTokenLifetime>,
}

/// When, and for whom, a refresh runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub now: Timestamp,
    /// From 0 to 1.
    pub jitter: f64,
    /// False if the refresh was due.
    pub by_caller: bool,
    /// True if an earlier delivery of the command may have sent the refresh token. A due refresh must then be held, even if a
    /// stored failure says to wait. A record would have this command's id, and that delivery would take the record for its
    /// own, with its new tokens in it.
    pub may_be_sent: bool,
}

/// The decision before a refresh sends anything.
#[derive(Debug)]
pub(crate) enum Begin<'a> {
    Send(&'a Secret),
    AnswerFromState,
    /// The last failure is the answer.
    Wait(RefreshFailure),
    /// Only a login helps: the connection has no refresh token.
    NoRefreshToken,
    /// The state changes without a request.
    Change(Box<Change>),
}

/// A new state, and the event that reports it.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Needs a record: the tokens or the status change.
    Record(StoredConnection),
    /// Changes the notes in KV only.
    Notes { stored: StoredConnection, event: Option<EventKind> },
}

/// A login's new grant.
pub(crate) struct NewGrant {
    /// The token subject.
    pub subject: String,
    pub issued_at: IssuedAt,
    pub login_id: String,
}

/// Makes an active connection from a login's tokens.
pub(crate) fn connected(grant: NewGrant, tokens: TokenSet, now: Timestamp, rules: &Rules) -> StoredConnection {
    let NewGrant { subject, issued_at, login_id } = grant;
    let tokens = tokens.or_lifetime(rules.default_expires_in.map(i64::from), now);
    let end = refresh_token_end(None, &tokens, rules.refresh_token_lifetime, now);
    let mut connection = OauthConnection::issued(subject, tokens);
    connection.refresh_token_expiry = end.expiry.filter(|_| connection.refresh_token.is_some());
    let refresh_token_since = end.since.filter(|_| connection.refresh_token_expiry.is_some());
    let (grant, unknown) = (GrantFacts { refresh_token_since, ..GrantFacts::default() }, serde_json::Map::new());
    StoredConnection { connection, issued_at, login_id, grant, refresh_failure: None, unknown }
}

/// Decides what a refresh does. `sequence` is that of the record for which it was requested.
pub(crate) fn begin<'a>(stored: &'a StoredConnection, sequence: u64, moment: &Moment, rules: &Rules) -> Begin<'a> {
    let StoredConnection { connection, refresh_failure, .. } = stored;
    let Moment { now, by_caller, .. } = *moment;
    let may_write = |change: &Change| {
        let is_record = matches!(change, Change::Record(_));
        !(is_record && moment.may_be_sent && connection.refresh_token.is_some())
    };
    if let Some(change) = overdue(stored, now, by_caller).filter(may_write) {
        return Begin::Change(Box::new(change));
    }
    let Some(refresh_token) = &connection.refresh_token else {
        return if by_caller { Begin::NoRefreshToken } else { Begin::AnswerFromState };
    };
    // A newer result is the answer, and so is a young one: otherwise many callers at once would lead to as many token
    // requests.
    let result = stored.last_result();
    if result.sequence > sequence {
        return Begin::AnswerFromState;
    }
    match connection.status {
        Status::Active if result.is_younger_than(rules.min_interval, now) => return Begin::AnswerFromState,
        Status::Active => {}
        Status::NeedsReauthorization if by_caller => {}
        Status::NeedsReauthorization | Status::Revoked => return Begin::AnswerFromState,
    }
    // The worker answers an interrupted refresh itself.
    let failure = match (refresh_failure, connection.status) {
        (Some(failure), _) if failure.reason == INTERRUPTED => return Begin::Send(refresh_token),
        (Some(failure), _) => Some(failure.clone()),
        (None, Status::NeedsReauthorization) => Some(first_wait(stored, now)),
        (None, _) => None,
    };
    match failure {
        Some(failure) if by_caller && failure.until > now => Begin::Wait(failure),
        _ if moment.may_be_sent => Begin::Send(refresh_token),
        // A schedule of an earlier state, or one that was set for an event.
        Some(failure) if !by_caller && !failure.is_pause() && failure.next_try.is_some_and(|next| next > now) => {
            Begin::AnswerFromState
        }
        Some(_) | None => Begin::Send(refresh_token),
    }
}

/// The refusal that ended the grant counts as a try, so the first explicit one waits for a minute.
fn first_wait(stored: &StoredConnection, now: Timestamp) -> RefreshFailure {
    let written =
        i64::try_from(stored.last_result().modified).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    // A record from the future, of a server whose clock has gone back, counts as written now.
    let until = later(written.unwrap_or(now).min(now), backoff_explicit(0));
    let reason = stored.connection.status_reason.clone().unwrap_or_default();
    RefreshFailure::new(&reason, TOO_MANY_REQUESTS, until)
}

/// Returns the change that the passing of time alone has caused. Callers get only the end of a token that nothing can renew.
fn overdue(stored: &StoredConnection, now: Timestamp, by_caller: bool) -> Option<Change> {
    let connection = &stored.connection;
    let has_expired = connection.expiry.is_some_and(|expiry| expiry <= now);
    match connection.status {
        Status::Active if connection.refresh_token.is_none() => {
            has_expired.then(|| ended(stored.clone(), EXPIRED, now))
        }
        Status::Active if by_caller => None,
        Status::Active => {
            if let Some(failure) =
                stored.refresh_failure.as_ref().filter(|failure| has_expired && !failure.token_expired)
            {
                let failure = RefreshFailure { token_expired: true, ..failure.clone() };
                let stored = StoredConnection { refresh_failure: Some(failure), ..stored.clone() };
                return Some(Change::Notes { stored, event: Some(EventKind::TokenExpired) });
            }
            stored.next_warning().filter(|at| *at <= now).map(|_| {
                let mut stored = stored.clone().keeping_result();
                stored.grant.reauthorization_warned = Some(now);
                Change::Record(stored.with_event(EventKind::ReauthorizationDue))
            })
        }
        Status::NeedsReauthorization if !by_caller && has_expired && connection.access_token.is_some() => {
            let stored = without_access_token(stored.clone().keeping_result());
            Some(Change::Record(stored.with_event(EventKind::TokenExpired)))
        }
        Status::NeedsReauthorization | Status::Revoked => None,
    }
}

/// Returns the state after a refresh without tokens.
pub(crate) fn conclude(stored: &StoredConnection, failed: &Failed, moment: &Moment, rules: &Rules) -> Change {
    let now = moment.now;
    let mut failure = noted(stored, failed, moment, rules);
    if stored.connection.status == Status::Active {
        let ends_as = match failed.meaning {
            Meaning::DeadGrant if failure.refused(stored, failed, now) => Some(failed.reason.as_str()),
            Meaning::Unclear if failure.is_unclear_for_too_long(stored, now, rules) => Some(REFRESH_FAILING),
            Meaning::DeadGrant | Meaning::Unclear | Meaning::ClientRefused | Meaning::Temporary | Meaning::Paused => {
                None
            }
        };
        if let Some(reason) = ends_as {
            return ended(stored.clone(), reason, now);
        }
    }
    let is_repeated_pause =
        stored.refresh_failure.as_ref().is_some_and(|old| old.is_pause() && old.reason == failed.reason);
    let event = (!is_repeated_pause).then_some(EventKind::RefreshFailed);
    Change::Notes { stored: StoredConnection { refresh_failure: Some(failure), ..stored.clone() }, event }
}

/// The note of a failed refresh: when callers and the schedule may try again. Callers' tries of an active connection do not
/// count, or they would make the wait longer.
fn noted(stored: &StoredConnection, failed: &Failed, moment: &Moment, rules: &Rules) -> RefreshFailure {
    let Moment { now, jitter, by_caller, may_be_sent: _ } = *moment;
    let old = stored.refresh_failure.clone();
    let mut failure = old.unwrap_or_else(|| RefreshFailure::new("", 0, now));
    let retry_after = failed.retry_after.unwrap_or_default();
    (failure.reason, failure.status) = (failed.reason.clone(), failed.status);
    if failed.meaning == Meaning::Paused {
        (failure.until, failure.next_try) = (now, None);
    } else if stored.connection.status == Status::Active {
        failure.since = failure.since.or(Some(now));
        failure.count = if by_caller { failure.count.max(1) } else { failure.count.saturating_add(1) };
        failure.until = later(now, rules.min_interval.max(retry_after));
        failure.next_try = Some(later(now, backoff_refresh(failure.count, jitter).max(retry_after)));
    } else {
        failure.count = failure.count.saturating_add(1);
        failure.until = later(now, backoff_explicit(failure.count).max(retry_after));
        (failure.status, failure.next_try) = (TOO_MANY_REQUESTS, None);
    }
    failure
}

impl RefreshFailure {
    /// Returns true if refreshes wait for a config that fits.
    #[must_use]
    pub(crate) fn is_pause(&self) -> bool {
        self.reason == NO_CONFIG || self.reason == CONFIG_CHANGED
    }

    /// Notes a refusal of the grant. Returns true if it ends the grant; otherwise callers get it until the second look.
    fn refused(&mut self, stored: &StoredConnection, failed: &Failed, now: Timestamp) -> bool {
        let left = stored.connection.valid_for(now);
        let (first, wait) = match self.refused_at {
            None if left.is_none_or(|left| left > SECOND_LOOK_MIN_VALID) => {
                let wait = left.map_or(SECOND_LOOK_WITHIN, |left| left / SECOND_LOOK_SHARE);
                (now, wait.clamp(SECOND_LOOK_AFTER, SECOND_LOOK_WITHIN))
            }
            Some(first) if now.duration_since(first) < SECOND_LOOK_AFTER => (first, SECOND_LOOK_AFTER),
            None | Some(_) => return true,
        };
        // A longer wait, which the provider asks for, ends with the access token: nodes must not wait for the end of a dead
        // grant without a token.
        let asked = SignedDuration::try_from(failed.retry_after.unwrap_or_default()).unwrap_or_default();
        let asked = left.map_or(asked, |left| asked.min(left));
        let next = |from: Timestamp, wait| from.checked_add(wait).unwrap_or(Timestamp::MAX);
        let at = next(first, wait).max(next(now, asked));
        (self.refused_at, self.until, self.next_try) = (Some(first), at, Some(at));
        false
    }

    /// Counts an unclear failure. Returns true if it ends the grant.
    fn is_unclear_for_too_long(&mut self, stored: &StoredConnection, now: Timestamp, rules: &Rules) -> bool {
        self.unclear = self.unclear.saturating_add(1);
        let has_expired = stored.connection.valid_for(now).is_some_and(|left| !left.is_positive());
        let has_lasted = later(self.since.unwrap_or(now), rules.give_up_after) <= now;
        has_expired && has_lasted && self.unclear >= UNCLEAR_FAILURES
    }
}

/// The connection with its new tokens. Keeps the old refresh token, scope and lifetime if the answer has none, and metadata
/// that the answer does not replace.
pub(crate) fn renewed(stored: StoredConnection, tokens: TokenSet, now: Timestamp, rules: &Rules) -> StoredConnection {
    let StoredConnection { connection: old, mut grant, .. } = stored.clone();
    let tokens = tokens.or_lifetime(old.expires_in.or(grant.access_token_lifetime), now);
    let tokens = tokens.or_lifetime(rules.default_expires_in.map(i64::from), now);
    let end = refresh_token_end(Some(&stored), &tokens, rules.refresh_token_lifetime, now);
    let mut new = OauthConnection::issued(old.subject, tokens);
    // After an upgrade, the token that was upgraded renews nothing.
    new.refresh_token = new.refresh_token.or(old.refresh_token.filter(|_| !grant.upgrade_missing));
    grant.upgrade_missing = false;
    new.refresh_token_expiry = end.expiry;
    new.scope = new.scope.or(old.scope);
    // A connection belongs to the account of its login.
    new.identity = old.identity.or(new.identity);
    for (name, value) in old.metadata {
        new.metadata.entry(name).or_insert(value);
    }
    (grant.access_token_lifetime, grant.record_event, grant.last_result) = (None, None, None);
    grant.refresh_token_since = end.since;
    // Warnings whose time passed before the end was known to be fixed are not given any more.
    grant.reauthorization_warned = if end.is_fixed { grant.reauthorization_warned.or(Some(now)) } else { None };
    grant.refresh_token_end_is_fixed = end.is_fixed;
    StoredConnection { connection: new.without_tokens_in_facts(), grant, refresh_failure: None, ..stored }
}

/// The connection after its grant has ended. The access token stays while it is valid; the refresh token stays for explicit
/// tries and for the revocation.
fn ended(stored: StoredConnection, reason: &str, now: Timestamp) -> Change {
    let has_expired = stored.connection.expiry.is_some_and(|expiry| expiry <= now);
    let mut stored = if has_expired { without_access_token(stored) } else { stored };
    stored.connection.status = Status::NeedsReauthorization;
    stored.connection.status_reason = Some(reason.to_owned());
    (stored.refresh_failure, stored.grant.last_result) = (None, None);
    Change::Record(stored.with_event(EventKind::NeedsReauthorization))
}

fn without_access_token(mut stored: StoredConnection) -> StoredConnection {
    let connection = &mut stored.connection;
    stored.grant.access_token_lifetime = connection.expires_in.or(stored.grant.access_token_lifetime);
    (connection.access_token, connection.expiry, connection.expires_in) = (None, None, None);
    stored
}

impl OauthConnection {
    /// Remaining validity of the access token; `None` without an expiry.
    fn valid_for(&self, now: Timestamp) -> Option<SignedDuration> {
        self.expiry.map(|expiry| expiry.duration_since(now))
    }
}

impl StoredConnection {
    /// The event that reports the connection's record.
    #[must_use]
    pub(crate) fn event(&self) -> EventKind {
        let name = self.grant.record_event.as_deref().map(serde_json::Value::from);
        let by_status = if self.connection.status == Status::Active {
            EventKind::Refreshed
        } else {
            EventKind::NeedsReauthorization
        };
        name.and_then(|name| serde_json::from_value(name).ok()).unwrap_or(by_status)
    }

    /// Prepares a record that reports only that time has passed: callers of a refresh do not get it as their answer.
    fn keeping_result(mut self) -> Self {
        self.grant.last_result = Some(self.last_result());
        self
    }

    fn with_event(mut self, event: EventKind) -> Self {
        self.grant.record_event = Some(event.as_str().to_owned());
        self
    }
}

#[cfg(test)]
mod tests;
