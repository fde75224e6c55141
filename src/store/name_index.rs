//! Names of the connections of accounts whose list has several pages, in a worker's memory. A page of a list then costs one
//! batch of direct gets, and the server neither searches nor counts.
//!
//! An account's names are read at its first list. From then on a watch adds what is written, and a page waits until the
//! watch has passed the newest write that the leader knows. So a page shows everything that was confirmed before its call.
//!
//! The watch runs only while large accounts are listed. When it ends, all names are forgotten. Without names, the server makes
//! the page, and counts deletion markers too.

mod build;
mod position;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::names::{Named, Names, NamesPage};
use crate::jetstream::changes::{self, Changed};
use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::{self, Account, CONNECTIONS, Integration};

/// Most names in memory, of all accounts together. Accounts that were not listed for the longest time are forgotten first.
const MAX_NAMES: usize = 250_000;
/// Time without a list after which an account's names are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);
/// Time after which the names of an account with too many are counted again.
const COUNTED_AGAIN_AFTER: Duration = Duration::from_mins(10);
/// Most accounts that are known to have too many names.
const MAX_TOO_LARGE: u64 = 1_000;

#[derive(Clone)]
pub(crate) struct NameIndex(Arc<Inner>);

struct Inner {
    nats: Nats,
    state: Mutex<State>,
    /// Changes with the state.
    news: watch::Sender<()>,
    /// Starts the watch.
    wanted: Notify,
    /// Held while the names of an account are read: one at a time.
    building: tokio::sync::Mutex<()>,
    /// Accounts with more than [`MAX_NAMES`].
    too_large: Cache<Account, ()>,
}

#[derive(Default)]
struct State {
    watch: Watch,
    accounts: HashMap<String, Indexed>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Watch {
    #[default]
    Off,
    Wanted,
    /// Changes up to this sequence of the bucket's stream are in the names.
    On {
        position: u64,
    },
}

/// The names of one account.
struct Indexed {
    names: Names,
    is_complete: bool,
    listed: Instant,
}

impl NameIndex {
    pub(super) fn new(nats: Nats) -> Self {
        let too_large = Cache::builder().max_capacity(MAX_TOO_LARGE).time_to_live(COUNTED_AGAIN_AFTER).build();
        let (state, wanted, building) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { nats, state, news: watch::Sender::new(()), wanted, building, too_large }))
    }

    /// Returns true if the account's names are in memory.
    pub(super) fn has(&self, account: &Account) -> bool {
        self.lock().accounts.get(account.as_str()).is_some_and(|indexed| indexed.is_complete)
    }

    /// Returns a part of an account's names in the order of their last change, or nothing if they are not in memory: there are
    /// too many, or nothing watches the bucket.
    pub(super) async fn page(
        &self,
        account: &Account,
        integration: Option<&Integration>,
        after: u64,
        limit: usize,
    ) -> Result<Option<NamesPage>, NatsError> {
        if !self.is_watching().await
            || !(self.has(account) || self.build(account).await?)
            || !self.has_caught_up().await?
        {
            return Ok(None);
        }
        let mut state = self.lock();
        let Some(indexed) = state.accounts.get_mut(account.as_str()) else { return Ok(None) };
        indexed.listed = Instant::now();
        let page = indexed.names.page(integration, after, limit);
        state.forget_unused();
        Ok(Some(page))
    }

    /// Forgets a name whose entry is gone, unless it was written again.
    pub(super) fn forget_name(&self, account: &Account, Named { revision, name }: &Named) {
        if let Some(indexed) = self.lock().accounts.get_mut(account.as_str()) {
            indexed.names.remove(name, *revision);
        }
    }

    /// Watches the bucket while large accounts are listed, for as long as this future is polled.
    pub(crate) async fn watch(&self) -> Infallible {
        loop {
            self.0.wanted.notified().await;
            match self.follow().await {
                Ok(()) => info!("no large account is listed any more; its names are forgotten"),
                Err(error) => warn!("watch of connections ended: {error}; their names are read again by the next list"),
            }
            *self.lock() = State::default();
            self.0.news.send_replace(());
        }
    }

    /// Follows the changes until that fails, or no account has names in memory.
    async fn follow(&self) -> Result<(), NatsError> {
        let mut entries = changes::of_bucket(&self.0.nats, CONNECTIONS).await?;
        self.lock().watch = Watch::On { position: entries.began() };
        self.0.news.send_replace(());
        let (mut idle, mut was_idle) = (tokio::time::interval(FORGOTTEN_AFTER), false);
        loop {
            tokio::select! {
                changed = entries.next() => self.apply_entry(&changed?),
                _ = idle.tick() => {
                    let mut state = self.lock();
                    state.forget_unused();
                    // The account for which the watch started may not be in the map yet.
                    let is_idle = state.accounts.is_empty();
                    if is_idle && was_idle {
                        return Ok(());
                    }
                    was_idle = is_idle;
                }
            }
        }
    }

    fn apply_entry(&self, Changed { key, sequence, headers }: &Changed) {
        let mut state = self.lock();
        state.watch = Watch::On { position: *sequence };
        if let Some((account, name)) = subject::split_account(key)
            && let Some(indexed) = state.accounts.get_mut(account)
        {
            if kv::is_deletion(headers) {
                indexed.names.remove(name, *sequence);
            } else {
                indexed.names.put(name, *sequence);
            }
        }
        drop(state);
        self.0.news.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets accounts that were not listed for a while, and the oldest above the limit.
    fn forget_unused(&mut self) {
        self.accounts.retain(|_, indexed| indexed.listed.elapsed() < FORGOTTEN_AFTER);
        while self.accounts.values().map(|indexed| indexed.names.len()).sum::<usize>() > MAX_NAMES {
            let oldest = self.accounts.iter().min_by_key(|(_, indexed)| indexed.listed);
            let Some(oldest) = oldest.map(|(account, _)| account.clone()) else { return };
            self.accounts.remove(&oldest);
        }
    }
}

impl Indexed {
    fn empty() -> Self {
        Self { names: Names::default(), is_complete: false, listed: Instant::now() }
    }
}
