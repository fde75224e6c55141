//! Records: the durable state of each connection and config. KV buckets, events and schedules follow from them.
//!
//! - A record is written in place of the record whose sequence it names. If another writer was first, it is refused.
//! - A record's message id is its command's id and the record's name, so repeating the publish stores it once.
//! - The server's answer to a publish is not trusted. A publish without an answer may have been stored; its repetition is
//!   then refused because of the first try. After each publish the newest record is read from the leader: the command id in
//!   its header decides.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use tracing::{Instrument as _, warn};

use crate::command::HEADER_COMMAND;
use crate::jetstream::{LONGEST_PUBLISH, Nats, NatsError, Published, REQUEST_TIMEOUT, header};
use crate::subject::OAUTH;
use crate::telemetry::traces;

/// Most bytes of a message with the largest tokens: an access token of 128 KiB, in clear and sealed, a sealed refresh token of
/// 16 KiB, scope and metadata.
pub(crate) const LARGEST_MESSAGE: usize = 512 * 1024;
/// Most bytes of a message beside the access token: a sealed refresh token, scope and metadata.
const BESIDE_TOKEN: usize = 40 * 1024;

/// Returns the longest access token that messages of that size can hold: once in clear, or once sealed and in base64, with the
/// headers of a record.
#[must_use]
pub(crate) fn longest_token(max_payload: usize) -> usize {
    max_payload.saturating_sub(BESIDE_TOKEN) / 3
}

/// A record to be written.
pub(crate) struct NewRecord {
    /// The subject to publish to. The stream stores the record under `subject`.
    pub publish_to: String,
    pub subject: String,
    /// Id of the command that writes the record.
    pub command_id: String,
    /// Tells the records of one command apart. With the command's id it makes the message id.
    pub name: &'static str,
    /// Sequence of the record to replace; 0 if the subject must have none.
    pub replaces: u64,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// [`NewRecord::name`] of a command's first record.
pub(crate) const RECORD: &str = "record";
/// [`NewRecord::name`] of the tombstone that a deletion writes in place of its first one.
pub(crate) const OUTCOME: &str = "outcome";
/// Time to keep trying after the end of a delivery's lease, or from the start for a writer without one. Long, because the
/// tokens that a provider has just issued exist nowhere else.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(30);
/// Short beside an election in a cluster, which takes seconds.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Longest time for a write. After it, a record is stored or its writer has given up. The last try begins when
/// [`RETRY_FOR`] ends, and consists of a publish and a read. After a restart of a single server it counts from the
/// reconnection.
pub(crate) const LONGEST_WRITE: Duration =
    RETRY_FOR.saturating_add(RETRY_PAUSE).saturating_add(LONGEST_PUBLISH).saturating_add(REQUEST_TIMEOUT);

/// Result of a write.
pub(crate) enum Written {
    /// The record is the newest of its subject.
    Stored(StreamMessage),
    /// The record was stored, and another writer's record has since replaced it.
    Replaced { sequence: u64 },
    /// Another writer was first.
    Superseded,
}

/// Reads the newest record of a subject from the leader.
pub(crate) async fn last(nats: &Nats, subject: &str) -> Result<Option<StreamMessage>, NatsError> {
    nats.last(OAUTH, subject).await
}

/// Returns true if that command wrote the record.
#[must_use]
pub(crate) fn was_written_by(record: &StreamMessage, command_id: &str) -> bool {
    header(&record.headers, HEADER_COMMAND) == command_id
}

/// Writes a record. Only another writer's record ends this early: while the bus is away, or the server refuses for any other
/// reason, tries again until the time that `until` returns, which may move on. Then it asks `returned`, once, which waits for a
/// server that is away and returns the time of its return: it tries for [`RETRY_FOR`] from there. After an error the record may
/// be stored.
pub(crate) async fn write(
    nats: &Nats,
    record: NewRecord,
    until: impl Fn() -> Instant,
    returned: impl AsyncFnOnce() -> Option<Instant>,
) -> Result<Written, NatsError> {
    let NewRecord { publish_to, subject, command_id, name, replaces, mut headers, body } = record;
    headers.insert(async_nats::header::NATS_MESSAGE_ID, format!("{command_id}.{name}"));
    headers.insert(HEADER_COMMAND, command_id.as_str());
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, replaces.to_string());
    let (mut failures, mut returned, span) = (0_u32, Some(returned), traces::push(&subject));
    let mut longer = None;
    let Tried { newest, acked } = loop {
        let tried = try_write(nats, &publish_to, &subject, &headers, &body);
        let error = match tried.instrument(span.clone()).await {
            Ok(tried) if tried.is_unsettled(replaces) => NatsError::InFlight { after_retry: true },
            Ok(tried) => break tried,
            Err(error) => error,
        };
        if Instant::now() >= until() {
            if let Some(returned) = returned.take() {
                longer = returned().await.map(|at| at + RETRY_FOR);
            }
            if longer.is_none_or(|longer| Instant::now() >= longer) {
                return Err(error);
            }
        }
        failures += 1;
        if failures.is_power_of_two() {
            warn!("record not confirmed: {error}; trying again");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    };
    Ok(match (newest.filter(|record| was_written_by(record, &command_id)), acked) {
        (Some(record), _) => Written::Stored(record),
        (None, Some(sequence)) => Written::Replaced { sequence },
        (None, None) => Written::Superseded,
    })
}

struct Tried {
    /// The newest record, read after the publish.
    newest: Option<StreamMessage>,
    /// The sequence at which the server says that it has stored this record.
    acked: Option<u64>,
}

impl Tried {
    /// Returns true if the record was refused although the newest one is still the one to replace: the server is storing an
    /// earlier try, or a new leader has not caught up.
    fn is_unsettled(&self, replaces: u64) -> bool {
        self.acked.is_none() && self.newest.as_ref().map_or(0, |newest| newest.sequence) == replaces
    }
}

async fn try_write(
    nats: &Nats,
    publish_to: &str,
    subject: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Tried, NatsError> {
    let acked = match nats.publish(publish_to, headers.clone(), body.clone()).await {
        Ok(Published::Stored { sequence }) => Some(sequence),
        Ok(Published::Duplicate | Published::DuplicateAfterRetry)
        | Err(NatsError::WrongLastSequence | NatsError::InFlight { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Tried { newest: last(nats, subject).await?, acked })
}
