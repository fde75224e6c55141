//! Permits for the calls of a process, shared fairly by account: an account that is alone uses all of them, and one that
//! floods delays no other.
//!
//! A call that waits for a command returns its permit first ([`CallPermit::release`]).

mod limit;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::limit::Limit;
use crate::fair_queue::FairQueue;

/// Lists that run at once, for each core. A page takes tens of milliseconds of a core, and megabytes.
const LISTS_PER_CORE: usize = 1;
/// Calls that wait for a permit.
const MOST_WAITING: usize = 1_024;
/// Longest wait for a permit. Gateways send a second try after 1.5 s without an answer, which would add to the overload.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Calls {
    state: Mutex<State>,
}

struct State {
    queue: FairQueue<oneshot::Sender<CallPermit>>,
    limit: Limit,
}

/// The right to run a call. Returned on drop.
pub(crate) struct CallPermit {
    calls: Arc<Calls>,
    account: String,
    is_held: AtomicBool,
}

/// A call in the queue.
pub(crate) struct QueuedCall(oneshot::Receiver<CallPermit>);

/// Too many calls wait, or a permit took too long.
#[derive(Debug)]
pub(crate) struct Busy;

impl Calls {
    /// Permits for nodes' calls that read or change one connection.
    pub(crate) fn of_nodes() -> Arc<Self> {
        Self::new(Limit::of_nodes(cores()))
    }

    /// Permits for gateways' calls.
    pub(crate) fn of_gateways() -> Arc<Self> {
        Self::new(Limit::of_gateways(cores()))
    }

    /// Permits for calls that return pages.
    pub(crate) fn lists() -> Arc<Self> {
        Self::new(Limit::fixed(LISTS_PER_CORE * cores()))
    }

    fn new(limit: Limit) -> Arc<Self> {
        let queue = FairQueue::new(limit.most(), MOST_WAITING);
        Arc::new(Self { state: Mutex::new(State { queue, limit }) })
    }

    /// Queues a call of an account, unless too many wait.
    pub(crate) fn queue(self: &Arc<Self>, account: &str) -> Result<QueuedCall, Busy> {
        let (permit, queued) = oneshot::channel();
        match self.lock().queue.push(account, permit) {
            // Its call is refused, because its permit cannot come any more.
            Ok(shed) => drop(shed),
            Err(_own) => return Err(Busy),
        }
        self.start();
        Ok(QueuedCall(queued))
    }

    /// Hands out the free permits.
    fn start(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let Some((account, permit)) = state.queue.start() else { return };
            if permit.is_closed() {
                state.queue.end(&account);
                continue;
            }
            drop(state);
            let is_held = AtomicBool::new(true);
            // If the call has gone meanwhile, its permit is dropped, and so returned.
            drop(permit.send(CallPermit { calls: Arc::clone(self), account, is_held }));
        }
    }

    /// Adapts the number of permits to the delay with which a task runs.
    fn adapt(self: &Arc<Self>, delay: Duration) {
        let mut guard = self.lock();
        let state = &mut *guard;
        // While permits are free, the limit has no effect, so delays say nothing about it.
        if state.queue.is_full() {
            state.limit.note(delay);
            state.queue.set_most_running(state.limit.most());
        }
        drop(guard);
        self.start();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedCall {
    /// Waits for the permit.
    pub(crate) async fn permit(self) -> Result<CallPermit, Busy> {
        match tokio::time::timeout(LONGEST_WAIT, self.0).await {
            Ok(Ok(permit)) => {
                let began = Instant::now();
                tokio::task::yield_now().await;
                permit.calls.adapt(began.elapsed());
                Ok(permit)
            }
            // Shed, or the time is over.
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

impl CallPermit {
    /// Returns the permit before the call ends, because the call is going to wait for something that needs no CPU.
    pub(crate) fn release(&self) {
        if self.is_held.swap(false, Ordering::Relaxed) {
            self.calls.lock().queue.end(&self.account);
            self.calls.start();
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.release();
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
