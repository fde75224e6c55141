//! The last start of a server that may have lost acknowledged commands and schedules in a crash.
//!
//! A server has a new id at each start. `oauth_meta` holds the id that workers saw last. The first worker that connects and
//! finds another id writes it, by compare-and-swap, and the server's time of that write is the time of the restart for all
//! workers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::{META, META_SERVER, kv_stream, kv_subject};

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
