//! A bucket from one end to the other, headers only, a chunk at a time: nothing is held but the chunk. It is pulled: a
//! walk is pushed, and would pile up in front of a reader that takes its time.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use futures_util::StreamExt as _;

use crate::jetstream::{Nats, NatsError, header};
use crate::subject::{kv_stream, kv_subject};
use crate::system;

/// How long one request for a chunk stays open at the server.
const PULL: Duration = Duration::from_secs(2);
/// How long the server keeps a scan that nobody goes on with.
const FORGOTTEN: Duration = Duration::from_mins(2);

/// A scan under way.
pub(crate) struct Scan {
    consumer: PullConsumer,
    prefix: String,
    mark: &'static str,
    left: u64,
}

/// What a scan sees of an entry.
pub(crate) struct Seen {
    /// Its key.
    pub key: String,
    /// The header that the scan looks at, empty when there is none.
    pub mark: String,
}

impl Scan {
    /// Begins a scan over the keys that match, which looks at the header `mark`.
    ///
    /// # Errors
    /// [`NatsError`] when the server gives no answer.
    pub(crate) async fn start(nats: &Nats, bucket: &str, filter: &str, mark: &'static str) -> Result<Self, NatsError> {
        nats.connected()?;
        let away = || NatsError::Away("no answer to a scan");
        let config = pull::Config {
            name: Some(system::random_id()),
            filter_subject: kv_subject(bucket, filter),
            // A bucket keeps one message a key: all of them are the newest.
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: FORGOTTEN,
            ..pull::Config::default()
        };
        let stream = nats.jetstream.get_stream_no_info(kv_stream(bucket)).await.map_err(|_| away())?;
        let consumer = stream.create_consumer(config).await.map_err(|_| away())?;
        let left = consumer.cached_info().num_pending;
        Ok(Self { consumer, prefix: kv_subject(bucket, ""), mark, left })
    }

    /// The next entries, up to so many; none at the end. Those that mark a deletion are left out.
    ///
    /// # Errors
    /// [`NatsError`] when the server gives no answer.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Option<Vec<Seen>>, NatsError> {
        if self.left == 0 {
            return Ok(None);
        }
        let away = || NatsError::Away("a scan broke off");
        let mut batch = self.consumer.batch().max_messages(most).expires(PULL).messages().await.map_err(|_| away())?;
        let (mut seen, mut taken) = (Vec::new(), 0);
        while let Some(message) = batch.next().await {
            let message = message.map_err(|_| away())?;
            taken += 1;
            self.left = message.info().map_or(0, |info| info.pending);
            let of = |name| message.headers.as_ref().map_or("", |headers| header(headers, name)).to_owned();
            if let (true, Some(key)) = (of(super::kv::OPERATION).is_empty(), message.subject.strip_prefix(&self.prefix))
            {
                seen.push(Seen { key: key.to_owned(), mark: of(self.mark) });
            }
        }
        // What was written and is gone again leaves less than was pending.
        if taken == 0 { Ok(None) } else { Ok(Some(seen)) }
    }
}
