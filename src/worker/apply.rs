//! A connection's new state: its record, and everything that follows from the record.
//!
//! The record is the durable state. [`apply_record`] derives KV, the event and the schedule from the record alone, so any
//! worker can repeat it. The three are written in parallel: the caller has its answer once KV is written, and the ack waits for
//! all of them. The steps have numbers; ARCHITECTURE.md lists what a crash after each of them leads to. A worker that was
//! stopped after the record leaves the rest to the next one ([`Lease`](super::lease::Lease)).

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_TTL;
use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use jiff::Timestamp;
use tracing::error;

use crate::command::{
    HEADER_SEALED_EVENT, HEADER_SEALED_REFRESH, HEADER_SEALED_REVOCATION, HEADER_STATUS, WorkerReply,
};
use crate::connection::{INTERRUPTED, OauthConnection, SealedPart, Status, StoredConnection, WaitingRevocation};
use crate::event::{Event, EventDetails, EventKind};
use crate::jetstream::header;
use crate::outcome::backoff_revocation;
use crate::protocol::records::{self, NewRecord, Written};
use crate::protocol::schedule::{self, Due, DueRevocation};
use crate::store::{OpenedEntry, StoreError, json};
use crate::subject::ConnectionKey;
use crate::system::{self, later};
use crate::worker::context::Context;
use crate::worker::hold::WRITE_FOR;
use crate::worker::job::Job;

/// Tries to write a record while other commands write records of the same connection. Each lost try means that another
/// command succeeded, so a few are enough.
pub(super) const RECORD_TRIES: u32 = 8;

/// Result of [`write_record`].
pub(super) enum Recorded {
    /// The record is stored, and no newer one exists.
    Newest(StreamMessage),
    /// Another command's record is the newest. This one was refused, or it was stored and has been replaced since.
    Superseded,
}

/// Writes the record in place of `replaces`, or as the first one. Also replaces records that cannot be read, because no
/// worker wrote them.
pub(super) async fn write_record(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    stored: StoredConnection,
    event: EventDetails<'_>,
    replaces: Option<&StreamMessage>,
) -> Result<Recorded, StoreError> {
    let headers = event_header(context, job, key, event)?;
    write(context, job, key, stored, Place { name: records::RECORD, headers, replaces }).await
}

/// Writes the record of a deleted connection, with the revocation that it waits for.
pub(super) async fn write_tombstone(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    deleted: StoredConnection,
    tombstone: Tombstone<'_>,
) -> Result<Recorded, StoreError> {
    let Tombstone { name, waiting, event, replaces } = tombstone;
    let mut headers = event.map_or(Ok(HeaderMap::new()), |event| event_header(context, job, key, event))?;
    headers.insert(NATS_MESSAGE_TTL, context.config.limits.tombstones.as_secs().to_string());
    if let Some(waiting) = waiting {
        headers.insert(HEADER_SEALED_REVOCATION, context.store.seal_revocation(key, &job.id, waiting)?);
    }
    write(context, job, key, deleted, Place { name, headers, replaces }).await
}

pub(super) struct Tombstone<'a> {
    /// The record's name among those of its command.
    pub(super) name: &'static str,
    pub(super) waiting: Option<&'a WaitingRevocation>,
    /// `None` if the deletion was another command's.
    pub(super) event: Option<EventDetails<'a>>,
    pub(super) replaces: Option<&'a StreamMessage>,
}

fn event_header(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    event: EventDetails<'_>,
) -> Result<HeaderMap, StoreError> {
    let event = job.record_event(event);
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_SEALED_EVENT, context.store.seal_event(&key.subject(), &job.id, &event)?);
    Ok(headers)
}

struct Place<'a> {
    name: &'static str,
    /// Further headers.
    headers: HeaderMap,
    replaces: Option<&'a StreamMessage>,
}

