//! Places for messages that are worked on at once: no more are asked for than there are free.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::PULL;
use crate::jetstream::{Nats, NatsError};
use crate::protocol::commands as queue;

/// The places of one consumer in one process.
pub(super) struct Places {
    free: Arc<Semaphore>,
    running: TaskTracker,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), running: TaskTracker::new() }
    }

    /// One pull; what it brings is handled beside what is under way.
    pub(super) async fn take<H>(
        &self,
        nats: &Nats,
        consumer: &PullConsumer,
        handle: impl Fn(Message) -> H,
    ) -> Result<(), NatsError>
    where
        H: Future<Output = ()> + Send + 'static,
    {
        // A message that is delivered while there is no place for it would only grow old here.
        drop(self.free.acquire().await);
        let mut batch = queue::pull(nats, consumer, self.free.available_permits().max(1), PULL).await?;
        while let Some(message) = batch.next().await {
            let message = message.map_err(NatsError::away_because("a pull ended early"))?;
            let Ok(place) = Arc::clone(&self.free).acquire_owned().await else { return Ok(()) };
            let handled = handle(message);
            self.running.spawn(async move {
                handled.await;
                drop(place);
            });
        }
        Ok(())
    }

    /// Waits for what is under way. Gives whether it ended in time.
    pub(super) async fn drain(self, within: Duration) -> bool {
        self.running.close();
        tokio::time::timeout(within, self.running.wait()).await.is_ok()
    }
}
