//! Reads stored messages of a stream in order, up to its end, through a temporary consumer.
//!
//! - [`Reader::through`] reads everything that is stored when it starts, or fails. An interrupted connection only delays
//!   it.
//! - [`Reader::snapshot`] reads what the consumer finds. Messages that are replaced or expire meanwhile may be missing.
//! - [`Reader::headers`] does the same with headers only, and requests messages when its caller wants them.
//!
//! The first two use a push consumer, because the NATS users of the command line may not pull from every stream. The third
//! pulls, because pushed messages would fill the memory of a slow caller.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::Info as CachedInfo;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, PullConsumer, pull, push};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tracing::debug;

use super::client::{Nats, REQUEST_TIMEOUT};
use super::error::NatsError;
use crate::subject::consumer_delete;
use crate::system;

/// Longest silence while messages are still to come. The server sends a heartbeat every few seconds and the client
/// replaces a consumer that misses some, so the server has been away all this time.
const SILENCE: Duration = Duration::from_secs(30);
/// Messages requested by one pull.
const PULL_MESSAGES: usize = 500;
/// Longest time for one pull: a pull that a restarted server has forgotten ends only then.
const PULL_TIMEOUT: Duration = Duration::from_secs(2);
/// The server deletes a pull consumer that is unused for this long: longer than a caller works on what it has pulled.
const INACTIVE: Duration = Duration::from_mins(2);
const FAILED: &str = "reading a stream failed";

/// A read in progress.
pub(crate) struct Reader {
    source: Source,
    end: End,
    is_done: bool,
}

/// A stored message with its sequence in the stream.
pub(crate) struct Stored {
    pub sequence: u64,
    pub message: Message,
}

/// Selects the messages of a snapshot.
pub(crate) struct Selection {
    /// May hold wildcards; empty for all subjects of the stream.
    pub subjects: String,
    pub start: DeliverPolicy,
    pub headers_only: bool,
}

enum Source {
    Pushed(push::Ordered),
    Pulled { consumer: PullConsumer, batch: Option<pull::Batch>, _deletion: Box<Deletion> },
}

/// Deletes a pull consumer when it is dropped. Otherwise the server would keep the consumer for [`INACTIVE`], and it refuses
/// further ones above a limit.
struct Deletion {
    client: Client,
    subject: String,
}

impl Drop for Deletion {
    fn drop(&mut self) {
        // Queues the request without waiting. If the queue is full, the server deletes the consumer later. No one needs the
        // answer, but the server expects a reply subject.
        let inbox = self.client.new_inbox();
        let sent = self.client.publish_with_reply(self.subject.clone(), inbox, Bytes::new()).now_or_never();
        if !matches!(sent, Some(Ok(()))) {
            debug!("a scan's consumer is left to the server");
        }
    }
}

enum End {
    /// At this sequence. Until then silence is an error.
    Sequence(u64),
    /// When the consumer has no more messages. The last ones may be gone by the time they would be delivered, so silence
    /// ends it too.
    NothingPending,
}