async fn write(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    stored: StoredConnection,
    place: Place<'_>,
) -> Result<Recorded, StoreError> {
    let Place { name, mut headers, replaces } = place;
    let mut replaces = replaces.map_or(0, |record| record.sequence);
    let StoredConnection { mut connection, issued_at, login_id, grant, refresh_failure: _, unknown } = stored;
    let part = SealedPart { refresh_token: connection.refresh_token.take(), issued_at, login_id, grant, unknown };
    (connection.sequence, connection.modified) = (0, 0);
    headers.insert(HEADER_SEALED_REFRESH, context.store.seal_part(key, &job.id, &part)?);
    headers.insert(HEADER_STATUS, connection.status.as_str());
    let body = json(&connection)?;
    // A worker that was paused for longer tries for a while too: its tokens exist nowhere else, and replace nothing newer.
    let at_least_until = Instant::now() + records::RETRY_FOR;
    let until = || (job.lease.end() + WRITE_FOR).max(at_least_until);
    loop {
        let record = NewRecord {
            publish_to: key.record_subject(),
            subject: key.subject(),
            command_id: job.id.clone(),
            name,
            replaces,
            headers: headers.clone(),
            body: body.clone(),
        };
        let nats = &context.nats;
        let returned = async || context.restarts.returned(nats, &job.server_id, || context.clock.now()).await;
        match records::write(nats, record, until, returned).await? {
            Written::Stored(record) => {
                if context.restarts.is_gone(nats, &job.server_id) {
                    job.lease.lose();
                }
                job.lease.record_stored();
                return Ok(Recorded::Newest(record));
            }
            Written::Replaced { .. } => return Ok(Recorded::Superseded),
            Written::Superseded => {}
        }
        let newest = records::last(&context.nats, &key.subject()).await?;
        match newest.filter(|record| context.store.connection_of(key, record).is_err_and(|error| error.is_junk())) {
            Some(junk) => replaces = junk.sequence,
            None => return Ok(Recorded::Superseded),
        }
    }
}

/// Returns true if the command wrote this record as its result. A tombstone may be of a command that
/// [kept](super::late_tokens) late tokens there.
pub(super) fn is_result_of(job: &Job, record: &StreamMessage) -> bool {
    records::was_written_by(record, &job.id) && header(&record.headers, HEADER_STATUS) != Status::Revoked.as_str()
}

/// The time at which the server stored a record.
pub(super) fn time_of(record: &StreamMessage) -> Timestamp {
    Timestamp::from_nanosecond(record.time.unix_timestamp_nanos()).unwrap_or(Timestamp::MIN)
}

/// The end that an event of that kind tells: that of the refresh token, or of the access token.
pub(super) fn expiry_for(kind: EventKind, connection: &OauthConnection) -> Option<Timestamp> {
    let is_about_refresh_token = kind == EventKind::ReauthorizationDue;
    if is_about_refresh_token { connection.refresh_token_expiry } else { connection.expiry }
}

/// A record to apply.
pub(super) struct Applied<'a> {
    pub(super) record: &'a StreamMessage,
    pub(super) event: EventDetails<'a>,
    /// Revision of the bucket's entry that was read before the record was written, so that it is not read again. 0 if there was
    /// none, `None` if that is not known.
    pub(super) entry: Option<u64>,
}

