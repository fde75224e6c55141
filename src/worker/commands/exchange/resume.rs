//! A login that another delivery consumed, or whose record another command has replaced.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use tracing::info;

use super::{ACTOR, CONNECTED, Refusal, apply_connected, fail, reply_with};
use crate::command::WorkerReply;
use crate::connection::Status;
use crate::event::{Event, EventKind};
use crate::protocol::records;
use crate::rights::Scopes;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::worker::apply::{self, Applied};
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::rpc::status::Failure;

/// Pause between looks for a record that another worker may be storing.
const RECORD_PAUSE: Duration = Duration::from_millis(250);
/// Part of the gateway's deadline that is left for the answer to travel.
const ANSWER_TRAVEL: Duration = Duration::from_secs(2);

/// Resumes a login that another delivery of this command consumed. Applies the record if it exists; otherwise fails with
/// `exchange_interrupted`. A crash in here: the next worker does the same, and repeated writes have no effect.
pub(super) async fn resume(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    scopes: &Scopes,
) -> Result<WorkerReply, StoreError> {
    // Read the record after the login: a newer delivery may have finished while this one was stalled.
    let mut newest = records::last(&context.nats, &key.subject()).await?;
    while may_still_be_stored(context, job, newest.as_ref()) {
        tokio::time::sleep(RECORD_PAUSE).await;
        newest = records::last(&context.nats, &key.subject()).await?;
    }
    if let Some(record) = newest.as_ref().filter(|record| apply::is_result_of(job, record)) {
        info!(sequence = record.sequence, "the record is written already; applying it");
        let applied = Applied { record, event: CONNECTED, entry: None };
        return apply_connected(context, job, key, applied, scopes).await;
    }
    if let Some(reply) = answer_if_stored(context, job, key, newest.as_ref(), scopes).await? {
        return Ok(reply);
    }
    let text = "the login was cut off after its code was sent; start it again";
    fail(context, job, &Refusal::new(Failure::LoginInterrupted, "exchange_interrupted", text)).await
}

/// Returns true while the worker that consumed the login before a restart of the server may still store the record, and the
/// caller waits. Such a worker has lost its delivery, and works on.
fn may_still_be_stored(context: &Context, job: &Job, newest: Option<&StreamMessage>) -> bool {
    let now = context.clock.now();
    let patience = context.config.http.deadline.saturating_sub(ANSWER_TRAVEL);
    context.restarts.hold_left(now).is_some()
        && !newest.is_some_and(|record| records::was_written_by(record, &job.id))
        && job.age(now) < patience
}

/// Answers if a refresh or a deletion has replaced the record of this login: the login succeeded. Publishes its event again,
/// because the worker that wrote the record may have died before it did; the server drops a second one.
pub(super) async fn answer_if_stored(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    newest: Option<&StreamMessage>,
    scopes: &Scopes,
) -> Result<Option<WorkerReply>, StoreError> {
    let Some(record) = newest else { return Ok(None) };
    // Refreshes and deletions keep the id of the login.
    let stored = context.store.connection_of(key, record)?;
    if stored.login_id != job.id {
        return Ok(None);
    }
    let event = Event::about(&job.subject, EventKind::Connected, ACTOR, context.clock.now());
    job.publish_event(context, &event).await?;
    if stored.connection.status == Status::Revoked {
        return Ok(Some(Failure::Superseded.answer("the connection was deleted after this login")));
    }
    reply_with(&stored.connection, scopes).map(Some)
}
