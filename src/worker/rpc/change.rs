//! `refresh` and `delete`: calls that become commands, and wait for them.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::status::{self, Failure};
use super::{CONCURRENCY, CallError, no_connection, too_many};
use crate::auth::VerifiedCaller;
use crate::command::Work;
use crate::connection::{NEEDS_LOGIN, Status, StoredConnection};
use crate::jetstream::NatsError;
use crate::protocol::outgoing::Outgoing;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::{CommandSubject, ConnectionKey, Verb};
use crate::system;
use crate::worker::context::Context;

/// Calls of one account that may wait at once, a quarter of all places: so that it holds up nobody else.
const WAITING: usize = CONCURRENCY / 4;
/// How often the queue's place for a command is tried while it is taken: doubled from the first to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(200));
/// Of the time that a caller waits, what is kept for the answer's way.
const WAY: Duration = Duration::from_secs(1);

/// A new token: the one of a refresh already under way, or of one of our own.
pub(super) async fn refresh(
    context: &Context,
    caller: &VerifiedCaller,
    key: &ConnectionKey,
    given: Option<&Secret>,
) -> Result<Value, CallError> {
    let stored = context.store.stored_connection(key).await?.ok_or_else(no_connection)?;
    let (before, failure) = (stored.connection, stored.refresh_failure);
    if let Some(given) = given
        && before.refresh_token.as_ref() != Some(given)
    {
        return Err(CallError::Refused(Failure::BadRequest, "refresh_token is not the one that is stored".to_owned()));
    }
    if before.status == Status::Active
        && before.is_younger_than(context.config.refresh.min_interval, system::now())
        && before.refresh_token.is_some()
    {
        return Ok(serde_json::json!(before));
    }
    if let Some(answer) = failure.and_then(|failure| failure.answer(system::now())) {
        return Err(CallError::Answered(answer));
    }
    let work = || Work::Refresh { actor: Some(caller.actor.clone()), sequence: before.sequence, booked: false };
    let subject = CommandSubject::connection(key, Verb::Refresh);
    order(context, &subject, work, Some((key, before.sequence))).await
}

/// Deletes a connection.
pub(super) async fn delete(
    context: &Context,
    caller: &VerifiedCaller,
    key: &ConnectionKey,
) -> Result<Value, CallError> {
    let stored = context.store.stored_connection(key).await?.ok_or_else(no_connection)?;
    let work = || Work::Revoke { actor: caller.actor.clone(), login_id: stored.login_id.clone() };
    order(context, &CommandSubject::connection(key, Verb::Revoke), work, None).await
}

/// Sends a command and waits for its answer; sends another when the answer is to come again, as it is while the
/// integration is full. While another command has its place, looks whether that has done the work.
async fn order(
    context: &Context,
    subject: &CommandSubject,
    work: impl Fn() -> Work,
    wants_newer: Option<(&ConnectionKey, u64)>,
) -> Result<Value, CallError> {
    let Some(_waits) = context.limits.waiting_calls.take(&subject.account, WAITING) else {
        return Err(too_many(&format!("{WAITING} calls of this account are waiting already; try again"), 1));
    };
    let patience = context.config.http.deadline;
    let deadline = Instant::now() + patience.saturating_sub(WAY).max(patience / 2);
    loop {
        let command = Outgoing::seal(subject, work(), |order| context.store.keyring.seal_own_order(order));
        let command = command.map_err(StoreError::seal(subject.subject()))?;
        let mut answer = context.replies.expect(&command.id);
        if let Some(newer) = enqueue(context, &command, wants_newer, deadline).await? {
            return Ok(newer);
        }
        match tokio::time::timeout_at(deadline, answer.arrival()).await {
            Ok(Some(answer)) if status::is_success(&answer) => return Ok(answer.body),
            Ok(Some(refusal)) => match status::retry_later(&refusal) {
                Some(wait) if Instant::now() + wait < deadline => tokio::time::sleep(wait).await,
                Some(_) | None => return Err(CallError::Answered(refusal)),
            },
            Ok(None) | Err(_) => return Err(still_running()),
        }
    }
}

/// Puts a command on the queue, or finds that nothing is left to do: then this is the newer connection.
async fn enqueue(
    context: &Context,
    command: &Outgoing,
    wants_newer: Option<(&ConnectionKey, u64)>,
    deadline: Instant,
) -> Result<Option<Value>, CallError> {
    let mut pause = AGAIN.0;
    loop {
        match command.publish(&context.nats, Some(&context.replies)).await {
            Ok(_) => return Ok(None),
            Err(NatsError::Occupied) if Instant::now() < deadline => tokio::time::sleep(pause).await,
            Err(NatsError::Occupied) => return Err(still_running()),
            Err(error) => return Err(StoreError::from(error).into()),
        }
        pause = (pause * 2).min(AGAIN.1);
        if let Some((key, sequence)) = wants_newer
            && let Some(newer) = outcome(context, key, sequence).await?
        {
            return Ok(Some(newer));
        }
    }
}

/// What the refresh under way has come to, if it is over: the newer connection, or the failure.
async fn outcome(context: &Context, key: &ConnectionKey, sequence: u64) -> Result<Option<Value>, CallError> {
    let Some(StoredConnection { connection, refresh_failure, .. }) = context.store.stored_connection(key).await? else {
        return Ok(None);
    };
    if connection.sequence <= sequence {
        let failed = refresh_failure.and_then(|failure| failure.answer(system::now()));
        return failed.map_or(Ok(None), |answer| Err(CallError::Answered(answer)));
    }
    if connection.status == Status::Active {
        return Ok(Some(serde_json::json!(connection)));
    }
    let reason = connection.status_reason.unwrap_or_else(|| NEEDS_LOGIN.to_owned());
    Err(CallError::Refused(Failure::LoginNeeded, reason))
}

fn still_running() -> CallError {
    CallError::Refused(Failure::StillRunning, "accepted and still running; look again in a moment".to_owned())
}
