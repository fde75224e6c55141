//! `refresh`: gets a new access token for a connection (RFC 6749 §6), at the token endpoint that issued the old one.
//!
//! - A connection has at most one refresh at a time: the queue holds one such command per connection.
//! - Sending a refresh token may spend it, and the new tokens exist only in the provider's response. So the worker sends
//!   the token only while this delivery holds the command, and writes the record right after the response. While the bus
//!   is away or refuses, it tries that write as long as it holds the command, and for 30 s more. KV, event and schedule
//!   follow from the record.
//! - A worker that lost the command while it waited writes new tokens, by expected sequence, and nothing else.
//! - After a crash a refresh token is sent again, unlike an authorization code, but only when [`HOLD`] has passed. Until
//!   then the worker that sent it may be cut off from the bus and still store the response.
//! - After a restart of a server that may have lost commands, no refresh token is sent for the same time, and a worker that
//!   got its command before sends nothing (`worker/context/restarts.rs`).
//! - An exchange consumes its login before it sends the code. A refresh writes nothing before it sends the token: a
//!   marker would cost each refresh a write, and would save the wait only after a crash before the token was sent.
//! - The numbered steps say what is durable after them and what a crash leads to. An error that a step returns has the
//!   same effect: the command is put back and delivered again.
//! - The answer and the ack follow in `worker/delivery.rs`, whose steps say what a crash there leads to.

mod postpone;

use std::time::{Duration, Instant};

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use futures_util::future::try_join3;
use jiff::Timestamp;
use tracing::{info, warn};

use self::postpone::Postponement;
pub(in crate::worker) use self::postpone::reschedule_given_up;
use crate::command::WorkerReply;
use crate::connection::lifecycle::{self, Begin, Change, Moment};
use crate::connection::{CONFIG_CHANGED, INTERRUPTED, NO_CONFIG};
use crate::connection::{OauthConnection, Status, StoredConnection};
use crate::event::{EventDetails, EventKind, SCHEDULE_ACTOR};
use crate::integration::{IntegrationOauthConfig, RequestKind};
use crate::oauth::ProviderAnswer;
use crate::oauth::token::{self, RefreshGrant, TokenSet};
use crate::protocol::records;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system::{self, later};
use crate::worker::apply::{self, Applied, CaughtUp, Recorded};
use crate::worker::background::refresh_limiter::{RefreshPermit, StartReason};
use crate::worker::context::Context;
use crate::worker::hold::HOLD;
use crate::worker::job::Job;
use crate::worker::provider_calls::NoTokens;
use crate::worker::provider_calls::facts::ApiAccess;
use crate::worker::rpc::status::{self, Failure};
use crate::worker::{late_tokens, left_out};

pub(in crate::worker) struct Trigger {
    /// The caller; `None` if the refresh was due.
    pub(in crate::worker) actor: Option<String>,
    /// Sequence of the record to refresh. If a newer one exists, that is the answer.
    pub(in crate::worker) sequence: u64,
    /// True if the refresh returns at a slot that the refresh limiter reserved, or after a hold. It goes ahead of refreshes
    /// without a slot.
    pub(in crate::worker) slot_reserved: bool,
    /// True if this process knows that no delivery has sent the refresh token.
    pub(in crate::worker) is_unsent: bool,
}

