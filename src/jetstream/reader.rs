//! Reads stored messages of a stream in order, through a temporary consumer.
//!
//! A read returns everything that is stored when it starts, or fails. Only a message that is replaced, deleted or expires
//! meanwhile may be missing. The leader says which message is the newest, because the consumer may run beside a replica that
//! does not have it yet. Silence does not end a read: the connection may be interrupted, or the server slow.
//!
//! - [`Reader::through`] has the server push the messages, because the NATS users of the command line may not pull from every
//!   stream. An interrupted connection only delays it.
//! - [`Reader::headers`] reads headers only, and pulls them when its caller wants them: pushed messages would fill the memory
//!   of a slow caller. If an interruption has cost it messages, it fails.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, Info, PullConsumer, pull, push};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tracing::debug;

use super::client::{Nats, REQUEST_TIMEOUT};
use super::error::NatsError;
use crate::subject::consumer_delete;
use crate::system;

/// Longest silence while messages are still to come. The server sends a heartbeat every few seconds and the client
/// replaces a consumer that misses some, so the server has been away all this time.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// Messages requested by one pull.
const PULL_MESSAGES: usize = 500;
/// Longest time for one pull: a pull that a restarted server has forgotten ends only then.
const PULL_TIMEOUT: Duration = Duration::from_secs(2);
/// The server deletes a pull consumer that is unused for this long: longer than a caller works on what it has pulled.
const INACTIVE: Duration = Duration::from_mins(2);
const FAILED: &str = "reading a stream failed";

/// A read in progress.
pub(crate) struct Reader {
    nats: Nats,
    stream: String,
    subjects: String,
    source: Source,
    /// Sequence of the message that was the newest at the start. The read ends there, or at the message that replaced it.
    end: u64,
    /// Sequence of the message read last.
    last: u64,
    is_done: bool,
    _deletion: Deletion,
}

/// A stored message with its sequence in the stream.
pub(crate) struct Stored {
    pub sequence: u64,
    pub message: Message,
}

/// The parts of the messages to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    All,
    Headers,
}

enum Source {
    Pushed(push::Ordered),
    Pulled {
        consumer: PullConsumer,
        /// Received, and not yet returned. The client would drop messages that wait longer than a pull.
        waiting: VecDeque<Message>,
        /// Number of received messages.
        received: u64,
    },
}

/// Deletes a consumer when it is dropped. Otherwise the server would keep it until it is inactive for long enough, and it
/// refuses further ones above a limit. A consumer that replaced the first one after an interruption is left to the server.
struct Deletion {
    client: Client,
    subject: String,
}

impl Deletion {
    fn of(nats: &Nats, stream: &str, consumer: &Info) -> Self {
        Self { client: nats.client().clone(), subject: consumer_delete(stream, &consumer.name) }
    }
}

impl Drop for Deletion {
    fn drop(&mut self) {
        // Queues the request without waiting. If the queue is full, the server deletes the consumer later. No one needs the
        // answer, but the server expects a reply subject.
        let inbox = self.client.new_inbox();
        let sent = self.client.publish_with_reply(self.subject.clone(), inbox, Bytes::new()).now_or_never();
        if !matches!(sent, Some(Ok(()))) {
            debug!("the consumer of a read is left to the server");
        }
    }
}