/// Applies a record, sends the answer that `answer` makes of its connection, and returns the answer. After a crash the next
/// worker finds the record with its command's id and applies it again; each step is safe to repeat. The steps run at the same
/// time, so a crash after one of them may also come before or after each of the others.
pub(super) async fn apply_record(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    applied: Applied<'_>,
    answer: impl FnOnce(&OauthConnection) -> Result<WorkerReply, StoreError>,
) -> Result<WorkerReply, StoreError> {
    let Applied { record, event: details, entry } = applied;
    let stored = context.store.connection_of(key, record)?;
    job.lease.check()?;
    let written = async {
        // 1. Write KV, unless it has a newer state; a tombstone deletes the entry. Durable: calls return the new state. A
        //    crash after this: the next worker finds this record's state in KV and leaves it.
        context.store.put_or_delete_connection(key, stored.clone(), entry).await?;
        fail_point!("apply_1_kv_written");
        // 2. Send the answer. Durable: nothing new. A crash after this: the next worker answers once more.
        let reply = answer(&stored.connection)?;
        job.answer(&context.nats, &reply).await;
        fail_point!("apply_2_answered");
        Ok::<_, StoreError>(reply)
    };
    let published = async {
        // 3. Publish the event. Durable: the audit log has it. A crash after this: the next worker publishes the event
        //    again under the same message id, and the server drops it.
        let mut event = Event::about(&job.subject, details.kind, details.actor, context.clock.now());
        (event.sequence, event.reason) = (Some(record.sequence), details.reason);
        event.expiry = expiry_for(details.kind, &stored.connection);
        // From the record, because a worker that continues after a crash has not seen the answer.
        let stored_event = context.store.event_of(&key.subject(), record)?;
        event.provider = stored_event.as_ref().and_then(|event| event.provider.as_ref()).or(details.provider);
        job.publish_event(context, &event).await?;
        fail_point!("apply_3_event_published");
        Ok::<_, StoreError>(())
    };
    let scheduled = async {
        // 4. Schedule the next refresh, or the next try of a revocation. Durable: the schedule. A crash after this: the
        //    next worker sets it again, in place of this one.
        schedule_by_record(context, key, record, &stored).await?;
        fail_point!("apply_4_refresh_scheduled");
        Ok::<_, StoreError>(())
    };
    // An error of one does not end the others: the caller has its answer as soon as KV is written.
    let (reply, published, scheduled) = tokio::join!(written, published, scheduled);
    published.and(scheduled).and(reply)
}

/// A connection as its newest record has it.
pub(super) struct CaughtUp {
    pub(super) stored: StoredConnection,
    /// Revision of its entry in the bucket, if the entry was read and not written.
    pub(super) revision: Option<u64>,
}

impl CaughtUp {
    fn of(OpenedEntry { stored, revision }: OpenedEntry) -> Self {
        Self { stored, revision: Some(revision) }
    }
}

/// Reads the connection's entry in KV, and [catches up](catch_up) with its newest record.
pub(super) async fn read(
    context: &Context,
    key: &ConnectionKey,
    newest: Option<&StreamMessage>,
) -> Result<Option<CaughtUp>, StoreError> {
    let entry = context.store.connection_entry(key).await?;
    catch_up(context, key, newest, entry).await
}

/// Returns the connection as its newest record has it, or as its entry in KV if that is newer. Updates KV if a worker died
/// between the record and KV.
///
/// Leaves KV alone if that record is a tombstone: the deletion needs the tokens in KV until it has asked the provider
/// to revoke them, and then removes the entry itself.
pub(super) async fn catch_up(
    context: &Context,
    key: &ConnectionKey,
    newest: Option<&StreamMessage>,
    entry: Option<OpenedEntry>,
) -> Result<Option<CaughtUp>, StoreError> {
    let found = entry.map(CaughtUp::of);
    let is_newer =
        |record: &&StreamMessage| found.as_ref().is_none_or(|found| found.stored.connection.sequence < record.sequence);
    let Some(record) = newest.filter(is_newer) else { return Ok(found) };
    let newer = match context.store.connection_of(key, record) {
        Err(error) if error.is_junk() => {
            error!("{error}; the next record replaces it");
            return Ok(found);
        }
        newer => newer?,
    };
    if newer.connection.status == Status::Revoked {
        return Ok(None);
    }
    if !context.store.put_connection(key, newer.clone(), None).await? {
        // The record is one that a killed server brought back after its tombstone had expired, or another worker was first.
        return Ok(context.store.connection_entry(key).await?.map(CaughtUp::of));
    }
    Ok(Some(CaughtUp { stored: newer, revision: None }))
}