/// Finds the connection, and sends its refresh token if [`Refresh::decide`] says so.
///
/// Before step 1 this only reads, except that KV may catch up with the record, and that an event may be published that a crash
/// left out. A crash before step 1: as after step 1.
pub(in crate::worker) async fn run(context: &Context, job: &Job, trigger: &Trigger) -> Result<WorkerReply, StoreError> {
    let Some(key) = job.subject.key() else { return Ok(Failure::BadRequest.answer("no connection in the subject")) };
    // The read of the record goes to the leader and fails while the bus is away. So no token is sent whose response cannot be
    // stored.
    let subject = key.subject();
    let newest = async || Ok(records::last(&context.nats, &subject).await?);
    // Read at the same time, because sending the token needs it. That it cannot be read matters only then.
    let config = async || match context.store.config(&key.integration).await {
        Err(away @ StoreError::Nats(_)) => Err(away),
        config => Ok(config),
    };
    let reads = || try_join3(newest(), context.store.connection_entry(&key), config());
    let (newest, entry, config) = Box::pin(job.persist(reads)).await?;
    let actor = trigger.actor.as_deref().unwrap_or(SCHEDULE_ACTOR);
    if let Some(record) = newest.as_ref().filter(|record| apply::is_result_of(job, record)) {
        info!(sequence = record.sequence, "the record is written already; applying it");
        // A crash in here: as after step 3.
        let stored = context.store.connection_of(&key, record)?;
        let applied = Applied { record, event: event_of(&stored, actor), entry: None };
        return Box::pin(apply::apply_record(context, job, &key, applied, reply_by_status)).await;
    }
    let Some(CaughtUp { mut stored, revision }) = apply::catch_up(context, &key, newest.as_ref(), entry).await? else {
        return Ok(Failure::NotFound.answer("no connection with that integration_id and connection_id"));
    };
    // Before a token is sent: an error here must not cost new tokens.
    job.persist(|| left_out::of_connection(context, job, &key, newest.as_ref())).await?;
    let refresh = Refresh { context, job, key: &key, actor, trigger, replaces: newest, entry: revision };
    loop {
        match refresh.decide(&stored)? {
            Decision::Answer(reply) => {
                // The schedule of an older state may have replaced the newer state's. The older one has now fired, so set
                // the newer one again. A crash here: the next worker decides the same and sets it.
                if trigger.actor.is_none() {
                    job.lease.check()?;
                    apply::schedule_next(context, &key, &stored).await?;
                }
                return Ok(reply);
            }
            Decision::Hold { until } => return refresh.hold(&stored, until).await,
            Decision::Send { refresh_token } => return Box::pin(refresh.run(stored, &refresh_token, config?)).await,
            Decision::Change(change) => match *change {
                Change::Record(new) => {
                    job.lease.check()?;
                    return Box::pin(refresh.store(new, None, None)).await;
                }
                // An event that was due. The refresh continues with the new note.
                Change::Notes { stored: noted, event } => {
                    refresh.postpone(Postponement::noted(&noted, event)).await?;
                    stored = noted;
                }
            },
        }
    }
}

struct Refresh<'a> {
    context: &'a Context,
    job: &'a Job,
    key: &'a ConnectionKey,
    actor: &'a str,
    trigger: &'a Trigger,
    /// The record to replace.
    replaces: Option<StreamMessage>,
    /// Revision of the connection's entry in the bucket, if it is known.
    entry: Option<u64>,
}

enum Decision {
    /// The stored state or failure is the answer.
    Answer(WorkerReply),
    /// Another worker may have sent the refresh token and may still store the answer.
    Hold {
        until: Timestamp,
    },
    Send {
        refresh_token: Secret,
    },
    /// The state changes without a request.
    Change(Box<Change>),
}

