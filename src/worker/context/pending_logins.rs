//! How many logins of an account may be pending at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::jetstream::{Nats, NatsError, kv};

use crate::subject::{self, Account, STATES};

/// How long a count is believed. Between two, each process adds what it begins itself.
const COUNTED_FOR: Duration = Duration::from_secs(1);
/// Accounts whose counts are kept.
const ACCOUNTS: u64 = 10_000;

/// The pending logins of each account, counted by the server.
pub(crate) struct PendingLogins(Cache<Account, Arc<Counted>>);

struct Counted {
    found: u64,
    begun_since: AtomicU64,
}

impl Default for PendingLogins {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ACCOUNTS).time_to_live(COUNTED_FOR).build())
    }
}

impl PendingLogins {
    /// Takes a place for one more, of at most `most`. Gives whether there was one.
    ///
    /// # Errors
    /// [`NatsError`] when the server does not count.
    pub(crate) async fn admit(&self, nats: &Nats, account: &Account, most: u64) -> Result<bool, NatsError> {
        if let Some(counted) = self.0.get(account) {
            match counted.take_place(most) {
                Ok(()) => return Ok(true),
                Err(Full::Counted) => return Ok(false),
                Err(Full::Perhaps) => self.0.invalidate(account),
            }
        }
        let found = count(nats, account, most).await?;
        // Of those who counted at once, all go on with one count.
        let counted = || Arc::new(Counted { found, begun_since: AtomicU64::new(0) });
        Ok(self.0.get_with_by_ref(account, counted).take_place(most).is_ok())
    }
}

/// Why there is no place.
enum Full {
    /// The server counted as many.
    Counted,
    /// With those that were begun since; of which some may have ended.
    Perhaps,
}

impl Counted {
    fn take_place(&self, most: u64) -> Result<(), Full> {
        let one_more = |begun: u64| (self.found + begun < most).then_some(begun + 1);
        match self.begun_since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(()),
            Err(0) => Err(Full::Counted),
            Err(_) => Err(Full::Perhaps),
        }
    }
}

/// The server's count holds the marks of logins that ended, too. Only when that is too many are those told apart.
async fn count(nats: &Nats, account: &Account, most: u64) -> Result<u64, NatsError> {
    let filter = subject::states_of(account);
    match kv::count(nats, STATES, &filter).await? {
        all if all < most => Ok(all),
        _ => kv::keys(nats, STATES, &filter).await.map(|keys| keys.len() as u64),
    }
}
