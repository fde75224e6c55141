//! Runs a bounded number of calls in parallel. Refuses further ones without waiting: callers that wait until their timeout
//! call again, which would add to an overload.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{CONCURRENCY, send};
use crate::jetstream::receiver::Received;
use crate::worker::context::Context;

/// The running calls of one kind.
pub(super) struct Running {
    context: Arc<Context>,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    /// Answer to a call that is refused.
    refusal: (HeaderMap, Bytes),
}

impl Running {
    pub(super) fn new(context: Arc<Context>, refusal: (HeaderMap, Bytes)) -> Self {
        Self { context, tasks: TaskTracker::new(), permits: Arc::new(Semaphore::new(CONCURRENCY)), refusal }
    }

    /// Starts `answer` for a message that names a reply subject.
    pub(super) fn start<A, F>(&self, message: Received, answer: A)
    where
        A: FnOnce(Arc<Context>, Received, String) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(reply) = message.reply.clone() else { return };
        let context = Arc::clone(&self.context);
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            self.tasks.spawn(async move {
                answer(context, message, reply).await;
                drop(permit);
            });
        } else {
            let (headers, payload) = self.refusal.clone();
            self.tasks.spawn(async move { send(&context, reply, headers, payload).await });
        }
    }

    /// Waits for the running calls, at most for `worker.drain`.
    pub(super) async fn drain(self) {
        self.tasks.close();
        drop(tokio::time::timeout(self.context.config.worker.drain, self.tasks.wait()).await);
    }
}
