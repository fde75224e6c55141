//! `refresh` and `delete`: calls that send a command and wait for its answer.
//!
//! A request counts once against a key's rate: the call does, the command that it sends does not.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::status::{self, Failure};
use super::{CallError, Checked, RETRY_WAIT, no_connection, replayed, too_many};
use crate::command::{CHANGED_SINCE, HEADER_STATUS, MAX_AGE, Work, WorkerReply};
use crate::connection::{Status, StoredConnection};
use crate::jetstream::{NatsError, Published, header};
use crate::protocol::outgoing::{Draft, Outgoing};
use crate::protocol::replies::Expected;
use crate::protocol::{commands, records};
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::{CommandSubject, ConnectionKey, ConnectionName, Integration, Verb};
use crate::worker::apply;
use crate::worker::commands::revoke;
use crate::worker::context::{Busy, Context};

/// Calls of one account that may wait for a command at once.
const WAITING: usize = 256;
/// First pause before another try while a command of the same subject is queued. Each pause doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// Longest pause between two such tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// Part of the gateway's deadline that is left for the answer to travel.
const ANSWER_TRAVEL: Duration = Duration::from_secs(1);
/// Interval of looks at the queue while a command has no answer.
const LOOK: Duration = Duration::from_secs(2);
/// Error text for a command that is on the queue at the deadline.
const IS_RUNNING: &str = "accepted and still running; look again in a moment";
/// Error text for a command that was not queued before the deadline, because another one occupied its subject.
const OTHER_IS_RUNNING: &str = "another command of the same kind is still running for this connection; try again";

/// State of a connection before its refresh. A record with a higher sequence is the result of a refresh.
#[derive(Clone, Copy)]
struct BeforeRefresh<'a> {
    key: &'a ConnectionKey,
    sequence: u64,
}

