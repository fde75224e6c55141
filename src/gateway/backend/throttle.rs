//! After a worker has refused a callback, refresh or deletion of a client, limits how many such calls of the client wait for an answer
//! at once. The gateway refuses further ones by itself.
//!
//! A refusal by a worker takes a gateway, the server and the worker about as much of the CPU as a read. At several times the load
//! that workers sustain, refusals would take most of the CPU from the calls that are carried out. So the limit follows what workers
//! take: each refusal halves it, each accepted call raises it a little.
//!
//! A worker refuses a call before it opens the call, for lack of the CPU or of room for any call. So a slow provider leads to no
//! limit. Calls that wait for one fill no limit either, because each counts for a short time only.
//!
//! Reads have no limit. Refused at once, a flood of reads brings so many more requests that HTTP alone fills the CPU.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longest time for which a call counts. A refusal for lack of room comes sooner. Later, the call waits for its provider or for a
/// permit, and must not keep others of its client from being sent.
pub(super) const COUNTS_FOR: Duration = Duration::from_millis(500);
/// Time after the last refusal by a worker in which a client has a limit.
const LASTS: Duration = Duration::from_secs(1);
/// Clients with a limit at once. For a further one, those whose limit is over are forgotten, or all if there are none.
const MOST_CLIENTS: usize = 4_096;

/// The limits of clients, by the client's name.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<String, Limit>>);

#[derive(Debug)]
struct Limit {
    most: f64,
    began: Instant,
    waiting: u32,
    /// Calls that were refused here since the last one that was sent.
    unsent: u32,
    /// When a worker last refused a call.
    refused: Instant,
}

/// A call that may be sent. Counts until it is dropped, at the latest.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    throttle: &'a Throttle,
    client: &'a str,
    /// Since when the call counts, if its client had a limit.
    counts_since: Option<Instant>,
    /// How many calls of the client were refused here since the last one that was sent. Workers count them too.
    pub(super) unsent: u32,
}