impl Reader {
    /// Reads `subjects` after the given sequence, up to the message that is the newest now or the one that replaces it.
    /// Returns nothing if no message is newer than that sequence.
    pub(crate) async fn through(
        nats: &Nats,
        stream: &str,
        subjects: &str,
        after: u64,
    ) -> Result<Option<Self>, NatsError> {
        // Ask the leader: the consumer may run beside a replica that does not have the newest message yet. The reader
        // waits for it.
        let Some(newest) = nats.last(stream, subjects).await?.filter(|newest| newest.sequence > after) else {
            return Ok(None);
        };
        let start = DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) };
        let selection = Selection { subjects: subjects.to_owned(), start, headers_only: false };
        let consumer = ordered(nats, stream, selection).await?;
        let messages = consumer.messages().await.map_err(NatsError::away_because(FAILED))?;
        Ok(Some(Self { source: Source::Pushed(messages), end: End::Sequence(newest.sequence), is_done: false }))
    }

    pub(crate) async fn snapshot(nats: &Nats, stream: &str, selection: Selection) -> Result<Self, NatsError> {
        nats.require_connected()?;
        let consumer = ordered(nats, stream, selection).await?;
        let is_done = consumer.cached_info().num_pending == 0;
        let messages = consumer.messages().await.map_err(NatsError::away_because(FAILED))?;
        Ok(Self { source: Source::Pushed(messages), end: End::NothingPending, is_done })
    }

    pub(crate) async fn headers(nats: &Nats, stream: &str, subjects: String) -> Result<Self, NatsError> {
        nats.require_connected()?;
        let config = pull::Config {
            name: Some(system::random_id()),
            filter_subject: subjects,
            // A bucket stores one message per key, so all of them are the newest.
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: INACTIVE,
            ..pull::Config::default()
        };
        let consumer = nats.create_consumer(stream, config).await.map_err(not_created)?;
        let CachedInfo { name, num_pending, .. } = consumer.cached_info();
        let is_done = *num_pending == 0;
        let deletion = Deletion { client: nats.client().clone(), subject: consumer_delete(stream, name) };
        Ok(Self {
            source: Source::Pulled { consumer, batch: None, _deletion: Box::new(deletion) },
            end: End::NothingPending,
            is_done,
        })
    }

    /// Returns the next message, or nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Stored>, NatsError> {
        if self.is_done {
            return Ok(None);
        }
        let silence = match self.end {
            End::Sequence(_) => SILENCE,
            End::NothingPending => REQUEST_TIMEOUT,
        };
        let Some(message) = self.source.receive(silence).await? else {
            self.is_done = true;
            return match self.end {
                End::Sequence(_) => Err(NatsError::away("the read of a stream stopped before its end")),
                End::NothingPending => Ok(None),
            };
        };
        let info = message.info().map_err(NatsError::unreadable)?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        self.is_done = match self.end {
            End::Sequence(last) => sequence >= last,
            End::NothingPending => pending == 0,
        };
        Ok(Some(Stored { sequence, message }))
    }

    /// Returns up to `limit` of the next messages, empty at the end.
    pub(crate) async fn next_chunk(&mut self, limit: usize) -> Result<Vec<Stored>, NatsError> {
        let mut chunk = Vec::new();
        while chunk.len() < limit
            && let Some(stored) = self.next().await?
        {
            chunk.push(stored);
        }
        Ok(chunk)
    }
}

impl Source {
    /// Returns the next message, or nothing if the source is silent or ends.
    async fn receive(&mut self, silence: Duration) -> Result<Option<Message>, NatsError> {
        match self {
            Self::Pushed(messages) => match tokio::time::timeout(silence, messages.try_next()).await {
                Ok(next) => next.map_err(NatsError::away_because(FAILED)),
                Err(_elapsed) => Ok(None),
            },
            Self::Pulled { consumer, batch, .. } => {
                if let Some(next) = receive_from(batch).await? {
                    return Ok(Some(next));
                }
                let pull = consumer.batch().max_messages(PULL_MESSAGES).expires(PULL_TIMEOUT).messages().await;
                *batch = Some(pull.map_err(NatsError::away_because(FAILED))?);
                receive_from(batch).await
            }
        }
    }
}

async fn receive_from(batch: &mut Option<pull::Batch>) -> Result<Option<Message>, NatsError> {
    let Some(batch) = batch else { return Ok(None) };
    batch.next().await.transpose().map_err(NatsError::away_because(FAILED))
}

async fn ordered(nats: &Nats, stream: &str, selection: Selection) -> Result<Consumer<push::OrderedConfig>, NatsError> {
    let Selection { subjects, start, headers_only } = selection;
    let config = push::OrderedConfig {
        // With a name, the stream's is not the last token of the request's subject, so that permissions can name it.
        name: Some(system::random_id()),
        deliver_subject: nats.client().new_inbox(),
        filter_subject: subjects,
        headers_only,
        deliver_policy: start,
        ..push::OrderedConfig::default()
    };
    nats.create_consumer(stream, config).await.map_err(not_created)
}

/// Keeps the server's own error: it may have reached a limit of consumers.
fn not_created(error: ConsumerError) -> NatsError {
    match error.kind() {
        ConsumerErrorKind::JetStream(refusal) => NatsError::refused(refusal.error_code().0, refusal.to_string()),
        ConsumerErrorKind::TimedOut
        | ConsumerErrorKind::Request
        | ConsumerErrorKind::InvalidConsumerType
        | ConsumerErrorKind::InvalidName
        | ConsumerErrorKind::Other => NatsError::away_because(FAILED)(error),
    }
}