/// Returns a new token: from a refresh that is running already, or from one that this call starts. If the caller sends a
/// refresh token, it must be the stored one.
pub(super) async fn refresh(
    context: &Context,
    checked: Checked<'_>,
    key: &ConnectionKey,
    refresh_token: Option<&Secret>,
    began: Option<i64>,
) -> Result<Value, CallError> {
    let passed = passed(context, began);
    let stored = context.store.stored_connection(key).await?.ok_or_else(no_connection)?;
    let result = stored.last_result();
    let (before, failure) = (stored.connection, stored.refresh_failure);
    if refresh_token.is_some() && refresh_token != before.refresh_token.as_ref() {
        return Err(CallError::Refused(Failure::BadRequest, "refresh_token is not the one that is stored".to_owned()));
    }
    if before.status == Status::Active
        && result.is_younger_than(context.config.refresh.min_interval, context.clock.now())
        && before.refresh_token.is_some()
    {
        return Ok(serde_json::json!(before));
    }
    if let Some(answer) = failure.and_then(|failure| failure.answer(context.clock.now())) {
        return Err(CallError::Answered(answer));
    }
    if let Some(left) = context.restarts.hold_left(context.clock.now()) {
        return Err(CallError::Answered(status::after_restart(left)));
    }
    let work =
        || Work::Refresh { actor: Some(checked.caller.actor.clone()), sequence: before.sequence, slot_reserved: false };
    let subject = CommandSubject::connection(key, Verb::Refresh);
    let before = BeforeRefresh { key, sequence: before.sequence };
    send_and_wait(context, checked, (&subject, passed), work, Some(before)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deletion {
    integration_id: Integration,
    connection_id: ConnectionName,
    /// False to leave the grant at the provider alone, true to revoke it also if another connection shares it.
    #[serde(default)]
    revoke: Option<bool>,
    /// Of a later try: the bus's time at which the call was first made, in milliseconds since 1970.
    #[serde(default)]
    began: Option<i64>,
}

pub(super) async fn delete(
    context: &Context,
    checked: Checked<'_>,
    Deletion { integration_id: integration, connection_id: name, revoke, began }: Deletion,
) -> Result<Value, CallError> {
    let key = ConnectionKey { account: checked.caller.account.clone(), integration, name };
    let passed = passed(context, began);
    let deleted = match context.store.stored_connection(&key).await? {
        Some(stored) => {
            refuse_late_deletion(context, checked, &key).await?;
            let (keep_grant, even_if_shared) = (revoke == Some(false), revoke == Some(true));
            let work = || {
                let (actor, login_id) = (checked.caller.actor.clone(), stored.login_id.clone());
                Work::Revoke { actor, login_id, keep_grant, even_if_shared }
            };
            let subject = CommandSubject::connection(&key, Verb::Revoke);
            send_and_wait(context, checked, (&subject, passed), work, None).await
        }
        None => Err(no_connection()),
    };
    match (deleted, began) {
        (Err(error), Some(began)) if error.is_missing() && was_deleted_since(context, &key, began).await? => {
            Ok(revoke::success().body)
        }
        (deleted, _) => deleted,
    }
}

/// Returns how long the caller of a later try has waited. `began` is the time of its first try, in milliseconds since 1970.
fn passed(context: &Context, began: Option<i64>) -> Option<Duration> {
    let began = Timestamp::from_millisecond(began?).unwrap_or(Timestamp::MAX);
    Some(context.clock.now().duration_since(began).try_into().unwrap_or_default())
}

/// Refuses a deletion that was sent before the connection last changed. A stopped worker or a slow link may hold a call back after
/// its gateway has given it up, or has got the answer from another worker; meanwhile a new login may have succeeded. A gateway
/// that still waits takes the time of this answer, and sends the call again.
async fn refuse_late_deletion(context: &Context, checked: Checked<'_>, key: &ConnectionKey) -> Result<(), CallError> {
    let newest = records::last(&context.nats, &key.subject()).await.map_err(StoreError::from)?;
    if !newest.is_some_and(|record| checked.ids.were_sent_before(apply::time_of(&record))) {
        return Ok(());
    }
    let text = "the connection has changed since the deletion was requested; try again";
    let answer = Failure::Unavailable.answer_after(text, RETRY_WAIT);
    Err(CallError::Answered(answer.with_reason(CHANGED_SINCE)))
}

/// Returns true if the connection was deleted after that time: by an earlier try of the same call, or by another call.
async fn was_deleted_since(context: &Context, key: &ConnectionKey, began: i64) -> Result<bool, StoreError> {
    let newest = records::last(&context.nats, &key.subject()).await?;
    Ok(newest.is_some_and(|record| {
        let is_tombstone = header(&record.headers, HEADER_STATUS) == Status::Revoked.as_str();
        is_tombstone && apply::time_of(&record).as_millisecond() >= began
    }))
}

/// Sends a command and waits for its answer. If the answer asks the caller to try again later, for example because the
/// integration is full, waits and sends the same work as a new command.
///
/// The caller of a later try has waited for `passed` already. `before` is set only for a refresh: a refresh that another caller
/// has queued may do the same work.
async fn send_and_wait(
    context: &Context,
    checked: Checked<'_>,
    (subject, passed): (&CommandSubject, Option<Duration>),
    work: impl Fn() -> Work,
    before: Option<BeforeRefresh<'_>>,
) -> Result<Value, CallError> {
    let holder = (subject.account.clone(), passed.is_some());
    let Some(_waits) = context.limits.waiting_calls.take(&holder, WAITING) else {
        return Err(too_many(&format!("{WAITING} calls of this account are waiting already; try again"), 1));
    };
    let _waits_too = context.limits.all_waiting_calls.try_acquire().or(Err(Busy))?;
    checked.permit.reserve();
    let passed = passed.unwrap_or_default();
    let began = context.clock.now() - passed.min(MAX_AGE);
    let patience = context.config.http.deadline;
    let deadline = Instant::now() + patience.saturating_sub(ANSWER_TRAVEL).max(patience / 2).saturating_sub(passed);
    for earlier in 0.. {
        let (origin, message_id) = (checked.caller.origin.clone(), checked.ids.message_id(earlier));
        // A deletion waits for its share until its caller's deadline, which counts from this time (`worker/delivery.rs`).
        let now = context.clock.now();
        let time = if before.is_none() { began.max(now - MAX_AGE / 2) } else { now };
        let draft = Draft { subject, origin, work: work(), time, message_id, first: None };
        let command = Outgoing::seal(draft, |order| context.store.keyring.seal_own_order(order));
        let command = command.map_err(StoreError::seal(subject.subject()))?;
        let mut answer = context.replies.expect(&command);
        if let Some(newer) = enqueue(context, &command, before, deadline).await? {
            return Ok(newer);
        }
        match result(context, (subject, &command.id), before, &mut answer, deadline).await? {
            Some(answer) if status::is_success(&answer) => return Ok(answer.body),
            Some(refusal) => match status::requested_wait(&refusal) {
                Some(wait) if Instant::now() + wait < deadline => tokio::time::sleep(wait).await,
                Some(_) | None => return Err(CallError::Answered(refusal)),
            },
            None => return Err(still_running(IS_RUNNING)),
        }
    }
    Err(still_running(OTHER_IS_RUNNING))
}

/// Waits for the answer to a command until the deadline. The answer may be lost with a connection: then the result is the
/// connection as it is stored.
async fn result(
    context: &Context,
    (subject, id): (&CommandSubject, &str),
    before: Option<BeforeRefresh<'_>>,
    answer: &mut Expected,
    deadline: Instant,
) -> Result<Option<WorkerReply>, CallError> {
    loop {
        let look = deadline.min(Instant::now() + LOOK);
        if let Ok(answer) = tokio::time::timeout_at(look, answer.arrival()).await {
            return Ok(answer);
        }
        if look == deadline {
            return Ok(None);
        }
        // A worker answers before the command leaves the queue.
        let queued = commands::queued_id(&context.nats, subject).await;
        if !queued.is_ok_and(|queued| queued.as_deref() != Some(id)) {
            continue;
        }
        if let Ok(answer) = tokio::time::timeout(ANSWER_TRAVEL, answer.arrival()).await {
            return Ok(answer);
        }
        if let Some(stored) = stored_result(context, subject, before).await? {
            return Ok(Some(WorkerReply::ok(stored)));
        }
    }
}

/// Returns the refreshed connection, or that the connection is deleted, if it is.
async fn stored_result(
    context: &Context,
    subject: &CommandSubject,
    before: Option<BeforeRefresh<'_>>,
) -> Result<Option<Value>, CallError> {
    if let Some(before) = before {
        return finished_refresh(context, before).await;
    }
    let Some(key) = subject.key() else { return Ok(None) };
    let is_deleted = context.store.stored_connection(&key).await?.is_none();
    Ok(is_deleted.then(|| revoke::success().body))
}

/// Publishes a command. While another command of the same subject is queued, checks whether that one has done the work, and
/// then returns the newer connection.
async fn enqueue(
    context: &Context,
    command: &Outgoing,
    before: Option<BeforeRefresh<'_>>,
    deadline: Instant,
) -> Result<Option<Value>, CallError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match command.publish(&context.nats, Some(&context.replies)).await {
            // The message id is the call's own, so another has sent the call again.
            Ok(Published::Duplicate) => return Err(replayed()),
            Ok(Published::Stored { .. } | Published::DuplicateAfterRetry)
            | Err(NatsError::InFlight { after_retry: true }) => return Ok(None),
            Err(NatsError::Occupied) if Instant::now() < deadline => tokio::time::sleep(pause).await,
            Err(NatsError::Occupied) => return Err(still_running(OTHER_IS_RUNNING)),
            Err(error) => return Err(StoreError::from(error).into()),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        if let Some(before) = before
            && let Some(newer) = finished_refresh(context, before).await?
        {
            return Ok(Some(newer));
        }
    }
}

/// Returns the result of the other refresh if it has finished: the newer connection, or its failure as an error.
async fn finished_refresh(context: &Context, before: BeforeRefresh<'_>) -> Result<Option<Value>, CallError> {
    let BeforeRefresh { key, sequence } = before;
    let Some(stored) = context.store.stored_connection(key).await? else {
        return Ok(None);
    };
    let result = stored.last_result();
    let StoredConnection { connection, refresh_failure, .. } = stored;
    if result.sequence <= sequence {
        let failed = refresh_failure.and_then(|failure| failure.answer(context.clock.now()));
        return failed.map_or(Ok(None), |answer| Err(CallError::Answered(answer)));
    }
    if connection.status == Status::Active {
        return Ok(Some(serde_json::json!(connection)));
    }
    Err(CallError::Answered(status::needs_login(connection.status_reason.as_deref())))
}

fn still_running(text: &str) -> CallError {
    CallError::Refused(Failure::StillRunning, text.to_owned())
}
