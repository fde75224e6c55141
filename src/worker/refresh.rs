//! `refresh`: a connection gets a new access token (RFC 6749 §6), at the place where the old one was issued.
//!
//! At most one at a time: the queue holds one refresh of a connection. A refresh token may be spent by being sent, so
//! the record is written with patience, and only after it is anything else done.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use super::job::Job;
use super::settle;
use super::tokens::{self, NoTokens};
use super::{Service, reauthorize};
use crate::command::Answer;
use crate::connection::{OauthConnection, RefreshFailure, Status, StoredConnection};
use crate::event::{Event, EventKind};
use crate::integration::IntegrationOauthConfig;
use crate::nats::record;
use crate::nats::schedule::{self, Due};
use crate::oauth::error::ErrorKind;
use crate::oauth::token::{self, RefreshGrant, RequestError, TokenError, TokenSet};
use crate::outcome::backoff_refresh;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system;

/// How long a refresh that comes again is held back, once. A refresh token must not be sent twice, and whoever had the
/// command before may not be dead but cut off from the bus: it still waits for the provider, or for its record to be
/// written.
const HOLD: Duration = Duration::from_secs(15);
/// What the audit log calls the clock.
const CLOCK: &str = "schedule";

pub(super) async fn run(
    service: &Service,
    job: &Job,
    actor: Option<&str>,
    sequence: u64,
) -> Result<Answer, StoreError> {
    let Some(key) = job.subject.key() else { return Ok(Answer::error(400, "no connection in the subject")) };
    let newest = record::last(&service.store.nats, &key.subject()).await?;
    let actor_name = actor.unwrap_or(CLOCK);
    if let Some(record) = newest.as_ref().filter(|record| record::is_work_of(record, &job.id)) {
        info!(sequence = record.sequence, "record is there already; going on behind it");
        return go_on(service, job, &key, record, actor_name).await;
    }
    if job.is_first_repetition() {
        return Err(StoreError::Held(HOLD));
    }
    let Some(stored) = current(service, &key, newest.as_ref()).await? else {
        return Ok(Answer::error(404, "no connection of that integration_id and connection_id"));
    };
    let refresh =
        Refresh { service, job, key: &key, actor: actor_name, replaces: newest.map_or(0, |record| record.sequence) };
    if let Some(answer) = refresh.is_needless(&stored, actor.is_some(), sequence)? {
        return Ok(answer);
    }
    refresh.run(stored).await
}

/// The connection as it is kept, after whatever its record says and KV does not yet.
pub(super) async fn current(
    service: &Service,
    key: &ConnectionKey,
    newest: Option<&StreamMessage>,
) -> Result<Option<StoredConnection>, StoreError> {
    let stored = service.store.stored_connection(key).await?;
    let behind =
        newest.filter(|record| stored.as_ref().is_none_or(|stored| stored.connection.sequence < record.sequence));
    let Some(record) = behind else { return Ok(stored) };
    let newer = service.store.connection_of(key, record)?;
    if newer.connection.status == Status::Revoked {
        return Ok(None);
    }
    service.store.put_connection(key, newer.clone()).await?;
    Ok(Some(newer))
}

async fn go_on(
    service: &Service,
    job: &Job,
    key: &ConnectionKey,
    record: &StreamMessage,
    actor: &str,
) -> Result<Answer, StoreError> {
    let status = service.store.connection_of(key, record)?.connection.status;
    let kind = if status == Status::Active { EventKind::Refreshed } else { EventKind::NeedsReauthorization };
    settle::answer(&settle::settle(service, job, key, record, (kind, actor, None)).await?)
}

struct Refresh<'a> {
    service: &'a Service,
    job: &'a Job,
    key: &'a ConnectionKey,
    actor: &'a str,
    replaces: u64,
}

