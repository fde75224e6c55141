//! Shares of callbacks and deletions, counted together: a provider that hangs, or an account with very many logins, holds up
//! only its own.
//!
//! Of the commands of a verb that run at once and still need their provider, one integration gets a quarter, one account a quarter,
//! and one account at one integration an eighth. Further commands wait in memory, where the worker keeps reporting progress on them.
//! The memory is shared in the same way; a command that finds its share of it full is refused at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::subject::{Account, Integration, Verb};

/// Commands in memory for each one that may run.
const WAITING_PER_RUNNING: usize = 64;
/// Holders to remember. When a further one arrives, those without a command are forgotten.
const KEPT_HOLDERS: usize = 1_024;

pub(crate) struct Shares {
    running: Part,
    waiting: Part,
    exchanges: Arc<Semaphore>,
    revocations: Arc<Semaphore>,
}

/// The right to run a command, or to wait in memory. Returned on drop.
pub(crate) struct Share {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Shares {
    /// Divides `concurrency` commands of each verb.
    pub(crate) fn new(concurrency: usize) -> Self {
        let running = || Arc::new(Semaphore::new(concurrency.max(1)));
        Self {
            running: Part::of(concurrency),
            waiting: Part::of(concurrency.saturating_mul(WAITING_PER_RUNNING)),
            exchanges: running(),
            revocations: running(),
        }
    }

    /// Returns the number of commands of one verb that are in memory at once.
    pub(crate) fn in_memory(concurrency: usize) -> usize {
        concurrency.saturating_mul(WAITING_PER_RUNNING)
    }

    /// Takes a share of the memory. Returns `None` if the account or the integration has used up its own.
    pub(crate) fn enter(&self, account: &Account, integration: &Integration) -> Option<Share> {
        let taken = self.waiting.semaphores(account, integration).map(|semaphore| semaphore.try_acquire_owned().ok());
        taken.into_iter().collect::<Option<Vec<_>>>().map(|permits| Share { _permits: permits })
    }

    /// Waits until the command may run. Takes the narrowest share first, so that a command
    /// that waits for a wider one holds up only its own account.
    pub(crate) async fn run(&self, account: &Account, integration: &Integration, verb: Verb) -> Share {
        let all = if verb == Verb::Exchange { &self.exchanges } else { &self.revocations };
        let mut permits = Vec::new();
        for semaphore in self.running.semaphores(account, integration).into_iter().chain([Arc::clone(all)]) {
            // The semaphores are never closed.
            permits.extend(semaphore.acquire_owned().await.ok());
        }
        Share { _permits: permits }
    }
}

/// The share of a command that runs, until its provider has answered all requests. What follows is stored, which takes as long for all
/// integrations.
#[derive(Default)]
pub(crate) struct RunningShare(Mutex<Option<Share>>);

impl RunningShare {
    pub(crate) fn begin(&self, share: Share) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(share);
    }

    pub(crate) fn end(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// One divisible number of commands.
struct Part {
    pairs: Holders<(Account, Integration)>,
    accounts: Holders<Account>,
    integrations: Holders<Integration>,
}

impl Part {
    fn of(all: usize) -> Self {
        Self { pairs: Holders::new(all / 8), accounts: Holders::new(all / 4), integrations: Holders::new(all / 4) }
    }

    fn semaphores(&self, account: &Account, integration: &Integration) -> [Arc<Semaphore>; 3] {
        [
            self.pairs.semaphore(&(account.clone(), integration.clone())),
            self.accounts.semaphore(account),
            self.integrations.semaphore(integration),
        ]
    }
}

struct Holders<K> {
    most: usize,
    semaphores: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Eq + Hash + Clone> Holders<K> {
    fn new(most: usize) -> Self {
        Self { most: most.max(1), semaphores: Mutex::default() }
    }

    fn semaphore(&self, holder: &K) -> Arc<Semaphore> {
        let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        if semaphores.len() >= KEPT_HOLDERS && !semaphores.contains_key(holder) {
            // Permits and waiting commands hold references.
            semaphores.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        Arc::clone(semaphores.entry(holder.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.most))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn account() -> Account {
        Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap()
    }

    fn integration(name: &str) -> Integration {
        Integration::parse(name).unwrap()
    }

    /// Runs commands until one has to wait.
    fn fill(shares: &Shares, account: &Account, integration: &Integration) -> Vec<Share> {
        std::iter::from_fn(|| shares.run(account, integration, Verb::Exchange).now_or_never()).collect()
    }

    #[test]
    fn h2_an_integration_and_an_account_get_a_quarter_and_both_together_an_eighth() {
        let shares = Shares::new(64);
        let (one, two, three) = (account(), account(), account());
        let (slack, jira, odd) = (integration("slack"), integration("jira"), integration("odd"));
        let pair = fill(&shares, &one, &slack);
        let second = fill(&shares, &two, &slack);
        assert_eq!((pair.len(), second.len(), fill(&shares, &three, &slack).len()), (8, 8, 0));
        let elsewhere = fill(&shares, &one, &jira);
        assert_eq!((elsewhere.len(), fill(&shares, &one, &odd).len()), (8, 0));
        assert_eq!(fill(&shares, &three, &odd).len(), 8);
        drop(pair);
        assert_eq!(fill(&shares, &one, &slack).len(), 8);
        assert_eq!(fill(&shares, &one, &odd).len(), 8);
    }

    #[test]
    fn h2_a_single_permit_is_shared_by_all() {
        let shares = Shares::new(1);
        let taken = fill(&shares, &account(), &integration("slack"));
        assert_eq!((taken.len(), fill(&shares, &account(), &integration("odd")).len()), (1, 0));
        drop(taken);
        assert_eq!(fill(&shares, &account(), &integration("odd")).len(), 1);
    }

    #[test]
    fn h2_the_memory_is_shared_too_and_idle_holders_are_forgotten() {
        let shares = Shares::new(8);
        let one = account();
        let waiting: Vec<Share> = std::iter::from_fn(|| shares.enter(&one, &integration("slack"))).collect();
        assert_eq!(waiting.len(), WAITING_PER_RUNNING);
        assert!(shares.enter(&account(), &integration("slack")).is_some());
        for number in 0..3 * KEPT_HOLDERS {
            drop(shares.enter(&one, &integration(&format!("app{number}"))));
        }
        let kept = shares.waiting.integrations.semaphores.lock().unwrap().len();
        assert!(kept <= KEPT_HOLDERS, "{kept}");
        assert!(shares.enter(&one, &integration("slack")).is_none(), "its share is full");
    }
}
