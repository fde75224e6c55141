//! Streams and consumers: created, changed, looked at and purged.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{self, Consumer, FromConsumer, IntoConsumerConfig};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, CreateStreamError, UpdateStreamError};
use async_nats::jetstream::stream::{Config, ConsumerError, Info, RawMessageErrorKind};

use super::client::Nats;
use super::error::NatsError;

/// Longest time to create or change a stream. The server writes files, which takes seconds on a busy disk.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);

/// Code of a refusal because the consumer does not exist.
const NO_CONSUMER: u64 = 10_014;

/// State of a stream as its leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamState {
    /// Creation time in nanoseconds: tells a stream from an earlier one of the same name.
    pub created: String,
    /// Number of stored messages.
    pub messages: u64,
    /// The highest sequence the stream has assigned.
    pub last_sequence: u64,
}

impl Nats {
    /// Returns a stream's configuration and state from its leader, or nothing if there is no such stream.
    pub(crate) async fn stream_info(&self, name: &str) -> Result<Option<Info>, NatsError> {
        match self.in_use().jetstream.get_stream(name).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match NatsError::of_request("cannot look up a stream")(error) {
                error if error.is_missing_stream() => Ok(None),
                error => Err(error),
            },
        }
    }

    pub(crate) async fn stream_state(&self, name: &str) -> Result<Option<StreamState>, NatsError> {
        self.require_connected()?;
        Ok(self.stream_info(name).await?.map(|info| StreamState {
            created: info.created.unix_timestamp_nanos().to_string(),
            messages: info.state.messages,
            last_sequence: info.state.last_sequence,
        }))
    }

    pub(crate) async fn create_stream(&self, config: Config) -> Result<(), CreateStreamError> {
        self.declaring().create_stream(config).await.map(drop)
    }

    pub(crate) async fn update_stream(&self, config: Config) -> Result<(), UpdateStreamError> {
        self.declaring().update_stream(config).await.map(drop)
    }

    pub(crate) async fn delete_stream(&self, name: &str) -> Result<(), NatsError> {
        let deleted = self.declaring().delete_stream(name).await;
        deleted.map(drop).map_err(NatsError::of_request("a stream may have been deleted"))
    }

    fn declaring(&self) -> Context {
        let mut jetstream = self.jetstream().clone();
        jetstream.set_timeout(DECLARE_TIMEOUT);
        jetstream
    }

    /// Creates a consumer, or updates the one of that name.
    pub(crate) async fn create_consumer<C: IntoConsumerConfig + FromConsumer>(
        &self,
        stream: &str,
        config: C,
    ) -> Result<Consumer<C>, ConsumerError> {
        self.jetstream().create_consumer_on_stream(config, stream).await
    }

    /// Returns how many pulls wait for messages of a consumer; 0 if the consumer or its stream is missing.
    pub(crate) async fn waiting_pulls(&self, stream: &str, consumer: &str) -> Result<usize, NatsError> {
        Ok(self.consumer_info(stream, consumer).await?.map_or(0, |info| info.num_waiting))
    }

    /// Returns a consumer's configuration and state, or nothing if the consumer or its stream is missing.
    pub(crate) async fn consumer_info(
        &self,
        stream: &str,
        consumer: &str,
    ) -> Result<Option<consumer::Info>, NatsError> {
        match self.connected()?.stream(stream).await?.consumer_info(consumer).await {
            Ok(info) => Ok(Some(info)),
            Err(error)
                if matches!(error.kind(), ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound) =>
            {
                Ok(None)
            }
            Err(error) => Err(NatsError::of_request("cannot look up a consumer")(error)),
        }
    }

    /// Deletes a consumer. One that is missing counts as deleted.
    pub(crate) async fn delete_consumer(&self, stream: &str, consumer: &str) -> Result<(), NatsError> {
        let deleted = self.connected()?.stream(stream).await?.delete_consumer(consumer).await;
        match deleted.map_err(NatsError::of_request("a consumer may have been deleted")) {
            Ok(_) | Err(NatsError::Refused { code: NO_CONSUMER, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns true if a stream's leader holds a message with this sequence.
    pub(crate) async fn holds(&self, stream: &str, sequence: u64) -> Result<bool, NatsError> {
        match self.connected()?.stream(stream).await?.get_raw_message(sequence).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            Err(error) => Err(NatsError::of_request("cannot read a message")(error)),
        }
    }

    /// Deletes all messages of a subject.
    pub(crate) async fn purge_subject(&self, stream: &str, subject: &str) -> Result<(), NatsError> {
        let connection = self.connected()?;
        let purged = connection.stream(stream).await?.purge().filter(subject).await;
        purged.map(drop).map_err(NatsError::of_request("a purge may have been carried out"))
    }

    /// Deletes all messages below a sequence. A stream that ends below it assigns that sequence next.
    pub(crate) async fn purge_below(&self, stream: &str, sequence: u64) -> Result<(), NatsError> {
        let connection = self.connected()?;
        let purged = connection.stream(stream).await?.purge().sequence(sequence).await;
        purged.map(drop).map_err(NatsError::of_request("a purge may have been carried out"))
    }

    pub(crate) async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), NatsError> {
        let connection = self.connected()?;
        let deleted = connection.stream(stream).await?.delete_message(sequence).await;
        deleted.map(drop).map_err(NatsError::of_request("a message may have been deleted"))
    }
}