/// Returns the connection's state if it is newer than that sequence. Looks at the records, because a command may have set
/// the schedule of a record that is not in KV yet.
async fn newer_state(
    context: &Context,
    key: &ConnectionKey,
    sequence: u64,
) -> Result<Option<StoredConnection>, StoreError> {
    let newest = records::last(&context.nats, &key.subject()).await?;
    if newest.as_ref().is_none_or(|newest| newest.sequence <= sequence) {
        return Ok(None);
    }
    let newer = read(context, key, newest.as_ref()).await?.map(|newer| newer.stored);
    Ok(newer.filter(|newer| newer.connection.sequence > sequence))
}

/// Schedules what a record, whose connection is `stored`, needs next: a refresh, another try of a revocation, or nothing.
pub(super) async fn schedule_by_record(
    context: &Context,
    key: &ConnectionKey,
    record: &StreamMessage,
    stored: &StoredConnection,
) -> Result<(), StoreError> {
    if !schedule_revocation(context, key, record).await? {
        return schedule_next(context, key, stored).await;
    }
    // This schedule may have replaced that of a login which has replaced the tombstone. A login that stores its record after
    // this read sets its schedule later.
    match newer_state(context, key, record.sequence).await? {
        Some(newer) => schedule_next(context, key, &newer).await,
        None => Ok(()),
    }
}

/// Schedules the next try of the revocation that a tombstone waits for. Returns false if it waits for none.
pub(super) async fn schedule_revocation(
    context: &Context,
    key: &ConnectionKey,
    tombstone: &StreamMessage,
) -> Result<bool, StoreError> {
    let Some(waiting) = context.store.waiting_revocation(key, tombstone)? else { return Ok(false) };
    let login_id = context.store.connection_of(key, tombstone)?.login_id;
    let now = context.clock.now();
    // Schedules have whole seconds, and the last try must not come before the end.
    let last = later(waiting.since, context.config.revoke.give_up_after.saturating_add(Duration::from_secs(1)));
    let next = later(now, backoff_revocation(waiting.age(now), system::random_share())).min(last);
    let due = DueRevocation { sequence: tombstone.sequence, login_id };
    schedule::set_revocation(&context.nats, key, next, &due).await?;
    Ok(true)
}

/// Schedules the connection's next refresh, or cancels it if the connection needs none.
pub(super) async fn schedule_next(
    context: &Context,
    key: &ConnectionKey,
    stored: &StoredConnection,
) -> Result<(), StoreError> {
    let nats = &context.nats;
    let next = |stored: &StoredConnection| {
        let at = stored.next_due(context.clock.now(), context.config.refresh.min_interval, system::random_share())?;
        // A hold has waited already, so it goes ahead of refreshes without a slot.
        let slot_reserved = stored.refresh_failure.as_ref().is_some_and(|failure| failure.reason == INTERRUPTED);
        Some((at, Due { sequence: stored.connection.sequence, slot_reserved }))
    };
    if let Some((at, due)) = next(stored) {
        return Ok(schedule::set(nats, key, at, due).await?);
    }
    schedule::cancel(nats, key).await?;
    // The purge may have removed a newer state's schedule; restore it. A record that is stored after this read needs no
    // repair: its schedule is set after the purge.
    let newer = newer_state(context, key, stored.connection.sequence).await?;
    match newer.as_ref().and_then(next) {
        Some((at, due)) => Ok(schedule::set(nats, key, at, due).await?),
        None => Ok(()),
    }
}

/// Builds the reply that shows a connection.
pub(super) fn reply_with(connection: &OauthConnection) -> Result<WorkerReply, StoreError> {
    let body = serde_json::to_value(connection).map_err(StoreError::unreadable(connection.subject.as_str()))?;
    Ok(WorkerReply::ok(body))
}
