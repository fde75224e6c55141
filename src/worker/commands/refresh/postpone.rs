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

use super::{INTERRUPTED, Refresh, SCHEDULE_ACTOR};
use crate::command::WorkerReply;
use crate::connection::{NO_CONFIG, OauthConnection, RefreshFailure, StoredConnection};
use crate::event::{Event, EventKind};
use crate::outcome::{REFRESH_DOUBLING_FAILURES, backoff_refresh};
use crate::protocol::records;
use crate::protocol::schedule::{self, Due};
use crate::store::StoreError;
use crate::system::{self, later};
use crate::worker::context::{Context, NO_ROOM_WAIT, NoRoom};
use crate::worker::job::Job;
use crate::worker::provider_calls::NoTokens;
use crate::worker::rpc::status::{self, Failure};

/// Interval of tries while the integration has no config. A worker that stores its first config starts these refreshes
/// at once; this interval covers a worker that died before it did so.
const PAUSE: Duration = Duration::from_mins(15);
/// Wait if the config returned while the pause was stored.
const CONFIG_RETURNED_WAIT: Duration = Duration::from_secs(1);

/// When the schedule starts the refresh again.
enum Next {
    At(Timestamp),
    /// At a slot that the refresh limiter reserved, or at the end of a hold. The refresh has waited already, so it goes
    /// ahead of refreshes without a slot.
    AtSlot(Timestamp),
    WhenConfigReturns,
}