impl Refresh<'_> {
    /// The answer when nothing has to be asked of the provider.
    fn is_needless(&self, stored: &StoredConnection, asked: bool, sequence: u64) -> Result<Option<Answer>, StoreError> {
        let StoredConnection { connection, refresh_failure, .. } = stored;
        let (now, min_interval) = (system::now(), self.service.config.refresh.min_interval);
        if connection.status != Status::Active {
            return Ok(Some(Answer::error(400, "the connection needs reauthorization: log in again")));
        }
        if connection.refresh_token.is_none() {
            return Ok(Some(Answer::error(
                400,
                "the provider gave no refresh token: log in again when the token ends",
            )));
        }
        // Somebody else was faster: what they got is the answer, be it a token or a failure.
        if connection.sequence > sequence || (asked && connection.is_younger_than(min_interval, now)) {
            return settle::answer(connection).map(Some);
        }
        let failed = refresh_failure.as_ref().filter(|failure| asked && now < failure.until);
        let wait = |until: Timestamp| Duration::try_from(until.duration_since(now)).ok();
        Ok(failed.map(|failure| Answer::error(failure.status, &failure.reason).after(wait(failure.until))))
    }

    async fn run(&self, stored: StoredConnection) -> Result<Answer, StoreError> {
        let Some(config) = self.service.store.config(&self.key.integration).await? else {
            return self.pause(&stored.connection).await;
        };
        let Some(refresh_token) = &stored.connection.refresh_token else { return settle::answer(&stored.connection) };
        let grant = RefreshGrant { refresh_token, issued_at: &stored.issued_at };
        match self.ask(&config, &grant).await {
            Ok(tokens) => {
                fail_point!("after_refresh");
                self.replace(stored, tokens).await
            }
            Err(NoTokens::Request(RequestError::IssuedElsewhere)) => self.give_up(stored, "config_changed").await,
            Err(NoTokens::Refused(TokenError::Oauth(code), _)) if code.kind() == ErrorKind::InvalidGrant => {
                self.give_up(stored, code.as_str()).await
            }
            Err(error) => self.put_off(&stored, &error).await,
        }
    }

    async fn ask(&self, config: &IntegrationOauthConfig, grant: &RefreshGrant<'_>) -> Result<TokenSet, NoTokens> {
        let build = |auth: &token::ClientAuth| token::refresh_request(config, grant, auth);
        tokens::ask(self.service, config, &grant.issued_at.variables, build).await
    }

    /// The new state: a rotated refresh token replaces the old one, an absent one keeps it.
    async fn replace(&self, stored: StoredConnection, tokens: TokenSet) -> Result<Answer, StoreError> {
        let old = stored.connection;
        let mut new = OauthConnection::issued(self.key.subject(), tokens);
        new.refresh_token = new.refresh_token.or(old.refresh_token);
        new.scope = new.scope.or(old.scope);
        let kept = old.metadata.into_iter().filter(|(name, _)| !new.metadata.contains_key(name)).collect::<Vec<_>>();
        new.metadata.extend(kept);
        let new = StoredConnection { connection: new, ..stored };
        let Some(record) = settle::write(self.service, self.job, self.key, new, self.replaces).await? else {
            return self.newer().await;
        };
        fail_point!("after_refresh_record");
        let told = (EventKind::Refreshed, self.actor, None);
        settle::answer(&settle::settle(self.service, self.job, self.key, &record, told).await?)
    }

    /// The provider takes the refresh token no more. If another writer has brought a new one since, that one counts.
    async fn give_up(&self, stored: StoredConnection, reason: &str) -> Result<Answer, StoreError> {
        warn!(reason, "connection needs reauthorization");
        let spent = StoredConnection { connection: reauthorize(stored.connection), ..stored };
        let Some(record) = settle::write(self.service, self.job, self.key, spent, self.replaces).await? else {
            return self.newer().await;
        };
        let told = (EventKind::NeedsReauthorization, self.actor, Some(reason));
        settle::settle(self.service, self.job, self.key, &record, told).await?;
        Ok(Answer::error(400, reason))
    }

    /// What another writer has brought meanwhile.
    async fn newer(&self) -> Result<Answer, StoreError> {
        let newest = record::last(&self.service.store.nats, &self.key.subject()).await?;
        match current(self.service, self.key, newest.as_ref()).await? {
            Some(stored) => settle::answer(&stored.connection),
            None => Ok(Answer::error(404, "the connection was deleted")),
        }
    }

    /// Tries again later, as a new schedule: a waiting retry holds no place in any queue. What callers ask for in
    /// between makes the wait no longer.
    async fn put_off(&self, stored: &StoredConnection, error: &NoTokens) -> Result<Answer, StoreError> {
        let (now, connection) = (system::now(), &stored.connection);
        let failures = stored.refresh_failure.as_ref().map_or(0, |failure| failure.count);
        let count = if self.actor == CLOCK { failures.saturating_add(1) } else { failures.max(1) };
        let asked_to_wait = error.retry_after().unwrap_or_default();
        let wait = backoff_refresh(count, system::random_share()).max(asked_to_wait);
        warn!(reason = error.reason(), "refresh failed; trying again in {wait:?}");
        let until = later(now, self.service.config.refresh.min_interval.max(asked_to_wait));
        let failure = RefreshFailure { count, until, status: error.status(), reason: error.reason().to_owned() };
        self.service.store.put_failure(self.key, connection.sequence, &failure).await?;
        self.again_in(connection, wait).await?;
        self.tell_failure(error.reason()).await?;
        Ok(Answer::error(error.status(), &error.to_string()).after(error.retry_after()))
    }

    /// Without a config nothing can be refreshed, but the config may come back.
    async fn pause(&self, connection: &OauthConnection) -> Result<Answer, StoreError> {
        self.again_in(connection, Duration::from_mins(15)).await?;
        self.tell_failure("no_config").await?;
        Ok(Answer::error(400, "the integration has no config any more; the connection is not refreshed"))
    }

    async fn again_in(&self, connection: &OauthConnection, wait: Duration) -> Result<(), StoreError> {
        let at = later(system::now(), wait);
        let due = Due { sequence: connection.sequence };
        Ok(schedule::set(&self.service.store.nats, self.key, at, due).await?)
    }

    async fn tell_failure(&self, reason: &str) -> Result<(), StoreError> {
        let mut event = Event::about(&self.job.subject, EventKind::RefreshFailed, self.actor, system::now());
        event.reason = Some(reason);
        self.job.tell(&self.service.store.nats, &event).await
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}
