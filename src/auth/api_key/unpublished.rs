//! Events of changes of API keys, which survive a crash.
//!
//! A change is one write of the key's entry, and its event is stored in another stream. So the entry carries the event in a
//! header until the event is published: after a crash between the two, the next repair pass finds the header. A crash
//! after the event and before the header's removal publishes the event again; outside the server's window for duplicates
//! the audit log then has it twice, with the same content.

use async_nats::HeaderMap;
use fail::fail_point;
use tracing::{info, warn};

use crate::event::Event;
use crate::jetstream::kv::{self, Change, Entry, Write};
use crate::jetstream::{Nats, NatsError, header};
use crate::protocol::events::publish_stored_event;
use crate::subject::API_KEYS;

/// Header of an entry whose event may be missing in the audit log: the event, as JSON.
const HEADER_EVENT: &str = "Oauth-Event";

/// The headers of an entry with an event that is still to be published.
pub(super) fn headers(event: &Event<'_>) -> Result<HeaderMap, NatsError> {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_EVENT, serde_json::to_string(event).map_err(NatsError::unreadable)?);
    Ok(headers)
}

/// Publishes the event that the key's entry carries, if any, and removes it from the entry.
pub(super) async fn publish(nats: &Nats, id: &str) -> Result<(), NatsError> {
    let Some(entry) = kv::get(nats, API_KEYS, id).await? else { return Ok(()) };
    let event = header(&entry.headers, HEADER_EVENT).to_owned();
    if event.is_empty() {
        return Ok(());
    }
    publish_stored_event(nats, &event, id).await?;
    fail_point!("api_key_event_published");
    let removed = kv::update_from(nats, API_KEYS, id, Some(entry), |entry| {
        let carries = |entry: &&Entry| header(&entry.headers, HEADER_EVENT) == event;
        let Some(entry) = entry.filter(carries) else { return Ok(Change::Keep(())) };
        let (headers, payload) = (HeaderMap::new(), entry.payload.clone());
        let write = match &entry.value {
            Some(value) => Write::Put { headers, value: value.clone() },
            None => Write::Delete { headers, body: payload },
        };
        Ok::<_, NatsError>(Change::Write(write, ()))
    });
    // The event is stored, so the change succeeded.
    if let Err(error) = removed.await {
        warn!(id, "an API key's entry keeps its published event: {error}; the next repair pass removes it");
    }
    Ok(())
}

/// Publishes the events that a crash left unpublished.
pub(crate) async fn publish_all(nats: &Nats) -> Result<(), NatsError> {
    let mut published = 0_usize;
    for entry in kv::all_headers(nats, API_KEYS).await? {
        if header(&entry.headers, HEADER_EVENT).is_empty() {
            continue;
        }
        match publish(nats, &entry.key).await {
            Ok(()) => published += 1,
            Err(error) if error.is_unavailable() => return Err(error),
            // Junk must not keep the other events back.
            Err(error) => warn!(id = entry.key, "cannot publish the event in an API key's entry: {error}"),
        }
    }
    if published > 0 {
        info!("published {published} events of API keys that a crash had left out");
    }
    Ok(())
}
