//! `refresh`: a connection gets a new access token (RFC 6749 §6), at the place where the old one was issued.
//!
//! At most one at a time: the queue holds one refresh of a connection. A refresh token may be spent by being sent, so
//! the record is written with patience, and only after it is anything else done.

use std::time::{Duration, Instant};

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use jiff::Timestamp;
use tracing::{info, warn};

use crate::command::WorkerReply;
use crate::connection::{
    LEAST_MARGIN, NEEDS_LOGIN, NO_CONFIG, OauthConnection, RefreshFailure, Status, StoredConnection,
};
use crate::event::{Event, EventKind};
use crate::integration::IntegrationOauthConfig;
use crate::oauth::error::ErrorKind;
use crate::oauth::token::{self, RefreshGrant, RequestError, TokenError, TokenSet};
use crate::outcome::backoff_refresh;
use crate::protocol::schedule::{self, Due};
use crate::protocol::{records, topology};
use crate::provider::TOTAL_TIMEOUT;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system::{self, later};
use crate::worker::apply;
use crate::worker::background::refresh_limiter::{Place, Ticket};
use crate::worker::commands::revoke;
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::provider_calls::{self, NoTokens};
use crate::worker::restart::RESTART_PAUSE;
use crate::worker::rpc::status::{self, Failure};

/// How long a refresh that comes again is held back. A refresh token must not be sent twice, and whoever had the command
/// before may not be dead but cut off from the bus. It sent nothing later than [`topology::ACK_WAIT`] after it read the
/// record, so not after the command was given to somebody else; from then on it waits for the provider, then for its
/// record to be written, and no longer.
const HOLD: Duration = TOTAL_TIMEOUT.saturating_add(records::LONGEST_WRITE);
// A refresh that was due, and whose worker died at once, is sent again before the token ends.
const _: () = assert!(topology::ACK_WAIT.saturating_add(HOLD).as_millis() < LEAST_MARGIN.as_millis());
/// Why a refresh is held back, in notes and events.
const INTERRUPTED: &str = "refresh_interrupted";
/// What the audit log calls the clock.
const CLOCK: &str = "schedule";
/// How long a connection without a config waits before it is looked at again, if nobody says that the config is back.
const PAUSE: Duration = Duration::from_mins(15);
/// Failures in a row that a refresh given up counts for.
const GIVEN_UP: u32 = 8;

/// What set a refresh off.
pub(in crate::worker) struct Trigger {
    /// Whose wish it is; none when it was due.
    pub(in crate::worker) actor: Option<String>,
    /// The sequence it is meant for.
    pub(in crate::worker) sequence: u64,
    /// Whether its turn was booked.
    pub(in crate::worker) booked: bool,
}

pub(in crate::worker) async fn run(context: &Context, job: &Job, trigger: &Trigger) -> Result<WorkerReply, StoreError> {
    let Some(key) = job.subject.key() else { return Ok(Failure::BadRequest.answer("no connection in the subject")) };
    let began = Instant::now();
    // From the leader: with the bus away nothing is sent, for nothing could be kept.
    let newest = records::last(&context.nats, &key.subject()).await?;
    let actor_name = trigger.actor.as_deref().unwrap_or(CLOCK);
    if let Some(record) = newest.as_ref().filter(|record| records::is_work_of(record, &job.id)) {
        info!(sequence = record.sequence, "record is there already; going on behind it");
        return go_on(context, job, &key, record, actor_name).await;
    }
    let Some(stored) = current(context, &key, newest.as_ref()).await? else {
        return Ok(Failure::NotFound.answer("no connection with that integration_id and connection_id"));
    };
    let replaces = newest.map_or(0, |record| record.sequence);
    let refresh = Refresh { context, job, key: &key, actor: actor_name, trigger, replaces, began };
    if let Some(answer) = refresh.is_needless(&stored)? {
        // A schedule of an older state may have taken the place of the newer one's, and was the only one.
        if trigger.actor.is_none() {
            apply::plan(context, &key, &stored.connection).await?;
        }
        return Ok(answer);
    }
    match refresh.held_until(&stored) {
        Some(until) => refresh.hold(&stored, until).await,
        None => refresh.run(stored).await,
    }
}

/// A refresh that was delivered too often: it is due again later, and an event says so.
pub(in crate::worker) async fn given_up(context: &Context, job: &Job) -> Result<(), StoreError> {
    let Some(key) = job.subject.key() else { return Ok(()) };
    let record = records::last(&context.nats, &key.subject()).await?;
    if let Some(record) = &record {
        let at = later(system::now(), backoff_refresh(GIVEN_UP, system::random_share()));
        schedule::set(&context.nats, &key, at, Due { sequence: record.sequence, booked: false }).await?;
    }
    let mut event = Event::about(&job.subject, EventKind::RefreshFailed, CLOCK, system::now());
    (event.reason, event.sequence) = (Some("given_up"), record.map(|record| record.sequence));
    job.publish_event(&context.nats, &event).await
}

