//! Schedules: when each connection is refreshed next.
//!
//! The server is the clock: at the given time it publishes the schedule's body to the connection's due subject in the
//! same stream, where it waits until a worker turns it into a command. A connection has at most one schedule: setting it
//! again replaces it, so repeating a publish does no harm. A time in the past is due at once. A server that is killed
//! right after an ack may lose the stream; the repair pass then sets all schedules again.

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

/// Body of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Sequence of the record that the schedule was set for.
    pub sequence: u64,
    /// True if the refresh limiter reserved a slot for this time, or if a hold ends then.
    #[serde(default, rename = "booked", skip_serializing_if = "std::ops::Not::not")]
    pub slot_reserved: bool,
}

/// Body of a schedule of a deleted connection. A release that does not know it reads it as a [`Due`], and its refresh finds no
/// connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DueRevocation {
    /// Sequence of the tombstone.
    pub sequence: u64,
    /// Id of the login that made the connection.
    #[serde(rename = "revoke")]
    pub login_id: String,
}

/// Schedules a connection's refresh in place of an earlier schedule.
pub(crate) async fn set(nats: &Nats, key: &ConnectionKey, at: Timestamp, due: Due) -> Result<(), NatsError> {
    publish(nats, message(key, at, due)?).await
}

/// Schedules the next try of a deleted connection's revocation in place of an earlier schedule.
pub(crate) async fn set_revocation(
    nats: &Nats,
    key: &ConnectionKey,
    at: Timestamp,
    due: &DueRevocation,
) -> Result<(), NatsError> {
    publish(nats, message_with(key, at, due)?).await
}

async fn publish(nats: &Nats, message: ScheduleMessage) -> Result<(), NatsError> {
    let ScheduleMessage { subject, headers, body } = message;
    nats.publish(&subject, headers, body).await.map(drop)
}

#[derive(Debug)]
pub struct ScheduleMessage {
    pub subject: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Builds the message that sets a schedule.
///
/// # Errors
/// If the body has no JSON form, which cannot happen.
pub fn message(key: &ConnectionKey, at: Timestamp, due: Due) -> Result<ScheduleMessage, NatsError> {
    message_with(key, at, &due)
}

fn message_with(key: &ConnectionKey, at: Timestamp, due: &impl Serialize) -> Result<ScheduleMessage, NatsError> {
    let mut headers = headers(None);
    headers.insert(SCHEDULE, format!("@at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
    headers.insert(TARGET, key.schedule_due());
    let body = serde_json::to_vec(due).map_err(NatsError::unreadable)?;
    Ok(ScheduleMessage { subject: key.schedule_at(), headers, body: Bytes::from(body) })
}

/// Deletes a connection's schedule, and its refresh if that is due and not yet a command.
pub(crate) async fn cancel(nats: &Nats, key: &ConnectionKey) -> Result<(), NatsError> {
    for subject in [key.schedule_at(), key.schedule_due()] {
        nats.purge_subject(OAUTH_SCHEDULE, &subject).await?;
    }
    Ok(())
}

/// Returns those of the given connections that have neither a schedule nor a due refresh. Takes at most half of
/// [`batch::MAX_SUBJECTS`] connections, because it asks for two subjects of each.
pub(crate) async fn without_schedule(nats: &Nats, keys: Vec<ConnectionKey>) -> Result<Vec<ConnectionKey>, NatsError> {
    if keys.is_empty() {
        return Ok(keys);
    }
    let subjects = keys.iter().flat_map(|key| [key.schedule_at(), key.schedule_due()]).collect();
    let present: HashSet<String> = batch::present(nats, OAUTH_SCHEDULE, subjects).await?.into_iter().collect();
    let has = |key: &ConnectionKey| present.contains(&key.schedule_at()) || present.contains(&key.schedule_due());
    Ok(keys.into_iter().filter(|key| !has(key)).collect())
}

/// Creates the consumer of due refreshes, or looks it up.
pub(crate) async fn consumer(nats: &Nats) -> Result<PullConsumer, NatsError> {
    nats.require_connected()?;
    let created = nats.create_consumer(OAUTH_SCHEDULE, topology::due_consumer()).await;
    created.map_err(|source| NatsError::Consumer { name: "due".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::command::Work;

    /// Schedules and commands of older releases use the name `booked`.
    #[test]
    fn a_reserved_slot_is_stored_as_booked() {
        #[track_caller]
        fn check(slot_reserved: bool, due: &Value, refresh: &Value) {
            let work = Work::Refresh { actor: None, sequence: 7, slot_reserved };
            assert_eq!(&json!(Due { sequence: 7, slot_reserved }), due);
            assert_eq!(&json!(work), refresh);
            assert_eq!(serde_json::from_value::<Due>(due.clone()).unwrap(), Due { sequence: 7, slot_reserved });
            let read: Work = serde_json::from_value(refresh.clone()).unwrap();
            assert!(matches!(read, Work::Refresh { slot_reserved: read, .. } if read == slot_reserved));
        }
        check(
            true,
            &json!({ "sequence": 7, "booked": true }),
            &json!({ "refresh": { "actor": null, "sequence": 7, "booked": true } }),
        );
        check(false, &json!({ "sequence": 7 }), &json!({ "refresh": { "actor": null, "sequence": 7 } }));
    }
}
