//! The repair pass: updates entries that are missing or older than their record, finds connections and waiting revocations that
//! need a schedule and have none, and resumes connections that waited for a config.
//!
//! Guarantees that no connection that needs a schedule stays without one for longer than `refresh.repair_interval`, or twice
//! that if a pass fails midway. One worker at a time makes a pass. It reads keys and headers in chunks, with pauses,
//! because it finds something only after a crash or a lost queue. A lost queue, or a restart of a single server, starts it at
//! once. If it
//! does not run, a connection whose schedule was lost is refreshed only when a reader asks for it.

mod compare;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::compare::WithoutRecord;
use crate::auth::api_key::unpublished;
use crate::command::{HEADER_REFRESH, HEADER_SEALED_REVOCATION, HEADER_STATUS, REFRESH_NONE, REFRESH_PAUSED};
use crate::connection::Status;
use crate::jetstream::reader::{Reader, Stored};
use crate::jetstream::{NatsError, batch, header, kv};
use crate::protocol::records;
use crate::protocol::schedule::{self, Due};
use crate::protocol::topology;
use crate::store::{StoreError, json};
use crate::subject::{
    CONNECTIONS, ConnectionKey, Integration, META, META_REPAIR, META_RESTORED, OAUTH, RECORDS_STORED, connections_at,
    kv_stream,
};
use crate::system;
use crate::worker::apply;
use crate::worker::context::{Context, Tally};
use crate::worker::restart::RESTART_PAUSE;

/// Keys per chunk. Each key has two subjects in the schedule.
const CHUNK: usize = batch::MAX_SUBJECTS / 2;
/// Pause after each chunk.
const CHUNK_PAUSE: Duration = Duration::from_millis(200);
/// Pause after each repaired connection.
const REPAIR_PAUSE: Duration = Duration::from_millis(2);

/// Start of the last pass of any worker.
#[derive(Serialize, Deserialize)]
struct LastPass {
    begun: Timestamp,
    /// The connections that the last whole pass has counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connections: Option<Tally>,
}

/// Makes passes until `stop`.
pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        never = run_passes(&context) => match never {},
    }
}

async fn run_passes(context: &Context) -> std::convert::Infallible {
    let every = context.config.refresh.repair_interval;
    publish_key_events(context).await;
    // A random first pause, so that workers that start together do not compete for the pass.
    let mut pause = every.mul_f64(system::random_share());
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {
                pause = every;
                let lately = SignedDuration::try_from(every.mul_f64(0.9)).unwrap_or(SignedDuration::MAX);
                if let Err(error) = run_pass(context, lately).await {
                    warn!("repair pass failed: {error}");
                }
            }
            () = context.wakeups.lost_queue() => {
                // Even if the last pass has just begun: it may have read a part of the schedule before the loss.
                if let Err(error) = run_pass(context, SignedDuration::ZERO).await {
                    warn!("repair pass failed: {error}; trying again");
                    tokio::time::sleep(RESTART_PAUSE).await;
                    context.wakeups.report_lost_queue();
                }
            }
            () = context.wakeups.restart() => {
                // Every worker asks for this pass, and one makes it. A pass that began before the restart does not count.
                let since = context.restarts.restarted().map(|restarted| context.clock.now().duration_since(restarted));
                if let Err(error) = run_pass(context, since.unwrap_or_default()).await {
                    warn!("repair pass failed: {error}; trying again");
                    tokio::time::sleep(RESTART_PAUSE).await;
                    context.wakeups.report_lost_queue();
                }
            }
            () = context.wakeups.new_config() => {
                for integration in context.wakeups.take_new_configs() {
                    match resume(context, &integration).await {
                        Ok(0) => {}
                        Ok(found) => info!(%integration, "the integration has a new config; resumed {found} connections"),
                        Err(error) => warn!(%integration, "cannot resume connections: {error}; they resume at their next check"),
                    }
                }
            }
        }
    }
}