impl Refresh<'_> {
    /// Ends this command without sending, because the previous worker may have sent the refresh token. The stored
    /// failure holds back every other refresh until the hold ends, and then the schedule sends a new command. So this
    /// command sends nothing, however often it is delivered.
    pub(super) async fn hold(&self, stored: &StoredConnection, until: Timestamp) -> Result<WorkerReply, StoreError> {
        let count = stored.refresh_failure.as_ref().map_or(0, |failure| failure.count);
        let (status, reason) = (Failure::RefreshInterrupted.status(), INTERRUPTED.to_owned());
        let failure = RefreshFailure { count, until, status, reason };
        // The hold of an earlier delivery is stored already.
        let new_failure = (!self.is_unsent).then_some(&failure);
        if new_failure.is_some() {
            warn!("another worker may have sent the refresh token; trying again at {until}");
        }
        // Schedules have whole seconds, and this one must not fire while the hold lasts.
        let next = Next::AtSlot(later(until, Duration::from_secs(1)));
        self.postpone(&stored.connection, new_failure, next).await?;
        Ok(failure.answer(self.context.clock.now()).unwrap_or_else(|| Failure::RefreshInterrupted.answer(INTERRUPTED)))
    }

    /// Ends this command after a failed request, with a backoff that grows with the failures in a row. Callers'
    /// requests in between do not count, or they would make the wait longer.
    pub(super) async fn retry_later(
        &self,
        stored: &StoredConnection,
        error: &NoTokens,
    ) -> Result<WorkerReply, StoreError> {
        let (now, failures) =
            (self.context.clock.now(), stored.refresh_failure.as_ref().map_or(0, |failure| failure.count));
        let count = if self.trigger.actor.is_none() { failures.saturating_add(1) } else { failures.max(1) };
        let retry_after = error.retry_after().unwrap_or_default();
        let wait = backoff_refresh(count, system::random_share()).max(retry_after);
        warn!(reason = error.reason(), "refresh failed; trying again in {wait:?}");
        let until = later(now, self.context.config.refresh.min_interval.max(retry_after));
        let failed = status::failure_of_no_tokens(error);
        let failure = RefreshFailure { count, until, status: failed.status(), reason: error.reason().to_owned() };
        self.postpone(&stored.connection, Some(&failure), Next::At(later(now, wait))).await?;
        Ok(failed.answer(&error.to_string()).after(error.retry_after()))
    }

    /// Ends this command because its integration has no config. The config may return. Only the first pause stores a
    /// failure and publishes an event.
    pub(super) async fn pause(&self, stored: &StoredConnection) -> Result<WorkerReply, StoreError> {
        let (status, reason) = (Failure::BadRequest.status(), NO_CONFIG.to_owned());
        let failure = RefreshFailure { count: 1, until: self.context.clock.now(), status, reason };
        let is_new = stored.refresh_failure.as_ref().is_none_or(|failure| failure.reason != NO_CONFIG);
        self.postpone(&stored.connection, is_new.then_some(&failure), Next::WhenConfigReturns).await?;
        let text = "the integration has no config any more; the connection is not refreshed";
        Ok(Failure::BadRequest.answer(text))
    }

    /// Ends this command because its integration is at its limit. The wait leads to the slot that the limiter has
    /// reserved, not to a fixed delay: ten thousand refreshes that returned each second would write more schedules than
    /// they refresh. A caller tries again by itself, and the connection's schedule exists already.
    pub(super) async fn wait_for_slot(
        &self,
        connection: &OauthConnection,
        wait: Duration,
    ) -> Result<WorkerReply, StoreError> {
        if self.trigger.actor.is_none() {
            self.postpone(connection, None, Next::AtSlot(later(self.context.clock.now(), wait))).await?;
        }
        let text = "too many refreshes of this integration are in progress; try again";
        Ok(Failure::Busy.answer_after(text, wait))
    }

    /// Ends this command because its tokens could not be stored. A due refresh is scheduled again; `OAUTH_SCHEDULE` has no
    /// limit in bytes.
    pub(super) async fn wait_for_room(
        &self,
        connection: &OauthConnection,
        reason: &NoRoom,
    ) -> Result<WorkerReply, StoreError> {
        if self.trigger.actor.is_none() {
            self.postpone(connection, None, Next::AtSlot(later(self.context.clock.now(), NO_ROOM_WAIT))).await?;
        }
        Ok(Failure::Unavailable.answer_after(&format!("{reason}; try again later"), NO_ROOM_WAIT))
    }

    /// Stores the failure if there is a new one, schedules the next try, and publishes the failure.
    async fn postpone(
        &self,
        connection: &OauthConnection,
        failure: Option<&RefreshFailure>,
        next: Next,
    ) -> Result<(), StoreError> {
        // 1. Choose the time and the failure. Durable: nothing new. A crash after this: the next worker holds the
        //    refresh.
        fail_point!("postpone_1_time_chosen");
        self.job.lease.check()?;
        // 2. Store the failure in KV. Durable: it is the answer to callers while it lasts. A crash after this: the next
        //    worker holds the refresh, at least for as long as the failure lasts.
        if let Some(failure) = failure {
            self.context.store.put_failure(self.key, connection.sequence, failure).await?;
        }
        fail_point!("postpone_2_failure_stored");
        self.job.lease.check()?;
        // 3. Schedule the next try. Durable: the schedule. A crash after this: as after step 2; the hold replaces this
        //    schedule.
        self.schedule(connection, next).await?;
        fail_point!("postpone_3_refresh_scheduled");
        // 4. Publish the event. Durable: the audit log has the failure. A crash after this: as after step 2. The event
        //    of the hold has the same message id, so the server drops it.
        if let Some(failure) = failure {
            let mut event =
                Event::about(&self.job.subject, EventKind::RefreshFailed, self.actor, self.context.clock.now());
            (event.reason, event.sequence) = (Some(failure.reason.as_str()), Some(connection.sequence));
            self.job.publish_event(self.context, &event).await?;
        }
        fail_point!("postpone_4_event_published");
        Ok(())
    }

    async fn schedule(&self, connection: &OauthConnection, next: Next) -> Result<(), StoreError> {
        let (at, slot_reserved) = match next {
            Next::At(at) => (at, false),
            Next::AtSlot(at) => (at, true),
            Next::WhenConfigReturns => {
                // The worker that stores the config looks for paused connections, and may have looked before step 2.
                let has_returned = self.context.store.has_config(&self.key.integration).await?;
                (later(self.context.clock.now(), if has_returned { CONFIG_RETURNED_WAIT } else { PAUSE }), false)
            }
        };
        let due = Due { sequence: connection.sequence, slot_reserved };
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
