//! Connections that lost their schedule get one again, and those that paused for want of a config go on.
//!
//! A pass sees keys and headers only, a chunk at a time, and takes its time: it is for what should not happen.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::command::{HEADER_REFRESH, REFRESH_NONE, REFRESH_PAUSED};
use crate::jetstream::{NatsError, batch, header, kv};
use crate::protocol::schedule;
use crate::store::{StoreError, json};
use crate::subject::{CONNECTIONS, ConnectionKey, Integration, META, META_REPAIR, connections_at};
use crate::system;
use crate::worker::apply;
use crate::worker::context::Context;
use crate::worker::restart::RESTART_PAUSE;

/// Keys looked at together: each has two subjects in the schedule.
const CHUNK: usize = batch::MAX_SUBJECTS / 2;
/// Pause between two chunks.
const PACE: Duration = Duration::from_millis(200);
/// Pause behind each connection that was mended.
const PACE_EACH: Duration = Duration::from_millis(2);

/// When the last pass began: one at a time is enough, whoever's it is.
#[derive(Serialize, Deserialize)]
struct Mark {
    begun: Timestamp,
}

/// Looks now and then, and when a config comes back, until told to stop.
pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        never = look(&context) => match never {},
    }
}

async fn look(context: &Context) -> std::convert::Infallible {
    let every = context.config.refresh.repair_interval;
    // Workers that started together do not look together.
    let mut pause = every.mul_f64(system::random_share());
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {
                pause = every;
                if let Err(error) = pass(context, every).await {
                    warn!("repair pass ended early: {error}");
                }
            }
            () = context.resumed.lost() => {
                // However short ago the last one began.
                if let Err(error) = pass(context, Duration::ZERO).await {
                    warn!("repair pass ended early: {error}; trying again");
                    tokio::time::sleep(RESTART_PAUSE).await;
                    context.resumed.add_lost();
                }
            }
            () = context.resumed.news() => {
                for integration in context.resumed.take() {
                    match resume(context, &integration).await {
                        Ok(0) => {}
                        Ok(found) => info!(%integration, "the config is back; {found} connections go on"),
                        Err(error) => warn!(%integration, "connections go on later: {error}"),
                    }
                }
            }
        }
    }
}

async fn pass(context: &Context, every: Duration) -> Result<(), StoreError> {
    if !claim(context, every).await? {
        return Ok(());
    }
    let nats = &context.nats;
    let mut reader = kv::HeaderReader::start(nats, CONNECTIONS, ">").await?;
    let mut repaired = 0_usize;
    while let Some(seen) = reader.next_chunk(CHUNK).await? {
        let due =
            seen.iter().filter(|seen| header(&seen.headers, HEADER_REFRESH) != REFRESH_NONE).filter_map(key).collect();
        for key in schedule::without_schedule(nats, due).await? {
            repaired += usize::from(mend(context, &key).await?);
            tokio::time::sleep(PACE_EACH).await;
        }
        tokio::time::sleep(PACE).await;
    }
    if repaired > 0 {
        info!("{repaired} connections had lost their schedule");
    }
    Ok(())
}

fn key(seen: &kv::Entry) -> Option<ConnectionKey> {
    ConnectionKey::parse_kv_key(&seen.key).ok()
}

/// Makes this worker's the next pass, unless one began lately.
async fn claim(context: &Context, every: Duration) -> Result<bool, StoreError> {
    let nats = &context.nats;
    let entry = kv::get(nats, META, META_REPAIR).await?;
    let mark: Option<Mark> = entry.as_ref().and_then(|entry| serde_json::from_slice(&entry.payload).ok());
    let (now, lately) = (system::now(), SignedDuration::try_from(every.mul_f64(0.9)).unwrap_or(SignedDuration::MAX));
    // A clock that was ahead may have left a mark of times to come, which is to keep nobody out until then.
    if mark.is_some_and(|mark| now.duration_since(mark.begun).abs() < lately) {
        return Ok(false);
    }
    let replaces = entry.map_or(0, |entry| entry.revision);
    match kv::put(nats, META, META_REPAIR, json(&Mark { begun: now })?, replaces).await {
        Ok(_) => Ok(true),
        Err(NatsError::WrongLastSequence) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets a connection's schedule, or takes the connection out if it was deleted and a write came too late for that.
async fn mend(context: &Context, key: &ConnectionKey) -> Result<bool, StoreError> {
    let Some(connection) = context.store.connection(key).await? else { return Ok(false) };
    if let Some(deleted) = context.store.tombstone(key).await?.filter(|deleted| *deleted > connection.sequence) {
        context.store.delete_connection(key, deleted).await?;
        return Ok(true);
    }
    if connection.is_kept_alive() {
        apply::schedule_next(context, key, &connection).await?;
    }
    Ok(connection.is_kept_alive())
}

/// Sets the schedules of an integration's paused connections.
async fn resume(context: &Context, integration: &Integration) -> Result<usize, StoreError> {
    let filter = connections_at(integration);
    let mut reader = kv::HeaderReader::start(&context.nats, CONNECTIONS, &filter).await?;
    let mut resumed = 0;
    while let Some(seen) = reader.next_chunk(CHUNK).await? {
        for key in seen.iter().filter(|seen| header(&seen.headers, HEADER_REFRESH) == REFRESH_PAUSED).filter_map(key) {
            resumed += usize::from(mend(context, &key).await?);
            tokio::time::sleep(PACE_EACH).await;
        }
    }
    Ok(resumed)
}
