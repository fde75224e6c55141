//! Events of records that another command wrote and did not publish.
//!
//! A worker may die between a record and its event, and another command may replace the record within milliseconds. A command
//! that is about to replace a record therefore publishes that record's event first, unless the newest event of its kind is
//! already it. So every change has its event, in order. A second event with the same message id is dropped.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use jiff::SignedDuration;
use tracing::{info, warn};

use crate::command::{HEADER_COMMAND, HEADER_SEALED_REVOCATION};
use crate::event::{Event, EventKind};
use crate::jetstream::header;
use crate::protocol::events;
use crate::store::StoreError;
use crate::subject::{ConnectionKey, ConnectionName, Integration, OAUTH_EVENTS, config_subject};
use crate::worker::apply;
use crate::worker::context::Context;
use crate::worker::job::Job;

/// Reason of a deletion, or of its later tries, that a login under the same name has ended.
const REPLACED: &str = "replaced";

/// A record that is about to be replaced.
struct Replaced<'a> {
    subject: String,
    integration: &'a Integration,
    /// `None` for a config.
    name: Option<&'a ConnectionName>,
    record: &'a StreamMessage,
    /// In place of the reason that the record holds.
    reason: Option<&'a str>,
}

/// Publishes the event of a connection's record if it was left out. A deletion that waits for its provider publishes its own
/// event; [`of_deletion`] and [`of_ended_deletion`] are for commands that replace its tombstone.
pub(super) async fn of_connection(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    record: Option<&StreamMessage>,
) -> Result<(), StoreError> {
    match record {
        Some(record) if !waits_for_revocation(record) => of_deletion(context, job, key, record).await,
        Some(_) | None => Ok(()),
    }
}

/// The same for a later try of a deletion's revocation: the deletion itself has ended.
pub(super) async fn of_deletion(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    record: &StreamMessage,
) -> Result<(), StoreError> {
    publish(context, job, of_key(key, record, None)).await.map(drop)
}

/// Publishes that a login ends a deletion whose provider was not told yet. An error does not keep the login from storing its
/// tokens.
pub(super) async fn of_ended_deletion(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    actor: &str,
    record: Option<&StreamMessage>,
) {
    let Some(record) = record.filter(|record| waits_for_revocation(record)) else { return };
    let ended = async {
        if publish(context, job, of_key(key, record, Some(REPLACED))).await? {
            return Ok(());
        }
        let mut event = Event::about(&job.subject, EventKind::Revoked, actor, context.clock.now());
        event.reason = Some(REPLACED);
        job.publish_event(context, &event).await
    };
    if let Err(error) = ended.await as Result<(), StoreError> {
        warn!("cannot publish that a login ends the tries of a revocation: {error}");
    }
}

/// Publishes the event of a config's record if it was left out.
pub(super) async fn of_config(context: &Context, job: &Job, record: &StreamMessage) -> Result<(), StoreError> {
    let integration = &job.subject.integration;
    let subject = config_subject(integration);
    publish(context, job, Replaced { subject, integration, name: None, record, reason: None }).await.map(drop)
}

fn of_key<'a>(key: &'a ConnectionKey, record: &'a StreamMessage, reason: Option<&'a str>) -> Replaced<'a> {
    Replaced { subject: key.subject(), integration: &key.integration, name: Some(&key.name), record, reason }
}

fn waits_for_revocation(record: &StreamMessage) -> bool {
    !header(&record.headers, HEADER_SEALED_REVOCATION).is_empty()
}

/// Returns true if the event was published now.
async fn publish(context: &Context, job: &Job, replaced: Replaced<'_>) -> Result<bool, StoreError> {
    let Replaced { subject, integration, name, record, reason } = replaced;
    let command_id = header(&record.headers, HEADER_COMMAND);
    if command_id == job.id {
        return Ok(false);
    }
    let stored = match context.store.event_of(&subject, record) {
        Ok(Some(stored)) => stored,
        // A record of an earlier release.
        Ok(None) => return Ok(false),
        Err(error) => {
            warn!("cannot read the event of the record to replace: {error}");
            return Ok(false);
        }
    };
    let mut event = stored.event(integration, name, apply::time_of(record));
    event.sequence = Some(record.sequence);
    event.reason = reason.or(event.reason);
    if is_published(context, &event, command_id).await? || is_gone(context, record).await? {
        return Ok(false);
    }
    if let Some(key) = name.map(|name| (integration, name)).and(job.subject.key())
        && let Ok(stored) = context.store.connection_of(&key, record)
    {
        event.expiry = apply::expiry_for(event.kind, &stored.connection);
    }
    info!(event = event.kind.as_str(), sequence = record.sequence, "published the event of the record to replace");
    context.publish_event(&stored.account, &event, Some(command_id)).await?;
    Ok(true)
}

async fn is_published(context: &Context, event: &Event<'_>, command_id: &str) -> Result<bool, StoreError> {
    let newest = context.nats.last(OAUTH_EVENTS, &event.subject()).await?;
    let message_id = events::message_id(command_id, event.kind);
    Ok(newest.is_some_and(|newest| header(&newest.headers, NATS_MESSAGE_ID.as_ref()) == message_id))
}

/// Returns true if the audit log may have had the event and dropped it since, by age or for room.
async fn is_gone(context: &Context, record: &StreamMessage) -> Result<bool, StoreError> {
    let max_age = SignedDuration::try_from(context.config.events.max_age).unwrap_or(SignedDuration::MAX);
    if context.clock.now().duration_since(apply::time_of(record)) >= max_age {
        return Ok(true);
    }
    let log = context.nats.stream_info(OAUTH_EVENTS).await?;
    Ok(log.is_some_and(|log| log.state.first_sequence > 1 && log.state.first_timestamp > record.time))
}