impl Reader {
    /// Reads `subjects` after the given sequence. Returns nothing if no message is newer.
    pub(crate) async fn through(
        nats: &Nats,
        stream: &str,
        subjects: &str,
        after: u64,
        parts: Parts,
    ) -> Result<Option<Self>, NatsError> {
        let Some(newest) = nats.last(stream, subjects).await?.filter(|newest| newest.sequence > after) else {
            return Ok(None);
        };
        let config = push::OrderedConfig {
            // With a name, the stream's is not the last token of the request's subject, so that permissions can name it.
            name: Some(system::random_id()),
            deliver_subject: nats.client().new_inbox(),
            filter_subject: subjects.to_owned(),
            headers_only: parts == Parts::Headers,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) },
            ..push::OrderedConfig::default()
        };
        let consumer: Consumer<push::OrderedConfig> =
            nats.create_consumer(stream, config).await.map_err(NatsError::of_request(FAILED))?;
        let deletion = Deletion::of(nats, stream, consumer.cached_info());
        let messages = consumer.messages().await.map_err(NatsError::away_because(FAILED))?;
        Ok(Some(Self::of(nats, (stream, subjects), (Source::Pushed(messages), deletion), newest.sequence)))
    }

    pub(crate) async fn headers(nats: &Nats, stream: &str, subjects: &str) -> Result<Self, NatsError> {
        let newest = nats.last(stream, subjects).await?.map_or(0, |newest| newest.sequence);
        let config = pull::Config {
            name: Some(system::random_id()),
            filter_subject: subjects.to_owned(),
            // A bucket stores one message per key, so all of them are the newest.
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: INACTIVE,
            ..pull::Config::default()
        };
        let consumer = nats.create_consumer(stream, config).await.map_err(NatsError::of_request(FAILED))?;
        let deletion = Deletion::of(nats, stream, consumer.cached_info());
        let source = Source::Pulled { consumer, waiting: VecDeque::new(), received: 0 };
        Ok(Self::of(nats, (stream, subjects), (source, deletion), newest))
    }

    fn of(nats: &Nats, (stream, subjects): (&str, &str), (source, deletion): (Source, Deletion), end: u64) -> Self {
        let (stream, subjects) = (stream.to_owned(), subjects.to_owned());
        Self { nats: nats.clone(), stream, subjects, source, end, last: 0, is_done: end == 0, _deletion: deletion }
    }

    /// Returns the next message, or nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Stored>, NatsError> {
        let begin = Instant::now();
        while !self.is_done {
            if let Some(message) = self.source.receive(self.end).await? {
                self.last = message.info().map_err(NatsError::unreadable)?.stream_sequence;
                self.is_done = self.last >= self.end;
                return Ok(Some(Stored { sequence: self.last, message }));
            }
            if let Err(error) = self.extend().await {
                debug!("a read of a stream is interrupted: {error}");
            }
            if !self.is_done && begin.elapsed() > LONGEST_SILENCE {
                return Err(NatsError::away("the read of a stream stopped before its end"));
            }
        }
        Ok(None)
    }

    /// Has the read end at the message that is the newest now. Returns false if that was read already: messages that were still
    /// to come may have been deleted, or have expired.
    pub(crate) async fn extend(&mut self) -> Result<bool, NatsError> {
        self.end = self.nats.last(&self.stream, &self.subjects).await?.map_or(0, |newest| newest.sequence);
        self.is_done = self.end <= self.last;
        Ok(!self.is_done)
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
    /// Returns the next message, or nothing after some time of silence. Pulls no more after the sequence `end`.
    async fn receive(&mut self, end: u64) -> Result<Option<Message>, NatsError> {
        match self {
            Self::Pushed(messages) => match tokio::time::timeout(REQUEST_TIMEOUT, messages.try_next()).await {
                Ok(next) => next.map_err(NatsError::away_because(FAILED)),
                Err(_elapsed) => Ok(None),
            },
            Self::Pulled { consumer, waiting, received, .. } => {
                if waiting.is_empty() {
                    pull(consumer, end, received, waiting).await?;
                }
                Ok(waiting.pop_front())
            }
        }
    }
}

async fn pull(
    consumer: &PullConsumer,
    end: u64,
    received: &mut u64,
    waiting: &mut VecDeque<Message>,
) -> Result<(), NatsError> {
    let pull = consumer.batch().max_messages(PULL_MESSAGES).expires(PULL_TIMEOUT).messages().await;
    let mut pull = pull.map_err(NatsError::away_because(FAILED))?;
    while let Some(message) = pull.next().await {
        let message = message.map_err(NatsError::away_because(FAILED))?;
        let info = message.info().map_err(NatsError::unreadable)?;
        *received += 1;
        // The server sends each message once, also into a connection that has ended.
        if info.consumer_sequence != *received {
            return Err(NatsError::away("an interruption has cost a read of a stream some messages"));
        }
        let is_last = info.stream_sequence >= end;
        waiting.push_back(message);
        if is_last {
            break;
        }
    }
    Ok(())
}