/// The connection as it is kept, after whatever its record says and KV does not yet.
pub(in crate::worker) async fn current(
    context: &Context,
    key: &ConnectionKey,
    newest: Option<&StreamMessage>,
) -> Result<Option<StoredConnection>, StoreError> {
    let stored = context.store.stored_connection(key).await?;
    let behind =
        newest.filter(|record| stored.as_ref().is_none_or(|stored| stored.connection.sequence < record.sequence));
    let Some(record) = behind else { return Ok(stored) };
    let newer = context.store.connection_of(key, record)?;
    if newer.connection.status == Status::Revoked {
        // Whoever revokes it needs the tokens until the provider has been told, and takes it out then.
        return Ok(None);
    }
    context.store.put_connection(key, newer.clone()).await?;
    Ok(Some(newer))
}

/// Everything behind the record, as the record says: it may be another delivery's of the same command.
async fn go_on(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    record: &StreamMessage,
    actor: &str,
) -> Result<WorkerReply, StoreError> {
    let OauthConnection { status, status_reason, .. } = context.store.connection_of(key, record)?.connection;
    let kind = if status == Status::Active { EventKind::Refreshed } else { EventKind::NeedsReauthorization };
    let connection = apply::settle(context, job, key, record, (kind, actor, status_reason.as_deref())).await?;
    answer(&connection)
}

/// The answer that shows a connection, if it is one that a refresh may end in.
fn answer(connection: &OauthConnection) -> Result<WorkerReply, StoreError> {
    match connection.status {
        Status::Active => apply::answer(connection),
        Status::NeedsReauthorization => {
            let reason = connection.status_reason.as_deref();
            Ok(Failure::LoginNeeded.answer(reason.unwrap_or(NEEDS_LOGIN)))
        }
        Status::Revoked => Ok(Failure::NotFound.answer("the connection was deleted")),
    }
}

struct Refresh<'a> {
    context: &'a Context,
    job: &'a Job,
    key: &'a ConnectionKey,
    actor: &'a str,
    trigger: &'a Trigger,
    replaces: u64,
    /// When the record was read that it replaces.
    began: Instant,
}

