//! Refreshes that are not sent now: the schedule starts each of them again later.
//!
//! A postponed refresh ends its command. While it waits, the connection's subject on the queue is free, and the refresh
//! holds no permit.
//!
//! A crash in here, before the ack: the next worker cannot know what was sent, and holds the refresh (see
//! [`Refresh::hold`]). A caller's refresh gets the stored failure as its answer, if there is one.

use std::time::Duration;

use fail::fail_point;
use jiff::Timestamp;
use tracing::warn;

use super::{Refresh, SCHEDULE_ACTOR};
use crate::command::WorkerReply;
use crate::connection::lifecycle::{self, Change, Failed, Meaning};
use crate::connection::{INTERRUPTED, NO_CONFIG, RefreshFailure, Status, StoredConnection};
use crate::event::{Event, EventKind};
use crate::oauth::ProviderAnswer;
use crate::outcome::{REFRESH_DOUBLING_FAILURES, backoff_refresh};
use crate::protocol::records;
use crate::protocol::schedule::{self, Due};
use crate::store::StoreError;
use crate::system::{self, later};
use crate::worker::apply;
use crate::worker::context::{Context, NO_ROOM_WAIT, NoRoom};
use crate::worker::job::Job;
use crate::worker::rpc::status::{self, Failure};

/// Wait if a config that fits was stored while the pause was.
const CONFIG_RETURNED_WAIT: Duration = Duration::from_secs(1);

/// When the schedule starts the refresh again.
enum Next {
    /// When the connection's state says so.
    ByState,
    At(Timestamp),
    /// At a slot that the refresh limiter reserved. The refresh has waited already, so it goes ahead of refreshes without a
    /// slot.
    AtSlot(Timestamp),
}

pub(super) struct Postponement<'a> {
    stored: &'a StoredConnection,
    /// True if the failure is new.
    stores_failure: bool,
    event: Option<EventKind>,
    /// The provider's answer, if the refresh was sent.
    provider: Option<&'a ProviderAnswer>,
    next: Next,
}

impl<'a> Postponement<'a> {
    /// Stores the connection's failure.
    pub(super) fn noted(stored: &'a StoredConnection, event: Option<EventKind>) -> Self {
        Self { stored, stores_failure: true, event, provider: None, next: Next::ByState }
    }

    /// Adds the provider's answer that led to the failure.
    pub(super) fn after(self, provider: Option<&'a ProviderAnswer>) -> Self {
        Self { provider, ..self }
    }

    fn at_slot(stored: &'a StoredConnection, at: Timestamp) -> Self {
        Self { stored, stores_failure: false, event: None, provider: None, next: Next::AtSlot(at) }
    }
}

