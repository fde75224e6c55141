//! The clock: the server keeps it. One schedule a connection; setting it again replaces it.

use std::collections::HashSet;

use async_nats::jetstream::consumer::PullConsumer;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Nats, NatsError, headers, topology};
use crate::subject::{ConnectionKey, OAUTH_SCHEDULE, SCHEDULES};

const SCHEDULE: &str = "Nats-Schedule";
const TARGET: &str = "Nats-Schedule-Target";

/// What a schedule remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Sequence of the record that it was set for.
    pub sequence: u64,
}

/// Has a connection's refresh come up at that time, in place of whatever was set before.
///
/// # Errors
/// [`NatsError`] when it could not be set.
pub async fn set(nats: &Nats, key: &ConnectionKey, at: Timestamp, due: Due) -> Result<(), NatsError> {
    let mut headers = headers(None);
    headers.insert(SCHEDULE, format!("@at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
    headers.insert(TARGET, key.schedule_due());
    let body = serde_json::to_vec(&due).map_err(|_| NatsError::Unreadable)?;
    nats.publish(&key.schedule_at(), headers, Bytes::from(body)).await.map(drop)
}

/// Forgets a connection's schedule.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub async fn cancel(nats: &Nats, key: &ConnectionKey) -> Result<(), NatsError> {
    nats.connected()?;
    let stream = nats.jetstream.get_stream_no_info(OAUTH_SCHEDULE).await.map_err(|_| NatsError::Unreadable)?;
    for subject in [key.schedule_at(), key.schedule_due()] {
        stream.purge().filter(subject).await.map_err(|_| NatsError::Away("no answer to a purge"))?;
    }
    Ok(())
}

/// Subjects of all schedules, set or due. Asked of the stream's state: a work queue lets nobody but workers read it.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub async fn subjects(nats: &Nats) -> Result<HashSet<String>, NatsError> {
    nats.connected()?;
    let away = || NatsError::Away("no answer about the schedule");
    let stream = nats.jetstream.get_stream_no_info(OAUTH_SCHEDULE).await.map_err(|_| away())?;
    let counts = stream.info_with_subjects(SCHEDULES).await.map_err(|_| away())?;
    counts.map_ok(|(subject, _)| subject).try_collect().await.map_err(|_| away())
}

/// Makes the consumer of what is due, or finds it.
///
/// # Errors
/// [`NatsError`] when the server refuses.
pub async fn consumer(nats: &Nats) -> Result<PullConsumer, NatsError> {
    nats.connected()?;
    let made = nats.jetstream.create_consumer_on_stream(topology::due_consumer(), OAUTH_SCHEDULE).await;
    made.map_err(|error| NatsError::Refused { code: 0, description: format!("consumer due: {error}") })
}