impl Throttle {
    /// Returns a call that may be sent, unless as many as the client may have are waiting for their answers.
    pub(super) fn admit<'a>(&'a self, client: &'a str) -> Option<Waiting<'a>> {
        let mut limits = self.lock();
        if limits.get(client).is_some_and(Limit::is_over) {
            limits.remove(client);
        }
        let Some(limit) = limits.get_mut(client) else {
            return Some(Waiting { throttle: self, client, counts_since: None, unsent: 0 });
        };
        if f64::from(limit.waiting) >= limit.most.floor() {
            limit.unsent = limit.unsent.saturating_add(1);
            return None;
        }
        limit.waiting += 1;
        let unsent = std::mem::take(&mut limit.unsent);
        Some(Waiting { throttle: self, client, counts_since: Some(Instant::now()), unsent })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Limit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limit {
    fn is_over(&self) -> bool {
        self.refused.elapsed() >= LASTS
    }
}

impl Waiting<'_> {
    /// Raises the limit: a worker took the call and answered it.
    pub(super) fn accepted(&self) {
        if let Some(limit) = self.throttle.lock().get_mut(self.client) {
            limit.most += 1.0 / limit.most;
        }
    }

    /// Halves the limit: a worker has refused the call, because it has too many.
    pub(super) fn refused(&self) {
        let mut limits = self.throttle.lock();
        if limits.len() >= MOST_CLIENTS && !limits.contains_key(self.client) {
            limits.retain(|_, limit| !limit.is_over());
            if limits.len() >= MOST_CLIENTS {
                limits.clear();
            }
        }
        let now = Instant::now();
        let new = || Limit { most: 2.0, began: now, waiting: 0, unsent: 0, refused: now };
        let limit = limits.entry(self.client.to_owned()).or_insert_with(new);
        limit.most = (limit.most / 2.0).max(1.0);
        limit.refused = now;
    }

    pub(super) fn stop_counting(&mut self) {
        let Some(since) = self.counts_since.take() else { return };
        // A newer limit has not counted the call.
        if let Some(limit) = self.throttle.lock().get_mut(self.client).filter(|limit| limit.began <= since) {
            limit.waiting = limit.waiting.saturating_sub(1);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stop_counting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends calls until one is refused here, and returns those that wait.
    fn fill<'a>(throttle: &'a Throttle, client: &'a str) -> Vec<Waiting<'a>> {
        std::iter::from_fn(|| throttle.admit(client)).take(100).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_limit_only_after_a_worker_refused_a_call() {
        let throttle = Throttle::default();
        assert_eq!(fill(&throttle, "many").len(), 100);
        throttle.admit("many").expect("no limit").refused();
        let waiting = fill(&throttle, "many");
        assert_eq!((waiting.len(), fill(&throttle, "other").len()), (1, 100));
        drop(waiting);
        assert_eq!(fill(&throttle, "many").len(), 1);
        tokio::time::sleep(LASTS).await;
        assert_eq!(fill(&throttle, "many").len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_follows_what_workers_take() {
        let throttle = Throttle::default();
        throttle.admit("many").expect("no limit").refused();
        for limit in 2..=8 {
            // As many accepted calls as wait at once, and a little more.
            for _ in 0..limit {
                throttle.admit("many").expect("none waits").accepted();
            }
            assert_eq!(fill(&throttle, "many").len(), limit);
        }
        throttle.admit("many").expect("none waits").refused();
        assert_eq!(fill(&throttle, "many").len(), 4);
        for _ in 0..9 {
            throttle.admit("many").expect("none waits").refused();
        }
        assert_eq!(fill(&throttle, "many").len(), 1, "one is always sent");
    }

    #[tokio::test(start_paused = true)]
    async fn workers_learn_how_many_calls_were_not_sent() {
        let throttle = Throttle::default();
        throttle.admit("many").expect("no limit").refused();
        let waiting = throttle.admit("many").expect("one may wait");
        assert_eq!(
            (waiting.unsent, throttle.admit("many").is_none(), throttle.admit("many").is_none()),
            (0, true, true)
        );
        drop(waiting);
        assert_eq!(throttle.admit("many").map(|admitted| admitted.unsent), Some(2));
        assert_eq!(throttle.admit("many").map(|admitted| admitted.unsent), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn limits_are_few() {
        let throttle = Throttle::default();
        let refuse = |number: usize| throttle.admit(&number.to_string()).expect("no limit").refused();
        (0..MOST_CLIENTS).for_each(refuse);
        assert_eq!(throttle.lock().len(), MOST_CLIENTS);
        refuse(MOST_CLIENTS);
        assert_eq!(throttle.lock().len(), 1);
        (0..MOST_CLIENTS - 1).for_each(refuse);
        tokio::time::sleep(LASTS / 2).await;
        refuse(MOST_CLIENTS);
        tokio::time::sleep(LASTS / 2).await;
        refuse(MOST_CLIENTS + 1);
        assert_eq!(throttle.lock().len(), 2, "those that are over go first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_ends_under_a_newer_limit_leaves_it_alone() {
        let throttle = Throttle::default();
        throttle.admit("many").expect("no limit").refused();
        let old = throttle.admit("many").expect("one may wait");
        tokio::time::sleep(LASTS).await;
        throttle.admit("many").expect("no limit").refused();
        let new = throttle.admit("many").expect("one may wait");
        drop(old);
        assert_eq!(fill(&throttle, "many").len(), 0);
        drop(new);
        assert_eq!(fill(&throttle, "many").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_counts_no_longer_leaves_its_place_to_another() {
        let throttle = Throttle::default();
        throttle.admit("many").expect("no limit").refused();
        let mut waiting = throttle.admit("many").expect("one may wait");
        assert_eq!(fill(&throttle, "many").len(), 0);
        waiting.stop_counting();
        let _other = throttle.admit("many").expect("none counts");
        drop(waiting);
        assert_eq!(fill(&throttle, "many").len(), 0, "it was counted once");
    }
}
