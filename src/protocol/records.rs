//! Records: written with the sequence they replace, and believed only once read back from the leader.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use tracing::warn;

use crate::command::HEADER_COMMAND;
use crate::jetstream::{LONGEST_PUBLISH, Nats, NatsError, TRY, header};
use crate::subject::OAUTH;

/// A record to be written.
pub(crate) struct NewRecord {
    /// Where it is published.
    pub publish_to: String,
    /// Where the stream keeps it.
    pub subject: String,
    /// Id of the command it is the work of.
    pub command_id: String,
    /// The sequence it replaces, 0 when there must be none.
    pub replaces: u64,
    /// Further headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// How long a record is tried to be written while the bus is away: what a provider issued exists nowhere else.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(250);
/// After that long a record is there, or whoever writes it has given up: the last try begins when patience ends.
pub(crate) const LONGEST_WRITE: Duration =
    PATIENCE.saturating_add(AGAIN).saturating_add(LONGEST_PUBLISH).saturating_add(TRY);

/// What became of a record.
pub(crate) enum Written {
    /// It is the newest of its subject.
    Stored(StreamMessage),
    /// It was stored, and another writer's record has replaced it since.
    Replaced {
        /// Its sequence.
        sequence: u64,
    },
    /// Another writer's record is there instead.
    Superseded,
}

/// The newest record of a subject.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn last(nats: &Nats, subject: &str) -> Result<Option<StreamMessage>, NatsError> {
    nats.last(OAUTH, subject).await
}

/// Whether a record is the work of that command.
#[must_use]
pub(crate) fn is_work_of(record: &StreamMessage, command_id: &str) -> bool {
    header(&record.headers, HEADER_COMMAND) == command_id
}

/// Writes a record. Its id decides, not the answer: a publish that got no answer may have been stored, and its
/// repetition is then refused because of itself.
///
/// # Errors
/// [`NatsError`] when the outcome is not known.
pub(crate) async fn write(nats: &Nats, record: NewRecord) -> Result<Written, NatsError> {
    let NewRecord { publish_to, subject, command_id, replaces, mut headers, body } = record;
    headers.insert(async_nats::header::NATS_MESSAGE_ID, format!("{command_id}.record"));
    headers.insert(HEADER_COMMAND, command_id.as_str());
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, replaces.to_string());
    let deadline = Instant::now() + PATIENCE;
    let (newest, stored) = loop {
        match try_write(nats, &publish_to, &subject, &headers, &body).await {
            Err(NatsError::Away(reason) | NatsError::NotSent(reason)) if Instant::now() < deadline => {
                warn!("record not confirmed: {reason}; trying again");
                tokio::time::sleep(AGAIN).await;
            }
            tried => break tried?,
        }
    };
    Ok(match (newest.filter(|record| is_work_of(record, &command_id)), stored) {
        (Some(record), _) => Written::Stored(record),
        (None, Some(sequence)) => Written::Replaced { sequence },
        (None, None) => Written::Superseded,
    })
}

/// One try: the newest record behind it, and the sequence the server gave when it said that it stored this one.
async fn try_write(
    nats: &Nats,
    publish_to: &str,
    subject: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(Option<StreamMessage>, Option<u64>), NatsError> {
    let stored = match nats.publish(publish_to, headers.clone(), body.clone()).await {
        Ok(ack) => Some(ack.sequence).filter(|_| !ack.duplicate),
        Err(NatsError::WrongLastSequence | NatsError::InFlight) => None,
        Err(error) => return Err(error),
    };
    Ok((last(nats, subject).await?, stored))
}
