//! Permits for the calls of a process, and for the commands that they lead to, shared fairly by account, or by the client of a
//! gateway: one that is alone uses all of them, and others get theirs beside one that floods.
//!
//! - Calls that lead to a command have permits of their own, and so have lists.
//! - A permit stands for work that needs the CPU. A command has none while it waits for its provider, and a call or command that
//!   takes longer than [`LONGEST_HOLD`] loses its own.
//! - A call that leads to a command leaves its permit to the command ([`CallPermit::reserve`]), and work that has begun goes ahead
//!   of calls that wait. So no more calls get in than their commands can be carried out.
//! - In a [`Flood`] few calls wait. Otherwise each that is accepted would wait for as long as a full queue takes.

mod flood;
mod limit;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::flood::Flood;
use self::limit::Limit;
use crate::fair_queue::FairQueue;
use crate::protocol::calls::CallClient;

/// Lists that run at once, for each core. A page takes tens of milliseconds of a core, and megabytes.
const LISTS_PER_CORE: usize = 1;
/// Calls that wait for a permit, except in a flood.
const MOST_WAITING: usize = 1_024;
/// Most unsent calls that a sent one may report. Limited, because the number is not verified. 16 are enough to show a flood: at five
/// times the sustainable rate, more than a tenth of the calls are sent.
const MOST_UNSENT: usize = 16;
/// Gateways' own calls (readiness, the workers' key) that wait.
const MOST_FIRST: usize = 64;
/// Longest wait for a permit. Gateways send a second try after 1.5 s without an answer, which would add to the overload.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Longest time for which a permit is held at a stretch, or reserved for a command. Work that takes longer waits for something else
/// than the CPU, and a command may run in another process.
const LONGEST_HOLD: Duration = Duration::from_millis(250);

pub(crate) struct Calls {
    state: Mutex<State>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Commands,
    Lists,
}

struct State {
    queue: FairQueue<oneshot::Sender<CallPermit>>,
    limit: Limit,
    /// Permits that are reserved for commands, and since when.
    reserved: VecDeque<(Instant, CallPermit)>,
    flood: Flood,
}

/// The right to run a call or command. Returned on drop.
pub(crate) struct CallPermit {
    calls: Arc<Calls>,
    account: String,
    held_since: Mutex<Option<Instant>>,
}

/// A call in the queue.
pub(crate) struct QueuedCall {
    calls: Arc<Calls>,
    permit: oneshot::Receiver<CallPermit>,
}

/// Too many calls wait, or a permit took too long.
#[derive(Debug)]
pub(crate) struct Busy;

impl Calls {
    /// Permits for nodes' calls that lead to no command and return no page.
    pub(crate) fn of_nodes() -> Arc<Self> {
        Self::new(Limit::of_nodes(cores()), Kind::Plain)
    }

    /// The same for gateways' calls.
    pub(crate) fn of_gateways() -> Arc<Self> {
        Self::new(Limit::of_gateways(cores()), Kind::Plain)
    }

    /// Permits for calls that lead to a command, and for these commands.
    pub(crate) fn of_commands() -> Arc<Self> {
        Self::new(Limit::of_commands(cores()), Kind::Commands)
    }

    /// Permits for calls that return pages.
    pub(crate) fn lists() -> Arc<Self> {
        Self::new(Limit::fixed(LISTS_PER_CORE * cores()), Kind::Lists)
    }

    fn new(limit: Limit, kind: Kind) -> Arc<Self> {
        let queue = FairQueue::new(limit.most(false));
        let state = State { queue, limit, reserved: VecDeque::new(), flood: Flood::default() };
        Arc::new(Self { state: Mutex::new(state), kind })
    }

    /// Queues a call of an account, unless too many wait.
    pub(crate) fn queue(self: &Arc<Self>, account: &str) -> Result<QueuedCall, Busy> {
        self.queue_after(account, 0)
    }

    /// Queues a call of a gateway's client, unless too many wait. Calls that the gateway has refused by itself count towards a flood.
    pub(crate) fn queue_of(self: &Arc<Self>, CallClient { name, unsent }: &CallClient) -> Result<QueuedCall, Busy> {
        self.queue_after(name, usize::try_from(*unsent).unwrap_or_default().min(MOST_UNSENT))
    }

    fn queue_after(self: &Arc<Self>, account: &str, unsent: usize) -> Result<QueuedCall, Busy> {
        self.end_reservations();
        let (permit, queued) = oneshot::channel();
        let now = Instant::now();
        let mut state = self.lock();
        let is_flood = state.flood.arrived(now, unsent);
        let most = state.limit.most(is_flood);
        state.queue.set_most_running(most);
        let pushed = state.queue.push(account, permit, if is_flood { waiting_in_flood(most) } else { MOST_WAITING });
        let (is_refused, shed) = match pushed {
            Ok(shed) => (false, shed),
            Err(shed) => (true, shed),
        };
        state.flood.refused(shed.len());
        drop(state);
        // Calls that were shed are refused, because their permits cannot come any more.
        drop(shed);
        self.start();
        if is_refused {
            return Err(Busy);
        }
        Ok(QueuedCall { calls: Arc::clone(self), permit: queued })
    }