impl Refresh<'_> {
    /// The answer when nothing has to be asked of the provider.
    fn is_needless(&self, stored: &StoredConnection) -> Result<Option<WorkerReply>, StoreError> {
        let (asked, sequence) = (self.trigger.actor.is_some(), self.trigger.sequence);
        let StoredConnection { connection, refresh_failure, .. } = stored;
        let (now, min_interval) = (system::now(), self.context.config.refresh.min_interval);
        if connection.status != Status::Active {
            return Ok(Some(Failure::LoginNeeded.answer(NEEDS_LOGIN)));
        }
        if connection.refresh_token.is_none() {
            return Ok(Some(
                Failure::LoginNeeded.answer("the provider gave no refresh token: log in again when the token expires"),
            ));
        }
        // Somebody else was faster: what they got is the answer, be it a token or a failure.
        if connection.sequence > sequence || (asked && connection.is_younger_than(min_interval, now)) {
            return apply::answer(connection).map(Some);
        }
        let failure = refresh_failure.as_ref().filter(|failure| asked && failure.reason != INTERRUPTED);
        Ok(failure.and_then(|failure| failure.answer(now)))
    }

    /// Until when nothing is sent, because another worker may have sent the refresh token and still bring what it got.
    fn held_until(&self, stored: &StoredConnection) -> Option<Timestamp> {
        let now = system::now();
        let failure = stored.refresh_failure.as_ref().filter(|failure| failure.until > now);
        if self.job.is_repetition() {
            // Another worker may also have heard the provider ask for a longer wait.
            return Some(failure.map_or(Timestamp::MIN, |failure| failure.until).max(later(now, HOLD)));
        }
        failure.filter(|failure| failure.reason == INTERRUPTED).map(|failure| failure.until)
    }

    /// Comes back later, as a command of its own, so that however often this one comes, nothing is sent for it again.
    /// Until then the note in the bucket holds back whoever else asks.
    async fn hold(&self, stored: &StoredConnection, until: Timestamp) -> Result<WorkerReply, StoreError> {
        let connection = &stored.connection;
        let count = stored.refresh_failure.as_ref().map_or(0, |failure| failure.count);
        let failure = RefreshFailure {
            count,
            until,
            status: Failure::RefreshInterrupted.status(),
            reason: INTERRUPTED.to_owned(),
        };
        if self.job.is_repetition() {
            warn!("another worker may have sent the refresh token; trying again at {until}");
            self.context.store.put_failure(self.key, connection.sequence, &failure).await?;
        }
        // Schedules have seconds: this one is not to come up before. It has waited long enough to have a turn.
        let due = Due { sequence: connection.sequence, booked: true };
        schedule::set(&self.context.nats, self.key, later(until, Duration::from_secs(1)), due).await?;
        if self.job.is_repetition() {
            self.publish_failure(INTERRUPTED, connection).await?;
        }
        Ok(failure.answer(system::now()).unwrap_or_else(|| Failure::RefreshInterrupted.answer(INTERRUPTED)))
    }

    async fn run(&self, stored: StoredConnection) -> Result<WorkerReply, StoreError> {
        let Some(config) = self.context.store.config(&self.key.integration).await? else {
            return self.pause(&stored).await;
        };
        let place = match self.enter() {
            Ok(place) => place,
            Err(wait) => return self.stand_back(&stored.connection, wait).await,
        };
        let Some(refresh_token) = &stored.connection.refresh_token else { return apply::answer(&stored.connection) };
        let grant = RefreshGrant { refresh_token, issued_at: &stored.issued_at };
        fail_point!("before_refresh");
        // Who stood still that long holds the command no more, and a refresh token is not to be sent twice.
        if self.began.elapsed() > topology::ACK_WAIT {
            return Err(StoreError::Lost);
        }
        let sent = Instant::now();
        let answered = self.ask(&config, &grant).await;
        drop(place);
        match answered {
            Ok(tokens) => {
                fail_point!("after_refresh");
                self.replace(stored, tokens, sent).await
            }
            Err(NoTokens::Request(RequestError::IssuedElsewhere)) => self.give_up(stored, "config_changed").await,
            Err(NoTokens::Refused(TokenError::Oauth(code), _)) if code.kind() == ErrorKind::InvalidGrant => {
                self.give_up(stored, code.as_str()).await
            }
            Err(error) => self.put_off(&stored, &error).await,
        }
    }

    async fn ask(&self, config: &IntegrationOauthConfig, grant: &RefreshGrant<'_>) -> Result<TokenSet, NoTokens> {
        let build = |auth: &token::ClientAuthentication| token::refresh_request(config, grant, auth);
        provider_calls::ask(self.context, config, &grant.issued_at.variables, build).await
    }

    fn enter(&self) -> Result<Place, Duration> {
        let ticket = match (&self.trigger.actor, self.trigger.booked) {
            (Some(_), _) => Ticket::Asked,
            (None, true) => Ticket::Booked,
            (None, false) => Ticket::New,
        };
        self.context.limits.refreshes.enter(&self.key.integration, ticket, Instant::now())
    }

    /// Leaves the queue until its turn. Whoever waits asks again; the schedule is there for it already.
    async fn stand_back(&self, connection: &OauthConnection, wait: Duration) -> Result<WorkerReply, StoreError> {
        if self.trigger.actor.is_none() {
            let due = Due { sequence: connection.sequence, booked: true };
            schedule::set(&self.context.nats, self.key, later(system::now(), wait), due).await?;
        }
        let full = Failure::Busy.answer("too many refreshes of this integration are under way; try again");
        Ok(WorkerReply { retry_after: Some(wait.as_secs().max(1)), ..full })
    }

    /// The new state: a rotated refresh token replaces the old one, an absent one keeps it.
    async fn replace(
        &self,
        stored: StoredConnection,
        tokens: TokenSet,
        sent: Instant,
    ) -> Result<WorkerReply, StoreError> {
        let old = stored.connection;
        let mut new = OauthConnection::issued(self.key.subject(), tokens);
        new.refresh_token = new.refresh_token.or(old.refresh_token);
        new.scope = new.scope.or(old.scope);
        let kept = old.metadata.into_iter().filter(|(name, _)| !new.metadata.contains_key(name)).collect::<Vec<_>>();
        new.metadata.extend(kept);
        let new = StoredConnection { connection: new, ..stored };
        let written = apply::write(self.context, self.job, self.key, new.clone(), self.replaces).await?;
        let Some(record) = written else { return self.too_late(&new).await };
        self.context.measures.refresh_window_seconds.observe(sent.elapsed().as_secs_f64());
        fail_point!("after_refresh_record");
        go_on(self.context, self.job, self.key, &record, self.actor).await
    }

    /// Another writer's record is there. If it is a deletion, that one knew the old tokens alone: what came of them is
    /// revoked here.
    async fn too_late(&self, new: &StoredConnection) -> Result<WorkerReply, StoreError> {
        if self.context.store.tombstone(self.key).await?.is_some() {
            let outcome = revoke::tell_provider(self.context, self.key, &new.connection, &new.issued_at).await?;
            info!(outcome, "deleted while it was refreshed; the provider was told of the new tokens, too");
        }
        self.newer().await
    }

    /// The provider takes the refresh token no more. The record is read again by being replaced: if another writer has
    /// brought a new one since, that one is the answer, for its tokens were issued a moment ago. Sending its refresh
    /// token, too, would gain nothing.
    async fn give_up(&self, stored: StoredConnection, reason: &str) -> Result<WorkerReply, StoreError> {
        warn!(reason, "connection needs reauthorization");
        let connection = stored.connection.without_tokens(Status::NeedsReauthorization, Some(reason));
        let spent = StoredConnection { connection, ..stored };
        let Some(record) = apply::write(self.context, self.job, self.key, spent, self.replaces).await? else {
            return self.newer().await;
        };
        go_on(self.context, self.job, self.key, &record, self.actor).await
    }

    /// What another writer has brought meanwhile.
    async fn newer(&self) -> Result<WorkerReply, StoreError> {
        let newest = records::last(&self.context.nats, &self.key.subject()).await?;
        match current(self.context, self.key, newest.as_ref()).await? {
            Some(stored) => answer(&stored.connection),
            None => Ok(Failure::NotFound.answer("the connection was deleted")),
        }
    }

    /// Tries again later, as a new schedule: a waiting retry holds no place in any queue. What callers ask for in
    /// between makes the wait no longer.
    async fn put_off(&self, stored: &StoredConnection, error: &NoTokens) -> Result<WorkerReply, StoreError> {
        let (now, connection) = (system::now(), &stored.connection);
        let failures = stored.refresh_failure.as_ref().map_or(0, |failure| failure.count);
        let count = if self.actor == CLOCK { failures.saturating_add(1) } else { failures.max(1) };
        let asked_to_wait = error.retry_after().unwrap_or_default();
        let wait = backoff_refresh(count, system::random_share()).max(asked_to_wait);
        warn!(reason = error.reason(), "refresh failed; trying again in {wait:?}");
        let until = later(now, self.context.config.refresh.min_interval.max(asked_to_wait));
        let failure = RefreshFailure {
            count,
            until,
            status: status::of_no_tokens(error).status(),
            reason: error.reason().to_owned(),
        };
        self.context.store.put_failure(self.key, connection.sequence, &failure).await?;
        self.again_in(connection, wait).await?;
        self.publish_failure(error.reason(), connection).await?;
        Ok(status::of_no_tokens(error).answer(&error.to_string()).after(error.retry_after()))
    }

    /// Without a config nothing can be refreshed, but the config may come back. One event says so, not one each time.
    async fn pause(&self, stored: &StoredConnection) -> Result<WorkerReply, StoreError> {
        let text = "the integration has no config any more; the connection is not refreshed";
        let is_news = stored.refresh_failure.as_ref().is_none_or(|failure| failure.reason != NO_CONFIG);
        let failure = RefreshFailure {
            count: 1,
            until: system::now(),
            status: Failure::BadRequest.status(),
            reason: NO_CONFIG.to_owned(),
        };
        fail_point!("before_pause");
        if is_news {
            self.context.store.put_failure(self.key, stored.connection.sequence, &failure).await?;
        }
        // Whoever brings it back looks for those who paused, and may have looked before this one was noted down.
        let is_back = self.context.store.has_config(&self.key.integration).await?;
        self.again_in(&stored.connection, if is_back { RESTART_PAUSE } else { PAUSE }).await?;
        if is_news {
            self.publish_failure(NO_CONFIG, &stored.connection).await?;
        }
        Ok(Failure::BadRequest.answer(text))
    }

    async fn again_in(&self, connection: &OauthConnection, wait: Duration) -> Result<(), StoreError> {
        let at = later(system::now(), wait);
        let due = Due { sequence: connection.sequence, booked: false };
        Ok(schedule::set(&self.context.nats, self.key, at, due).await?)
    }

    async fn publish_failure(&self, reason: &str, connection: &OauthConnection) -> Result<(), StoreError> {
        let mut event = Event::about(&self.job.subject, EventKind::RefreshFailed, self.actor, system::now());
        (event.reason, event.sequence) = (Some(reason), Some(connection.sequence));
        self.job.publish_event(&self.context.nats, &event).await
    }
}
