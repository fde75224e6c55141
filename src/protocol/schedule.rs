//! The clock: the server keeps it. One schedule a connection; setting it again replaces it.

use std::collections::HashSet;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::PullConsumer;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::jetstream::{Nats, NatsError, batch, headers};
use crate::protocol::topology;
use crate::subject::{ConnectionKey, OAUTH_SCHEDULE};

const SCHEDULE: &str = "Nats-Schedule";
const TARGET: &str = "Nats-Schedule-Target";

/// What a schedule remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Sequence of the record that it was set for.
    pub sequence: u64,
    /// Whether its turn at the integration was booked: it stood in line before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub booked: bool,
}

/// Has a connection's refresh come up at that time, in place of whatever was set before.
///
/// # Errors
/// [`NatsError`] when it could not be set.
pub(crate) async fn set(nats: &Nats, key: &ConnectionKey, at: Timestamp, due: Due) -> Result<(), NatsError> {
    let (subject, headers, body) = message(key, at, due)?;
    nats.publish(&subject, headers, body).await.map(drop)
}

/// The message that sets a schedule.
///
/// # Errors
/// [`NatsError::Unreadable`] for a value that has no JSON form, which none has.
pub fn message(key: &ConnectionKey, at: Timestamp, due: Due) -> Result<(String, HeaderMap, Bytes), NatsError> {
    let mut headers = headers(None);
    headers.insert(SCHEDULE, format!("@at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
    headers.insert(TARGET, key.schedule_due());
    let body = serde_json::to_vec(&due).map_err(|_| NatsError::Unreadable)?;
    Ok((key.schedule_at(), headers, Bytes::from(body)))
}

/// Forgets a connection's schedule.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn cancel(nats: &Nats, key: &ConnectionKey) -> Result<(), NatsError> {
    nats.connected()?;
    let stream = nats.jetstream.get_stream_no_info(OAUTH_SCHEDULE).await.map_err(|_| NatsError::Unreadable)?;
    for subject in [key.schedule_at(), key.schedule_due()] {
        stream.purge().filter(subject).await.map_err(|_| NatsError::Away("no answer to a purge"))?;
    }
    Ok(())
}

/// Of these connections, those that have neither a schedule nor a due refresh; at most half of
/// [`batch::MOST_SUBJECTS`] of them.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn without(nats: &Nats, keys: Vec<ConnectionKey>) -> Result<Vec<ConnectionKey>, NatsError> {
    if keys.is_empty() {
        return Ok(keys);
    }
    let subjects = keys.iter().flat_map(|key| [key.schedule_at(), key.schedule_due()]).collect();
    let present: HashSet<String> = batch::present(nats, OAUTH_SCHEDULE, subjects).await?.into_iter().collect();
    let has = |key: &ConnectionKey| present.contains(&key.schedule_at()) || present.contains(&key.schedule_due());
    Ok(keys.into_iter().filter(|key| !has(key)).collect())
}

/// Makes the consumer of what is due, or finds it.
///
/// # Errors
/// [`NatsError`] when the server refuses.
pub(crate) async fn consumer(nats: &Nats) -> Result<PullConsumer, NatsError> {
    nats.connected()?;
    let made = nats.jetstream.create_consumer_on_stream(topology::due_consumer(), OAUTH_SCHEDULE).await;
    made.map_err(|error| NatsError::Refused { code: 0, description: format!("consumer due: {error}") })
}
