//! Pulls messages and handles a bounded number of them at once.
//!
//! - Each verb has its own consumer and its own permits, so that slow refreshes never delay a login. Callbacks and deletions
//!   have [`Shares`] too, so that those of one provider or account never delay others.
//! - A worker pulls only as many messages as it has free permits. A message without a permit would wait here while
//!   its ack wait runs out, although another worker may have a free one.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::jetstream::NatsError;
use crate::jetstream::pull::{Pulls, REPORT_WAIT};
use crate::protocol::topology::ACK_WAIT;
use crate::subject::Verb;
use crate::worker::background::queues;
use crate::worker::context::{Context, Shares};
use crate::worker::delivery;
use crate::worker::lease::TRANSIT;
use crate::worker::restart::run_until_stopped;

/// Time after which the server ends a pull. Short, because a restarted server has forgotten the pull, and the worker
/// notices that only when this time is over.
pub(super) const PULL_EXPIRES: Duration = Duration::from_secs(4);
// The lease of a delivery that was on its way for as long as a pull lasts ends within an ack wait after the next delivery.
const _: () =
    assert!(PULL_EXPIRES.saturating_add(REPORT_WAIT).as_millis() <= ACK_WAIT.saturating_add(TRANSIT).as_millis());
/// Interval at which a waiting pull looks at the clock.
const LOOK: Duration = Duration::from_millis(250);
/// A wait this much longer than [`LOOK`] means that the process stood still. Long, because a busy machine delays it too, and
/// shorter than the ack wait by more than a progress report needs.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// Takes commands of one verb until `stop` is cancelled. Then waits for those in progress: for `worker.drain`, or for as long
/// as those that have sent something to a provider may need, if that is longer.
pub(super) async fn run(context: Arc<Context>, (verb, pulls): (Verb, Pulls), stop: CancellationToken) {
    let concurrency = context.config.worker.concurrency;
    let puller = match verb {
        // Those that have no share yet wait in memory.
        Verb::Exchange | Verb::Revoke => Puller::new(Shares::in_memory(concurrency)),
        Verb::Refresh | Verb::Put | Verb::Delete => Puller::new(concurrency),
    };
    // Never waited for: a try begins after the one before.
    let pulls = Mutex::new(pulls);
    let take = async || take_commands(&context, &mut *pulls.lock().await, &puller).await;
    run_until_stopped(&stop, &format!("take commands ({verb})"), take).await;
    let mut wait = context.config.worker.drain;
    while !puller.drain(wait).await {
        // Tokens that a provider issues from now on exist nowhere else.
        wait = context.limits.needs.left();
        if wait.is_zero() {
            warn!(%verb, "stopped with commands in progress; the server delivers them again to other workers");
            return;
        }
    }
}

/// Pulls until a pull fails.
async fn take_commands(context: &Arc<Context>, pulls: &mut Pulls, puller: &Puller) -> NatsError {
    let process = |pulled, since| {
        let context = Arc::clone(context);
        async move { delivery::process(&context, pulled, since).await }
    };
    loop {
        context.clock.usable().await;
        if let Err(error) = puller.pull(async |limit| pulls.pull(limit, PULL_EXPIRES).await, process).await {
            return queues::check_after(context, error);
        }
    }
}

/// Permits for the messages of one consumer that are in progress in this process.
pub(super) struct Puller {
    permits: Arc<Semaphore>,
    in_progress: TaskTracker,
}

impl Puller {
    pub(super) fn new(concurrency: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(concurrency)), in_progress: TaskTracker::new() }
    }

    /// Waits for a free permit, pulls once, and starts `handle` for each message of the pull, with a time at which the
    /// message had not been delivered yet.
    pub(super) async fn pull<M, B, H>(
        &self,
        request: impl AsyncFnOnce(usize) -> Result<B, NatsError>,
        handle: impl Fn(M, Instant) -> H,
    ) -> Result<(), NatsError>
    where
        B: Stream<Item = Result<M, NatsError>>,
        H: Future<Output = ()> + Send + 'static,
    {
        drop(self.permits.acquire().await);
        let limit = self.permits.available_permits().max(1);
        let mut since = Instant::now();
        let mut seen = since;
        let mut is_late = false;
        let mut batch = pin!(request(limit).await?);
        loop {
            let next = tokio::time::timeout(LOOK, batch.next()).await;
            let now = Instant::now();
            let stood_still = now.duration_since(seen) > LOOK + STOOD_STILL;
            seen = now;
            // Messages may have waited in the socket while the process stood still. A quiet wait shows that the socket
            // is empty.
            is_late = stood_still || (is_late && next.is_ok());
            let waited_since = since;
            since = if is_late { since } else { now };
            let Ok(next) = next else { continue };
            let Some(message) = next else { return Ok(()) };
            let message = message?;
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Ok(()) };
            let handled = handle(message, waited_since);
            self.in_progress.spawn(async move {
                handled.await;
                drop(permit);
            });
        }
    }

    /// Waits for the messages in progress. Returns true if all of them ended in time.
    pub(super) async fn drain(&self, within: Duration) -> bool {
        self.in_progress.close();
        tokio::time::timeout(within, self.in_progress.wait()).await.is_ok()
    }
}
