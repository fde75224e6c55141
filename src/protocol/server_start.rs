//! The last start of a server that may have lost acknowledged commands and schedules in a crash.
//!
//! A server has a new id at each start. `oauth_meta` holds the id that workers saw last. The first worker that connects and
//! finds another id writes it, by compare-and-swap, and the server's time of that write is the time of the restart for all
//! workers.
//!
//! Before that write, consumers whose position may be wrong after the crash are created again. When a queue comes back without
//! its last messages, a nats-server 2.15.1 lowers the positions of its consumers to the queue's end. A consumer that has stored
//! no ack yet gets position 0, which the server takes for missing. It then reads the old position from disk, and never
//! delivers the commands that are queued next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::jetstream::{Nats, NatsError, kv};
use crate::protocol::{commands, schedule, topology};
use crate::subject::{META, META_SERVER, OAUTH_COMMANDS, OAUTH_SCHEDULE, Verb, kv_stream, kv_subject};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerStart {
    pub(crate) server_id: String,
    /// Time at which workers noticed the restart. `None` for the first server that the store has seen: no worker had a command
    /// before.
    pub(crate) restarted: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    server_id: String,
    is_restart: bool,
}

/// Returns the start of the connection's server. Writes it down if this worker is the first that sees it.
pub(crate) async fn current(nats: &Nats) -> Result<ServerStart, NatsError> {
    loop {
        let newest = nats.last(&kv_stream(META), &kv_subject(META, META_SERVER)).await?;
        // Read after an answer: right after a reconnect the client may still know the earlier id.
        let server_id = nats.server_id();
        let stored = newest.as_ref().and_then(|entry| serde_json::from_slice::<Stored>(&entry.payload).ok());
        if let (Some(entry), Some(stored)) = (&newest, stored)
            && stored.server_id == server_id
        {
            let time = Timestamp::from_nanosecond(entry.time.unix_timestamp_nanos()).unwrap_or(Timestamp::MAX);
            return Ok(ServerStart { server_id, restarted: stored.is_restart.then_some(time) });
        }
        if newest.is_some() {
            renew_consumers(nats).await?;
        }
        let seen = Stored { server_id, is_restart: newest.is_some() };
        let value = serde_json::to_vec(&seen).map_err(NatsError::unreadable)?;
        let replaces = newest.map_or(0, |entry| entry.sequence);
        match kv::put(nats, META, META_SERVER, value.into(), replaces).await {
            // Read the time at which this or another worker's write was stored.
            Ok(()) | Err(NatsError::WrongLastSequence) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Creates again each consumer that has delivered messages and has no ack. The new one delivers everything that is queued.
/// Workers leave deliveries alone until the restart is written down. A second worker that comes here at the same moment may
/// delete a consumer that the first one has created; its command is then delivered once more, as after a lost ack.
async fn renew_consumers(nats: &Nats) -> Result<(), NatsError> {
    for verb in Verb::ALL {
        if discard_unacked(nats, OAUTH_COMMANDS, verb.as_str()).await? {
            commands::declare_consumer(nats, verb).await?;
        }
    }
    let due = topology::due_consumer().durable_name.unwrap_or_default();
    if discard_unacked(nats, OAUTH_SCHEDULE, &due).await? {
        schedule::consumer(nats).await?;
    }
    Ok(())
}

/// Deletes a consumer without acks. Returns true if it did.
async fn discard_unacked(nats: &Nats, stream: &str, consumer: &str) -> Result<bool, NatsError> {
    let Some(info) = nats.consumer_info(stream, consumer).await? else { return Ok(false) };
    if info.delivered.stream_sequence == 0 || info.ack_floor.stream_sequence > 0 {
        return Ok(false);
    }
    warn!(stream, consumer, "the server was restarted before it stored an ack; the consumer is created again");
    nats.delete_consumer(stream, consumer).await?;
    Ok(true)
}