/// Makes a pass without pauses if the store was restored from a backup, before any worker takes commands: records, entries and
/// schedules may be of different times. Workers that start together all make it; a second pass changes nothing.
pub(in crate::worker) async fn after_restore(context: &Context) -> Result<(), StoreError> {
    let nats = &context.nats;
    let Some(meta) = nats.stream_info(&kv_stream(META)).await? else { return Ok(()) };
    let Some(backup) = topology::restored_from(&meta.config).map(str::to_owned) else { return Ok(()) };
    let seen = kv::get(nats, META, META_RESTORED).await?;
    if seen.as_ref().is_some_and(|seen| seen.payload == backup.as_bytes()) {
        return Ok(());
    }
    info!("the store was restored from a backup; making a repair pass");
    repair_all(context, Duration::ZERO).await?;
    match kv::put(nats, META, META_RESTORED, backup.into(), seen.map_or(0, |seen| seen.revision)).await {
        // Another worker has made the pass too.
        Ok(()) | Err(NatsError::WrongLastSequence) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn run_pass(context: &Context, lately: SignedDuration) -> Result<(), StoreError> {
    if claim_pass(context, lately).await? { repair_all(context, CHUNK_PAUSE).await } else { Ok(()) }
}

async fn repair_all(context: &Context, chunk_pause: Duration) -> Result<(), StoreError> {
    // First, so that the entries that it restores get their schedules.
    let (mut repaired, connections) = repair_by_records(context, chunk_pause).await?;
    store_tally(context, connections).await?;
    let nats = &context.nats;
    let mut reader = kv::HeaderReader::start(nats, CONNECTIONS, ">").await?;
    let mut without_record = WithoutRecord::default();
    while let Some(seen) = reader.next_chunk(CHUNK).await? {
        without_record.add_connections(context, &seen).await?;
        let due =
            seen.iter().filter(|seen| header(&seen.headers, HEADER_REFRESH) != REFRESH_NONE).filter_map(key).collect();
        for key in schedule::without_schedule(nats, due).await? {
            repaired += usize::from(repair(context, &key, false).await?);
            tokio::time::sleep(REPAIR_PAUSE).await;
        }
        tokio::time::sleep(chunk_pause).await;
    }
    without_record.add_configs(context).await?;
    without_record.report();
    if repaired > 0 {
        info!("repaired {repaired} connections without a schedule");
    }
    publish_key_events(context).await;
    Ok(())
}

/// Updates entries that are older than their record, and schedules the waiting revocations that have no schedule. Only
/// records hold them. Returns the number of schedules, and of connections.
async fn repair_by_records(context: &Context, chunk_pause: Duration) -> Result<(usize, Tally), StoreError> {
    let nats = &context.nats;
    let mut reader = Reader::headers(nats, OAUTH, RECORDS_STORED).await?;
    let (mut repaired, mut connections) = (0, Tally::default());
    loop {
        let seen = reader.next_chunk(CHUNK).await?;
        if seen.is_empty() {
            return Ok((repaired, connections));
        }
        for stored in seen.iter().filter(|stored| ConnectionKey::parse_subject(&stored.message.subject).is_ok()) {
            connections.add(stored.message.headers.as_ref().map_or("", |headers| header(headers, HEADER_STATUS)));
        }
        compare::update_entries(context, &seen).await?;
        let waits = |stored: &Stored| {
            stored.message.headers.as_ref().is_some_and(|headers| !header(headers, HEADER_SEALED_REVOCATION).is_empty())
        };
        let waiting = seen.iter().filter(|stored| waits(stored));
        let keys = waiting.filter_map(|stored| ConnectionKey::parse_subject(&stored.message.subject).ok()).collect();
        for key in schedule::without_schedule(nats, keys).await? {
            let Some(newest) = records::last(nats, &key.subject()).await? else { continue };
            repaired += usize::from(apply::schedule_revocation(context, &key, &newest).await?);
            tokio::time::sleep(REPAIR_PAUSE).await;
        }
        tokio::time::sleep(chunk_pause).await;
    }
}

/// Publishes the events of API keys that a crash left out: at the start, because the crash may have been this worker's, and
/// in each pass.
async fn publish_key_events(context: &Context) {
    if let Err(error) = unpublished::publish_all(&context.nats).await {
        warn!("cannot look for unpublished events of API keys: {error}; trying again in the next repair pass");
    }
}

fn key(seen: &kv::Entry) -> Option<ConnectionKey> {
    ConnectionKey::parse_kv_key(&seen.key).ok()
}

/// Claims the next pass for this worker. Returns false if a pass began within the time `lately`.
async fn claim_pass(context: &Context, lately: SignedDuration) -> Result<bool, StoreError> {
    let nats = &context.nats;
    let entry = kv::get(nats, META, META_REPAIR).await?;
    let last: Option<LastPass> = entry.as_ref().and_then(|entry| serde_json::from_slice(&entry.payload).ok());
    let connections = last.as_ref().and_then(|last| last.connections);
    if let Some(connections) = connections {
        context.measures.connections.show(connections);
    }
    let now = context.clock.now();
    // A worker with a clock that was ahead may have stored a time in the future; it must not block passes until then.
    if last.is_some_and(|last| now.duration_since(last.begun).abs() < lately) {
        return Ok(false);
    }
    let replaces = entry.map_or(0, |entry| entry.revision);
    match kv::put(nats, META, META_REPAIR, json(&LastPass { begun: now, connections })?, replaces).await {
        Ok(()) => Ok(true),
        Err(NatsError::WrongLastSequence) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Stores the number of connections for the metrics of all workers. If another pass has begun, that one stores its own.
async fn store_tally(context: &Context, connections: Tally) -> Result<(), StoreError> {
    context.measures.connections.show(connections);
    let Some(entry) = kv::get(&context.nats, META, META_REPAIR).await? else { return Ok(()) };
    let Ok(last) = serde_json::from_slice::<LastPass>(&entry.payload) else { return Ok(()) };
    let last = LastPass { connections: Some(connections), ..last };
    match kv::put(&context.nats, META, META_REPAIR, json(&last)?, entry.revision).await {
        Ok(()) | Err(NatsError::WrongLastSequence) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets a connection's schedule, or starts its refresh at once if that paused. Removes the connection instead if its
/// record is a tombstone: a late write restored it.
async fn repair(context: &Context, key: &ConnectionKey, is_resumed: bool) -> Result<bool, StoreError> {
    let stored = match context.store.stored_connection(key).await {
        Err(error) if error.is_junk() => {
            warn!("skipped by the repair pass: {error}");
            return Ok(false);
        }
        stored => stored?,
    };
    let Some(stored) = stored else { return Ok(false) };
    if let Some(deleted) = context.store.tombstone(key).await?.filter(|deleted| *deleted > stored.connection.sequence) {
        context.store.delete_connection(key, deleted).await?;
        return Ok(true);
    }
    if is_resumed && stored.connection.status == Status::Active {
        // The refresh was due when it paused.
        let due = Due { sequence: stored.connection.sequence, slot_reserved: false };
        schedule::set(&context.nats, key, context.clock.now(), due).await?;
    } else if stored.has_due_time() {
        apply::schedule_next(context, key, &stored).await?;
    }
    Ok(stored.has_due_time())
}

/// Schedules an integration's paused connections.
async fn resume(context: &Context, integration: &Integration) -> Result<usize, StoreError> {
    let filter = connections_at(integration);
    let mut reader = kv::HeaderReader::start(&context.nats, CONNECTIONS, &filter).await?;
    let mut resumed = 0;
    while let Some(seen) = reader.next_chunk(CHUNK).await? {
        for key in seen.iter().filter(|seen| header(&seen.headers, HEADER_REFRESH) == REFRESH_PAUSED).filter_map(key) {
            resumed += usize::from(repair(context, &key, true).await?);
            tokio::time::sleep(REPAIR_PAUSE).await;
        }
    }
    Ok(resumed)
}
