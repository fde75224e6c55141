//! A connection's new state: written as a record, then settled everywhere else from the record alone.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;

use super::context::Context;
use super::job::Job;
use crate::command::{HEADER_SEALED_REFRESH, HEADER_STATUS, WorkerReply};
use crate::connection::{OauthConnection, SealedPart, StoredConnection};
use crate::event::{Event, EventKind};
use crate::protocol::records::{self, NewRecord, Written};
use crate::protocol::schedule::{self, Due};
use crate::store::{StoreError, json};
use crate::subject::ConnectionKey;
use crate::system;

/// Writes the record in place of the one with the given sequence. Gives nothing when another writer was first.
pub(super) async fn write(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    stored: StoredConnection,
    replaces: u64,
) -> Result<Option<StreamMessage>, StoreError> {
    let store = &context.store;
    let StoredConnection { mut connection, issued_at, login_id, refresh_failure: _ } = stored;
    let part = SealedPart { refresh_token: connection.refresh_token.take(), issued_at, login_id };
    (connection.sequence, connection.modified) = (0, 0);
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_SEALED_REFRESH, store.seal_part(key, &job.id, &part)?);
    headers.insert(HEADER_STATUS, connection.status.as_str());
    let record = NewRecord {
        publish_to: key.record_subject(),
        subject: key.subject(),
        command_id: job.id.clone(),
        replaces,
        headers,
        body: json(&connection)?,
    };
    match records::write(&context.nats, record).await? {
        Written::Stored(record) => Ok(Some(record)),
        Written::Replaced { .. } | Written::Superseded => Ok(None),
    }
}

/// Everything behind the record: KV, event, schedule. Each may be repeated. Gives the connection.
pub(super) async fn settle(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    record: &StreamMessage,
    (kind, actor, reason): (EventKind, &str, Option<&str>),
) -> Result<OauthConnection, StoreError> {
    let stored = context.store.connection_of(key, record)?;
    let connection = stored.connection.clone();
    context.store.put_or_delete_connection(key, stored).await?;
    fail_point!("after_kv");
    let mut event = Event::about(&job.subject, kind, actor, system::now());
    (event.sequence, event.reason) = (Some(record.sequence), reason);
    job.publish_event(&context.nats, &event).await?;
    fail_point!("after_event");
    plan(context, key, &connection).await?;
    Ok(connection)
}

/// Sets the connection's next refresh, or forgets it where there is none. What a newer state has set meanwhile goes with
/// what is forgotten, and is set again.
pub(super) async fn plan(
    context: &Context,
    key: &ConnectionKey,
    connection: &OauthConnection,
) -> Result<(), StoreError> {
    let nats = &context.nats;
    let next = |of: &OauthConnection| {
        let at = of.refresh_at(system::now(), system::random_share())?;
        Some((at, Due { sequence: of.sequence, booked: false }))
    };
    if let Some((at, due)) = next(connection) {
        return Ok(schedule::set(nats, key, at, due).await?);
    }
    schedule::cancel(nats, key).await?;
    // Whoever stores a newer state after this look sets its schedule after it, too.
    let newer = context.store.connection(key).await?.filter(|newer| newer.sequence > connection.sequence);
    match newer.as_ref().and_then(next) {
        Some((at, due)) => Ok(schedule::set(nats, key, at, due).await?),
        None => Ok(()),
    }
}

/// The answer that shows a connection.
pub(super) fn answer(connection: &OauthConnection) -> Result<WorkerReply, StoreError> {
    let body = serde_json::to_value(connection).map_err(StoreError::unreadable(connection.subject.as_str()))?;
    Ok(WorkerReply::ok(body))
}