impl Refresh<'_> {
    /// Ends this command without sending, because the previous worker may have sent the refresh token. The stored
    /// failure holds back every other refresh until the hold ends, and then the schedule sends a new command. So this
    /// command sends nothing, however often it is delivered.
    pub(super) async fn hold(&self, stored: &StoredConnection, until: Timestamp) -> Result<WorkerReply, StoreError> {
        let status = Failure::RefreshInterrupted.status();
        let failure = match stored.refresh_failure.clone() {
            Some(failure) => RefreshFailure { until, status, reason: INTERRUPTED.to_owned(), ..failure },
            None => RefreshFailure::new(INTERRUPTED, status, until),
        };
        // This schedule must not fire while the hold lasts, on any worker's clock.
        let next_try = Some(later(until, Duration::from_secs(1)));
        let failure = RefreshFailure { next_try, ..failure };
        let reply = failure.answer(self.context.clock.now());
        let stored = StoredConnection { refresh_failure: Some(failure), ..stored.clone() };
        // The hold of an earlier delivery is stored already.
        let is_new = !self.trigger.is_unsent;
        if is_new {
            warn!("another worker may have sent the refresh token; trying again at {until}");
            self.context.measures.refreshes.failed(&self.key.integration, INTERRUPTED);
        }
        let event = is_new.then_some(EventKind::RefreshFailed);
        self.postpone(Postponement { stores_failure: is_new, ..Postponement::noted(&stored, event) }).await?;
        Ok(reply.unwrap_or_else(|| Failure::RefreshInterrupted.answer(INTERRUPTED).with_reason(INTERRUPTED)))
    }

    /// Ends this command because its integration has no config, or one that does not fit the grant. Only the first pause
    /// stores a failure and publishes an event.
    pub(super) async fn pause(&self, stored: &StoredConnection, reason: &str) -> Result<WorkerReply, StoreError> {
        let text = if reason == NO_CONFIG {
            "the integration has no config any more; the connection is not refreshed"
        } else {
            "the integration's config has another client or token endpoint than the grant; log in again, or restore the config"
        };
        self.context.measures.refreshes.failed(&self.key.integration, reason);
        let reply = Failure::BadRequest.answer(text).with_reason(reason);
        let status = reply.status;
        let failed = Failed { meaning: Meaning::Paused, reason: reason.to_owned(), status, retry_after: None };
        let (moment, rules) = (self.moment(), self.context.refresh_rules(None));
        let Change::Notes { stored, event } = lifecycle::conclude(stored, &failed, &moment, &rules) else {
            return Ok(reply);
        };
        if stored.connection.status == Status::Active {
            let stores_failure = event.is_some();
            self.postpone(Postponement { stores_failure, ..Postponement::noted(&stored, event) }).await?;
            // The worker that stores a config looks for paused connections, and may have looked before the failure was stored.
            let config = self.context.store.config(&self.key.integration).await?;
            if config.is_some_and(|config| config.refresh_endpoint(&stored.issued_at).is_some()) {
                let at = later(self.context.clock.now(), CONFIG_RETURNED_WAIT);
                self.schedule(&stored, Next::At(at)).await?;
            }
        }
        Ok(reply)
    }

    /// Ends this command because its integration is at its limit. The wait leads to the slot that the limiter has
    /// reserved, not to a fixed delay: ten thousand refreshes that returned each second would write more schedules than
    /// they refresh. A caller tries again by itself, and the connection's schedule exists already.
    pub(super) async fn wait_for_slot(
        &self,
        stored: &StoredConnection,
        wait: Duration,
    ) -> Result<WorkerReply, StoreError> {
        if self.trigger.actor.is_none() {
            self.postpone(Postponement::at_slot(stored, later(self.context.clock.now(), wait))).await?;
        }
        let text = "too many refreshes of this integration are in progress; try again";
        Ok(Failure::Busy.answer_after(text, wait))
    }

    /// Ends this command because another worker may still store the answer to one that the server has lost.
    pub(super) async fn wait_after_restart(
        &self,
        stored: &StoredConnection,
        left: Duration,
    ) -> Result<WorkerReply, StoreError> {
        if self.trigger.actor.is_none() {
            // Schedules have whole seconds, and this one must not fire while the hold lasts.
            let at = later(self.context.clock.now(), left.saturating_add(Duration::from_secs(1)));
            self.postpone(Postponement::at_slot(stored, at)).await?;
        }
        Ok(status::after_restart(left))
    }

    /// Ends this command because its tokens could not be stored. A due refresh is scheduled again; `OAUTH_SCHEDULE` has no
    /// limit in bytes.
    pub(super) async fn wait_for_room(
        &self,
        stored: &StoredConnection,
        reason: &NoRoom,
    ) -> Result<WorkerReply, StoreError> {
        if self.trigger.actor.is_none() {
            self.postpone(Postponement::at_slot(stored, later(self.context.clock.now(), NO_ROOM_WAIT))).await?;
        }
        Ok(Failure::Unavailable.answer_after(&format!("{reason}; try again later"), NO_ROOM_WAIT))
    }

    /// Publishes the event, stores the failure if there is a new one, and schedules the next try.
    pub(super) async fn postpone(&self, postponement: Postponement<'_>) -> Result<(), StoreError> {
        let Postponement { stored, stores_failure, event, provider, next } = postponement;
        // 1. Choose the time and the failure. Durable: nothing new. A crash after this: the next worker holds the
        //    refresh.
        fail_point!("postpone_1_time_chosen");
        self.job.lease.check()?;
        // 2. Publish the event. Durable: the audit log has the failure. It comes first, because the failure says which events
        //    are published (`token_expired`). A crash after this: the next worker holds the refresh. Its event has the same
        //    message id, so the server drops it.
        if let Some(kind) = event {
            let mut event = Event::about(&self.job.subject, kind, self.actor, self.context.clock.now());
            event.reason = stored.refresh_failure.as_ref().map(|failure| failure.reason.as_str());
            (event.sequence, event.provider) = (Some(stored.connection.sequence), provider);
            self.job.publish_event(self.context, &event).await?;
        }
        fail_point!("postpone_2_event_published");
        self.job.lease.check()?;
        // 3. Store the failure in KV. Durable: it is the answer to callers while it lasts. A crash after this: the next
        //    worker holds the refresh, at least for as long as the failure lasts.
        if stores_failure {
            self.context.store.put_failure(self.key, stored).await?;
        }
        fail_point!("postpone_3_failure_stored");
        self.job.lease.check()?;
        // 4. Schedule the next try. Durable: the schedule. A crash after this: as after step 3; the hold replaces this
        //    schedule.
        self.schedule(stored, next).await?;
        fail_point!("postpone_4_refresh_scheduled");
        Ok(())
    }

    async fn schedule(&self, stored: &StoredConnection, next: Next) -> Result<(), StoreError> {
        let (at, slot_reserved) = match next {
            Next::ByState => return apply::schedule_next(self.context, self.key, stored).await,
            Next::At(at) => (at, false),
            Next::AtSlot(at) => (at, true),
        };
        let due = Due { sequence: stored.connection.sequence, slot_reserved };
        Ok(schedule::set(&self.context.nats, self.key, at, due).await?)
    }
}

/// Schedules the refresh of a given-up command again, and publishes an event. The command becomes a dead letter. A crash
/// in here: the command is delivered and given up once more.
pub(in crate::worker) async fn reschedule_given_up(context: &Context, job: &Job) -> Result<(), StoreError> {
    let Some(key) = job.subject.key() else { return Ok(()) };
    let record = records::last(&context.nats, &key.subject()).await?;
    if let Some(record) = &record {
        // The longest wait: this refresh has failed at each of its deliveries.
        let at = later(context.clock.now(), backoff_refresh(REFRESH_DOUBLING_FAILURES, system::random_share()));
        schedule::set(&context.nats, &key, at, Due { sequence: record.sequence, slot_reserved: false }).await?;
    }
    let mut event = Event::about(&job.subject, EventKind::RefreshFailed, SCHEDULE_ACTOR, context.clock.now());
    (event.reason, event.sequence) = (Some("given_up"), record.map(|record| record.sequence));
    job.publish_event(context, &event).await
}