    /// Queues a call ahead of all others, if few such calls wait. For calls that gateways make on their own: whether a gateway is
    /// ready must not depend on how many clients it has.
    pub(crate) fn queue_first(self: &Arc<Self>) -> Result<QueuedCall, Busy> {
        let (sender, permit) = oneshot::channel();
        let mut state = self.lock();
        if state.queue.waiting_first() >= MOST_FIRST {
            return Err(Busy);
        }
        state.queue.push_first("", sender);
        drop(state);
        self.start();
        Ok(QueuedCall { calls: Arc::clone(self), permit })
    }

    /// Returns a permit for a command: one that a call has left to it, or else the next that is free. The first still counts for
    /// its call's client: a client's running commands count towards its share, as its calls do.
    pub(crate) async fn permit_for_command(self: &Arc<Self>, account: &str) -> CallPermit {
        self.end_reservations();
        let (sender, granted) = oneshot::channel();
        {
            let mut state = self.lock();
            if let Some((_since, reserved)) = state.reserved.pop_front() {
                drop(state);
                reserved.held_since().replace(Instant::now());
                return reserved;
            }
            state.queue.push_first(account, sender);
        }
        self.start();
        // The queue drops no entry that goes first.
        self.granted(granted).await.unwrap_or_else(|| CallPermit::new(self, account, None))
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
            // If the call has gone meanwhile, its permit is dropped, and so returned.
            drop(permit.send(CallPermit::new(self, &account, Some(Instant::now()))));
        }
    }

    /// Adapts the number of permits to the delay with which a task runs.
    fn adapt(self: &Arc<Self>, delay: Duration) {
        let mut guard = self.lock();
        let state = &mut *guard;
        // While permits are free, the limit has no effect, so delays say nothing about it.
        if state.queue.is_full() {
            state.limit.note(delay);
            let most = state.limit.most(state.flood.is_on(Instant::now()));
            state.queue.set_most_running(most);
        }
        drop(guard);
        self.start();
    }

    /// Waits for a permit. Meanwhile takes back those whose commands have not come.
    async fn granted(&self, mut permit: oneshot::Receiver<CallPermit>) -> Option<CallPermit> {
        loop {
            match tokio::time::timeout(LONGEST_HOLD, &mut permit).await {
                Ok(permit) => return permit.ok(),
                Err(_) => self.end_reservations(),
            }
        }
    }

    /// Takes back permits whose commands have not come.
    fn end_reservations(&self) {
        let now = Instant::now();
        loop {
            let mut state = self.lock();
            let ended = state.reserved.pop_front_if(|(since, _)| now - *since >= LONGEST_HOLD);
            // A permit that is dropped needs the lock.
            drop(state);
            if ended.is_none() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedCall {
    /// Waits for the permit.
    pub(crate) async fn permit(self) -> Result<CallPermit, Busy> {
        match tokio::time::timeout(LONGEST_WAIT, self.calls.granted(self.permit)).await {
            Ok(Some(permit)) => {
                let began = Instant::now();
                tokio::task::yield_now().await;
                permit.calls.adapt(began.elapsed());
                Ok(permit)
            }
            // Shed, or the time is over.
            Ok(None) | Err(_) => Err(Busy),
        }
    }
}

impl CallPermit {
    fn new(calls: &Arc<Calls>, account: &str, held_since: Option<Instant>) -> Self {
        Self { calls: Arc::clone(calls), account: account.to_owned(), held_since: Mutex::new(held_since) }
    }

    /// Runs a call or command, which may return the permit and take it again. Returns the permit if it is held for too long, except
    /// that of a list, which needs memory.
    pub(crate) async fn bound<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        if self.calls.kind == Kind::Lists {
            return work.await;
        }
        loop {
            if let Ok(done) = tokio::time::timeout(LONGEST_HOLD, &mut work).await {
                return done;
            }
            let held_since = *self.held_since();
            if held_since.is_some_and(|since| since.elapsed() >= LONGEST_HOLD) {
                self.release();
            }
        }
    }

    /// Returns the permit before the work ends, because the work is going to wait for something that needs no CPU.
    pub(crate) fn release(&self) {
        if self.held_since().take().is_some() {
            self.calls.lock().queue.end(&self.account);
            self.calls.start();
        }
    }

    /// Takes a returned permit again, also if none is free: work that has begun must end, and may hold tokens that are not stored yet.
    /// Meanwhile no call starts.
    pub(crate) fn retake(&self) {
        let mut held_since = self.held_since();
        if held_since.is_none() {
            self.calls.lock().queue.begin(&self.account);
            *held_since = Some(Instant::now());
        }
    }

    /// Returns the permit, but reserves it for a short while for the command that the call leads to. A plain call, such as a read of a
    /// token, rarely leads to one, and reserves none.
    pub(crate) fn reserve(&self) {
        if self.calls.kind != Kind::Commands {
            return self.release();
        }
        let held = self.held_since().take();
        if held.is_none() {
            return;
        }
        let reserved = Self::new(&self.calls, &self.account, held);
        self.calls.lock().reserved.push_back((Instant::now(), reserved));
    }

    fn held_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.held_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.release();
    }
}

/// Returns how many calls may wait in a flood: enough that no permit is idle, and that each of two clients has one.
fn waiting_in_flood(running: usize) -> usize {
    (running / 4).max(2)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
