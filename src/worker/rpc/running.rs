//! Runs calls in parallel and refuses those that are too many. Callers that get no answer until their timeout call
//! again, which would add to an overload.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::jetstream::receiver::Received;
use crate::worker::context::{Busy, CallPermit, Context, QueuedCall};

/// Calls of one kind that belong to no account and join no queue. Further ones are refused without waiting.
const CONCURRENCY: usize = 1_024;
/// Calls of one kind that wait or run, gateways' own calls left out. Each may hold a question of 64 KiB.
const MOST_TASKS: usize = 4_096;
/// Refusals that wait to be sent. Further ones are dropped: they must not take the time of the calls that are answered.
const MOST_REFUSALS: usize = 1_024;
/// Refusals to send without letting other tasks run. Takes as long as a read.
const REFUSALS_AT_ONCE: usize = 16;

/// The running calls of one kind.
pub(super) struct Running {
    context: Arc<Context>,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    refusals: Refusals,
}

/// A message that names a reply subject.
pub(super) struct Arrived {
    pub(super) message: Received,
    pub(super) reply: String,
    /// Counts against [`CONCURRENCY`].
    pub(super) permit: OwnedSemaphorePermit,
}

/// Reply subjects of refused calls.
#[derive(Clone)]
struct Refusals(mpsc::Sender<String>);

impl Running {
    /// `refusal` is the answer to a refused call.
    pub(super) fn new(context: Arc<Context>, refusal: (HeaderMap, Bytes)) -> Self {
        let (tasks, permits) = (TaskTracker::new(), Arc::new(Semaphore::new(CONCURRENCY)));
        let (refusals, refused) = mpsc::channel(MOST_REFUSALS);
        tasks.spawn(send_refusals(Arc::clone(&context), refused, refusal));
        Self { context, tasks, permits, refusals: Refusals(refusals) }
    }

    /// Starts `answer` for a message that names a reply subject.
    pub(super) fn start<A, F>(&self, message: Received, answer: A)
    where
        A: FnOnce(Arc<Context>, Arrived) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(reply) = message.reply.clone() else { return };
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            self.tasks.spawn(answer(Arc::clone(&self.context), Arrived { message, reply, permit }));
        } else {
            self.refusals.add(reply);
        }
    }

    /// Refuses a call.
    pub(super) fn refuse(&self, reply: String) {
        self.refusals.add(reply);
    }

    /// Returns true if no further call may wait or run: calls have lost their permits because each takes long.
    pub(super) fn is_full(&self) -> bool {
        self.tasks.len() >= MOST_TASKS
    }

    /// Starts `answer` as soon as a queued call has its permit, or refuses the call.
    pub(super) fn start_queued<A, F>(&self, queued: QueuedCall, reply: String, answer: A)
    where
        A: FnOnce(Arc<Context>, Arc<CallPermit>, String) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (context, refusals) = (Arc::clone(&self.context), self.refusals.clone());
        self.tasks.spawn(async move {
            match queued.permit().await {
                Ok(permit) => {
                    let permit = Arc::new(permit);
                    permit.bound(answer(context, Arc::clone(&permit), reply)).await;
                }
                Err(Busy) => refusals.add(reply),
            }
        });
    }

    /// Waits for the running calls, at most for `worker.drain`.
    pub(super) async fn drain(self) {
        let Self { context, tasks, permits: _, refusals } = self;
        drop(refusals);
        tasks.close();
        drop(tokio::time::timeout(context.config.worker.drain, tasks.wait()).await);
    }
}

impl Refusals {
    fn add(&self, reply: String) {
        match self.0.try_send(reply) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {}
        }
    }
}

/// Sends refusals, and lets other tasks run after every few.
async fn send_refusals(context: Arc<Context>, mut refused: mpsc::Receiver<String>, refusal: (HeaderMap, Bytes)) {
    let mut replies = Vec::with_capacity(REFUSALS_AT_ONCE);
    while refused.recv_many(&mut replies, REFUSALS_AT_ONCE).await > 0 {
        for reply in replies.drain(..) {
            let (headers, payload) = refusal.clone();
            // A refusal that cannot be sent now is of no use later.
            if let Err(error) = context.nats.send(reply, headers, payload).await {
                debug!("refusal of a call not sent: {error}");
            }
        }
        tokio::task::yield_now().await;
    }
}
