//! Limits the pending logins of each account. docs/decisions/0013-pending-login-counts.md has the reason for the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::jetstream::{Nats, NatsError, kv};

use crate::subject::{self, Account, STATES};

/// Lifetime of a count. Until the next one, each process adds the logins that it begins itself.
const COUNTED_FOR: Duration = Duration::from_secs(1);
/// Most accounts in the cache.
const ACCOUNTS: u64 = 10_000;

/// Pending logins per account, counted by the server.
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
    /// Admits one more pending login. Returns false if the account has `most` already.
    pub(crate) async fn admit(&self, nats: &Nats, account: &Account, most: u64) -> Result<bool, NatsError> {
        if let Some(counted) = self.0.get(account) {
            match counted.admit(most) {
                Ok(()) => return Ok(true),
                Err(Full::Counted) => return Ok(false),
                Err(Full::Perhaps) => self.0.invalidate(account),
            }
        }
        let found = count(nats, account, most).await?;
        // Logins that counted at the same time share one count.
        let counted = || Arc::new(Counted { found, begun_since: AtomicU64::new(0) });
        Ok(self.0.get_with_by_ref(account, counted).admit(most).is_ok())
    }
}

/// Why a login is not admitted.
enum Full {
    /// The server counted the maximum.
    Counted,
    /// The count plus the logins begun since; some of those may have ended.
    Perhaps,
}

impl Counted {
    fn admit(&self, most: u64) -> Result<(), Full> {
        let one_more = |begun: u64| (self.found + begun < most).then_some(begun + 1);
        match self.begun_since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(()),
            Err(0) => Err(Full::Counted),
            Err(_) => Err(Full::Perhaps),
        }
    }
}

/// Counts messages first, which includes deletion markers of ended logins. Only if that is too many, reads the keys to leave
/// the markers out.
async fn count(nats: &Nats, account: &Account, most: u64) -> Result<u64, NatsError> {
    let filter = subject::states_of(account);
    match kv::count(nats, STATES, &filter).await? {
        all if all < most => Ok(all),
        _ => kv::keys(nats, STATES, &filter).await.map(|keys| keys.len() as u64),
    }
}
