//! Connections for requests. A process has one, and a second one while [`renewal`](super::renewal) replaces the first.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::client::{Nats, REQUEST_TIMEOUT};
use super::error::NatsError;

/// Longest wait for requests that run. Each has a deadline of its own; the longest is that of a call that waits for a provider
/// (`http.deadline`, by default 20 s).
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Time for which two connections receive the same messages. All servers of a cluster must know the new subscriptions before the
/// old ones end.
const OVERLAP: Duration = Duration::from_millis(250);

/// A connection, and the requests that run on it.
pub(super) struct RequestConnection {
    pub(super) client: Client,
    pub(super) jetstream: Context,
    running: TaskTracker,
}

/// The connection for one request. [`RequestConnection::finish`] waits until this is dropped.
pub(super) struct InUse {
    connection: Arc<RequestConnection>,
    _running: TaskTrackerToken,
}

impl Deref for InUse {
    type Target = RequestConnection;

    fn deref(&self) -> &RequestConnection {
        &self.connection
    }
}

/// The answers to a request that gets several.
pub(crate) struct Answers {
    subscriber: Subscriber,
    _in_use: InUse,
}

impl Answers {
    /// Returns the next answer, or nothing if the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.subscriber.next().await
    }
}

impl RequestConnection {
    pub(super) fn new(client: Client) -> Self {
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Self { client, jetstream, running: TaskTracker::new() }
    }

    /// Returns a stream by name, without asking the server.
    pub(super) async fn stream(&self, name: &str) -> Result<Stream<()>, NatsError> {
        self.jetstream.get_stream_no_info(name).await.map_err(NatsError::unreadable)
    }

    /// Waits until the running requests have ended, at most for [`LONGEST_WAIT`]. New ones must use another connection.
    pub(super) async fn finish(&self) {
        self.running.close();
        // Requests that take longer lose their answer, as with any other lost connection.
        let _ = timeout(LONGEST_WAIT, self.running.wait()).await;
        self.running.reopen();
        sleep(OVERLAP).await;
    }
}

impl Nats {
    /// Returns the connection for a request.
    pub(super) fn in_use(&self) -> InUse {
        loop {
            let connection = self.current();
            let running = connection.running.token();
            // Otherwise a renewal has begun meanwhile, and does not wait for this request.
            if Arc::ptr_eq(&connection, &self.current()) {
                return InUse { connection, _running: running };
            }
        }
    }

    /// The same, but fails with [`NatsError::NotSent`] while disconnected.
    pub(super) fn connected(&self) -> Result<InUse, NatsError> {
        self.require_connected()?;
        Ok(self.in_use())
    }

    /// Publishes a request, and returns its answers as they arrive.
    pub(crate) async fn request_many(&self, subject: String, payload: Bytes) -> Result<Answers, NatsError> {
        const FAILED: &str = "cannot publish a request";
        let in_use = self.connected()?;
        let inbox = in_use.client.new_inbox();
        let subscriber = in_use.client.subscribe(inbox.clone()).await.map_err(NatsError::away_because(FAILED))?;
        let sent = in_use.client.publish_with_reply(subject, inbox, payload).await;
        sent.map_err(NatsError::away_because(FAILED))?;
        Ok(Answers { subscriber, _in_use: in_use })
    }
}
