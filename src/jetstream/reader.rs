//! Walks through a stream from its oldest message to its newest, holding a few at a time.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, Message};
use futures_util::TryStreamExt as _;

use crate::jetstream::{Nats, NatsError};
use crate::system;

/// How long a walk may stand still: the server says that it is there every few seconds.
const STILL: Duration = Duration::from_secs(30);

/// A stream as its leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// When it was made.
    pub created: String,
    /// How many messages it holds.
    pub messages: u64,
    /// The highest sequence it has given out.
    pub last_sequence: u64,
}

/// How a stream is; none when there is no such stream.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn state(nats: &Nats, stream: &str) -> Result<Option<State>, NatsError> {
    nats.connected()?;
    match nats.jetstream.get_stream(stream).await {
        Ok(stream) => {
            let info = stream.cached_info();
            let (messages, last_sequence) = (info.state.messages, info.state.last_sequence);
            Ok(Some(State { created: info.created.unix_timestamp_nanos().to_string(), messages, last_sequence }))
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(ref cause) if cause.code() == 404 => Ok(None),
            GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::Request
            | GetStreamErrorKind::InvalidStreamName
            | GetStreamErrorKind::JetStream(_) => Err(NatsError::Away("no answer about a stream")),
        },
    }
}

/// A walk under way. While the bus is away it waits for it, and goes on where it was.
pub(crate) struct Walk {
    messages: push::Ordered,
    until: u64,
    is_over: bool,
}

impl Walk {
    /// Begins behind the given sequence, to end with what is the newest message of `subjects` now or whatever has
    /// replaced it. None when there is nothing to walk through.
    ///
    /// # Errors
    /// [`NatsError`] when the server gives no answer.
    pub(crate) async fn begin(
        nats: &Nats,
        stream: &str,
        subjects: &str,
        after: u64,
    ) -> Result<Option<Self>, NatsError> {
        // From the leader: the consumer may stand beside a replica that does not have it yet, and then waits for it.
        let Some(newest) = nats.last(stream, subjects).await?.filter(|newest| newest.sequence > after) else {
            return Ok(None);
        };
        let config = push::OrderedConfig {
            name: Some(system::random_id()),
            deliver_subject: nats.client.new_inbox(),
            filter_subject: subjects.to_owned(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) },
            ..push::OrderedConfig::default()
        };
        let away = || NatsError::Away("no answer to a walk through a stream");
        let stream: jetstream::stream::Stream<()> =
            nats.jetstream.get_stream_no_info(stream).await.map_err(|_| away())?;
        let consumer = stream.create_consumer(config).await.map_err(|_| away())?;
        let messages = consumer.messages().await.map_err(|_| away())?;
        Ok(Some(Self { messages, until: newest.sequence, is_over: false }))
    }

    /// The next message with its sequence; none at the end.
    ///
    /// # Errors
    /// [`NatsError`] when the walk cannot go on.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Message)>, NatsError> {
        if self.is_over {
            return Ok(None);
        }
        let next = tokio::time::timeout(STILL, self.messages.try_next()).await;
        let message = match next {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None) | Err(_)) => return Err(NatsError::Away("a walk through a stream ended early")),
            Err(_) => return Err(NatsError::Away("a walk through a stream stands still")),
        };
        let sequence = message.info().map_err(|_| NatsError::Unreadable)?.stream_sequence;
        self.is_over = sequence >= self.until;
        Ok(Some((sequence, message)))
    }
}