impl Refresh<'_> {
    fn decide(&self, stored: &StoredConnection) -> Result<Decision, StoreError> {
        let rules = self.context.refresh_rules(None);
        let moment = self.moment();
        let refresh_token = match lifecycle::begin(stored, self.trigger.sequence, &moment, &rules) {
            Begin::Send(refresh_token) => refresh_token.clone(),
            Begin::AnswerFromState => return reply_by_status(&stored.connection).map(Decision::Answer),
            Begin::Wait(failure) => {
                let reply = failure.answer(moment.now);
                return Ok(Decision::Answer(reply.unwrap_or_else(|| Failure::Busy.answer("try again"))));
            }
            Begin::NoRefreshToken => {
                let text = "the connection has no refresh token: log in again";
                return Ok(Decision::Answer(Failure::LoginNeeded.answer(text)));
            }
            Begin::Change(change) => return Ok(Decision::Change(change)),
        };
        let ongoing = stored.refresh_failure.as_ref().filter(|failure| failure.until > moment.now);
        if !self.trigger.is_unsent {
            // An earlier delivery may have stored a failure that lasts longer, because the provider asked for a longer wait.
            let until = ongoing.map_or(Timestamp::MIN, |failure| failure.until).max(later(moment.now, HOLD));
            return Ok(Decision::Hold { until });
        }
        Ok(match ongoing.filter(|failure| failure.reason == INTERRUPTED) {
            Some(failure) => Decision::Hold { until: failure.until },
            None => Decision::Send { refresh_token },
        })
    }

    fn moment(&self) -> Moment {
        let (now, jitter, by_caller) = (self.context.clock.now(), system::random_share(), self.trigger.actor.is_some());
        Moment { now, jitter, by_caller, may_be_sent: !self.trigger.is_unsent }
    }

    async fn run(
        &self,
        stored: StoredConnection,
        refresh_token: &Secret,
        config: Option<IntegrationOauthConfig>,
    ) -> Result<WorkerReply, StoreError> {
        // 1. Get ready to send: check the config, and take a permit of the refresh limiter. Durable: nothing new. A crash after
        //    this: the next worker cannot know that nothing was sent. It holds the refresh for 101 s
        //    (`refresh/postpone.rs`, with the reason `refresh_interrupted`), and then the schedule starts another one.
        if let Some(left) = self.context.restarts.hold_left(self.context.clock.now()) {
            return self.wait_after_restart(&stored, left).await;
        }
        let config = match config {
            None => return self.pause(&stored, NO_CONFIG).await,
            Some(config) if config.refresh_endpoint(&stored.issued_at).is_none() => {
                return self.pause(&stored, CONFIG_CHANGED).await;
            }
            Some(config) => config,
        };
        let bytes = stored.connection.access_token.as_ref().map_or(0, |token| token.expose().len());
        if let Err(error) = self.context.room.check(&self.context.nats, bytes).await {
            return self.wait_for_room(&stored, &error).await;
        }
        let permit = match self.enter_limiter() {
            Ok(permit) => permit,
            Err(wait) => return self.wait_for_slot(&stored, wait).await,
        };
        fail_point!("refresh_1_permit_taken");
        // Before the refresh token is sent, so that nothing delays the record of the new tokens.
        let stored = self.job.provider_calls(self.context).add_missing_facts(&config, stored).await;
        self.job.lease.check()?;
        // A server that was restarted since the delivery may have lost the command, and another worker may run a new one.
        if self.context.restarts.is_gone(&self.context.nats, &self.job.server_id)
            || !self.context.limits.unsent.claim(&self.job.id, self.job.delivered)
        {
            return Err(StoreError::DeliveryLost);
        }

        // 2. Send the refresh token. Durable: nothing here; at the provider the refresh token may be spent. A crash
        //    after this: held, as after step 1. Then the refresh token is sent again. If the provider counts it as
        //    spent, it refuses, and the connection needs reauthorization after a second look.
        let sent = Instant::now();
        let answered = match &stored.issued_at.requests.upgrade {
            Some(upgrade) if stored.grant.upgrade_missing => {
                let access = ApiAccess::of(&config, &stored, refresh_token);
                self.job.provider_calls(self.context).upgrade(upgrade, access).await
            }
            Some(_) | None => self.send(&config, &stored, refresh_token).await,
        };
        drop(permit);
        fail_point!("refresh_2_token_sent");
        let (rules, moment) = (self.context.refresh_rules(Some(&config)), self.moment());
        let error = match answered {
            Ok(tokens) => {
                let left_out = tokens.left_out.clone();
                let new = lifecycle::renewed(stored, tokens, moment.now, &rules);
                let reply = Box::pin(self.store(new, Some(sent), None)).await?;
                self.job.report_left_out(self.context, self.actor, &left_out).await;
                return Ok(reply);
            }
            Err(error) => error,
        };
        // The next worker has held the refresh, and its hold must last.
        self.job.lease.check()?;
        warn!(reason = error.reason(), "refresh failed");
        self.context.measures.refreshes.failed(&self.key.integration, error.reason());
        let reply = status::failure_of_no_tokens(&error).answer(&error.to_string());
        let reply = reply.with_reason(error.reason()).after(error.retry_after());
        match lifecycle::conclude(&stored, &status::failed_refresh(&error), &moment, &rules) {
            Change::Record(new) => Box::pin(self.store(new, None, error.answer())).await,
            Change::Notes { stored, event } => {
                self.postpone(Postponement::noted(&stored, event).after(error.answer())).await?;
                Ok(reply)
            }
        }
    }

    /// Writes a changed connection. `sent` is the time at which the refresh token was sent, if the change has new tokens.
    /// `provider` is the answer that led to the change, if it is a failure.
    async fn store(
        &self,
        new: StoredConnection,
        sent: Option<Instant>,
        provider: Option<&ProviderAnswer>,
    ) -> Result<WorkerReply, StoreError> {
        // 3. Write the record. Durable: the new tokens, or the end of the grant or of its access token; subscribers receive
        //    it. A crash after this: the next worker finds this command's record and continues with step 4.
        let (event, replaces) = (EventDetails { provider, ..event_of(&new, self.actor) }, self.replaces.as_ref());
        let written = apply::write_record(self.context, self.job, self.key, new.clone(), event, replaces).await?;
        let Recorded::Newest(record) = written else { return self.superseded(&new, sent.is_some()).await };
        let measures = &self.context.measures;
        if let Some(sent) = sent {
            measures.refresh_window_seconds.observe(sent.elapsed().as_secs_f64());
            measures.refreshes.succeeded(&self.key.integration);
        } else {
            if new.event() == EventKind::NeedsReauthorization {
                let reason = new.connection.status_reason.as_deref().unwrap_or_default();
                measures.grants_ended.failed(&self.key.integration, reason);
            }
            info!(event = new.event().as_str(), "the state of the connection has changed");
        }
        fail_point!("refresh_3_record_written");

        // 4. Apply the record: KV, answer, event, schedule (the steps of `worker/apply.rs`). Durable: all three. A crash in
        //    it or after it: as after step 3; a repeated write has no effect.
        let applied = Applied { record: &record, event, entry: self.entry };
        let apply = apply::apply_record(self.context, self.job, self.key, applied, reply_by_status);
        let reply = Box::pin(apply).await?;
        fail_point!("refresh_4_record_applied");
        Ok(reply)
    }

    fn enter_limiter(&self) -> Result<RefreshPermit, Duration> {
        let reason = match (&self.trigger.actor, self.trigger.slot_reserved) {
            (Some(_), _) => StartReason::ForCaller,
            (None, true) => StartReason::AtSlot,
            (None, false) => StartReason::Due,
        };
        self.context.limits.refreshes.acquire(&self.key.integration, reason, Instant::now())
    }

    async fn send(
        &self,
        config: &IntegrationOauthConfig,
        stored: &StoredConnection,
        refresh_token: &Secret,
    ) -> Result<TokenSet, NoTokens> {
        let StoredConnection { connection, issued_at, grant, .. } = stored;
        let scope = connection.scope.clone().or_else(|| grant.requested_scope.clone());
        let scope = scope.unwrap_or_else(|| config.scope_text(&config.scopes()));
        let build = |auth: &token::ClientAuthentication| {
            let grant = RefreshGrant { refresh_token, issued_at, scope: &scope, nonce: &system::random_id() };
            token::refresh_request(config, &grant, auth)
        };
        self.job.provider_calls(self.context).tokens(config, RequestKind::Refresh, &issued_at.variables, build).await
    }

    /// Answers with the connection of the record that another command wrote during this refresh. It does so even if the
    /// provider refused the token with `invalid_grant`: the other record's tokens are new and need no refresh.
    ///
    /// If the other record is a tombstone, this asks the provider to revoke the new tokens. After a crash in here, the next
    /// worker finds the other record and answers with its connection.
    async fn superseded(&self, new: &StoredConnection, has_new_tokens: bool) -> Result<WorkerReply, StoreError> {
        if has_new_tokens {
            late_tokens::revoke(self.context, self.job, self.key, new).await?;
        }
        let newest = records::last(&self.context.nats, &self.key.subject()).await?;
        match apply::read(self.context, self.key, newest.as_ref()).await? {
            Some(found) => reply_by_status(&found.stored.connection),
            None => Ok(Failure::NotFound.answer("the connection was deleted")),
        }
    }
}

fn event_of<'a>(stored: &'a StoredConnection, actor: &'a str) -> EventDetails<'a> {
    EventDetails::new(stored.event(), actor, stored.connection.status_reason.as_deref())
}

fn reply_by_status(connection: &OauthConnection) -> Result<WorkerReply, StoreError> {
    match connection.status {
        Status::Active => apply::reply_with(connection),
        Status::NeedsReauthorization => Ok(status::needs_login(connection.status_reason.as_deref())),
        Status::Revoked => Ok(Failure::NotFound.answer("the connection was deleted")),
    }
}
