//! Watches a bucket for changes, and notices when it may have missed one.
//!
//! The watch is a plain push consumer. The client's ordered consumer replaces itself when it loses messages and does not
//! say so; a cache that relies on the watch has to know.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use futures_util::StreamExt as _;

use super::client::Nats;
use super::error::NatsError;
use crate::subject::{kv_stream, kv_subject};
use crate::system;

/// Heartbeat interval of a watch. Two missed heartbeats end it, so a cache trusts a silent server for 2 s at most.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The server deletes a watch's consumer after this many heartbeats without a subscriber.
const INACTIVE_HEARTBEATS: u32 = 30;

/// Changes of a bucket from the start of the watch.
pub(crate) struct Changes {
    messages: push::Messages,
    prefix: String,
    began: u64,
    seen: u64,
}

/// A stored entry or deletion marker.
pub(crate) struct Changed {
    pub key: String,
    pub sequence: u64,
    pub headers: HeaderMap,
}

/// Watches a bucket. Each change that is stored from now on is delivered, or the watch ends with an error.
pub(crate) async fn of_bucket(nats: &Nats, bucket: &str) -> Result<Changes, NatsError> {
    nats.require_connected()?;
    let config = push::Config {
        // With a name, the stream's is not the last token of the request's subject, so that permissions can name it.
        name: Some(system::random_id()),
        deliver_subject: nats.client().new_inbox(),
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::None,
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        idle_heartbeat: HEARTBEAT,
        inactive_threshold: INACTIVE_HEARTBEATS * HEARTBEAT,
        ..push::Config::default()
    };
    let consumer = nats.create_consumer(&kv_stream(bucket), config).await;
    let consumer = consumer.map_err(NatsError::of_request("cannot watch a stream"))?;
    let began = consumer.cached_info().delivered.stream_sequence;
    let messages = consumer.messages().await.map_err(NatsError::away_because("cannot watch a stream"))?;
    Ok(Changes { messages, prefix: kv_subject(bucket, ""), began, seen: 0 })
}

impl Changes {
    /// Sequence of the stream after which the watch began.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// Returns the next change.
    ///
    /// # Errors
    /// When a change was missed or the server is silent. The watch is over then.
    pub(crate) async fn next(&mut self) -> Result<Changed, NatsError> {
        const ENDED: &str = "the watch of a stream ended";
        let next = self.messages.next().await.ok_or_else(|| NatsError::away(ENDED))?;
        let message = next.map_err(NatsError::away_because(ENDED))?;
        let info = message.info().map_err(NatsError::unreadable)?;
        self.seen += 1;
        if info.consumer_sequence != self.seen {
            return Err(NatsError::away("the watch of a stream missed a change"));
        }
        let sequence = info.stream_sequence;
        let message = message.message;
        let key = message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned();
        Ok(Changed { key, sequence, headers: message.headers.unwrap_or_default() })
    }
}
