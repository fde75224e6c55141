//! Quotas of each account: connections, deleted connections, and events per minute. A tenant that exceeds its own affects no other tenant.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::{self, Account, CONNECTIONS};

/// Lifetime of a count of connections. A login that begins meanwhile is not counted, so an account may exceed its quota by
/// its pending logins.
const COUNTED_FOR: Duration = Duration::from_secs(10);
/// Lifetime of a count that has reached the quota. It costs a read of all the account's keys.
const FULL_FOR: Duration = Duration::from_secs(1);
/// Most accounts in each cache.
const ACCOUNTS: u64 = 10_000;
/// Time after which an unused bucket of events is forgotten. It is full again by then.
const BUCKET_FORGOTTEN: Duration = Duration::from_mins(2);

/// Connections per account.
pub(crate) struct ConnectionCounts(Cache<Account, Counted>);

/// Names of deleted connections that an account may have for each connection. Far more than an account that lives for years
/// deletes, and few enough that one account does not fill the bucket.
pub(crate) const DELETED_PER_CONNECTION: u64 = 10;

/// The quota that an account has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsedUp {
    Connections,
    /// Names of deleted connections: each leaves a marker in the bucket, which all accounts share.
    DeletedNames,
}

#[derive(Clone, Copy)]
struct Counted {
    connections: u64,
    deleted: u64,
    at: Instant,
}

impl Counted {
    fn used_up(self, most: u64) -> Option<UsedUp> {
        if self.connections >= most {
            Some(UsedUp::Connections)
        } else {
            (self.deleted >= most.saturating_mul(DELETED_PER_CONNECTION)).then_some(UsedUp::DeletedNames)
        }
    }
}

impl Default for ConnectionCounts {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ACCOUNTS).time_to_live(COUNTED_FOR).build())
    }
}

impl ConnectionCounts {
    /// Returns the quota that the account has used up, if it may have `most` connections.
    pub(crate) async fn used_up(&self, nats: &Nats, account: &Account, most: u64) -> Result<Option<UsedUp>, NatsError> {
        if let Some(counted) = self.0.get(account)
            && (counted.used_up(most).is_none() || counted.at.elapsed() < FULL_FOR)
        {
            return Ok(counted.used_up(most));
        }
        let filter = subject::connections_of(account, None);
        let entries = kv::count(nats, CONNECTIONS, &filter).await?;
        let mut counted = Counted { connections: entries, deleted: 0, at: Instant::now() };
        if entries >= most {
            // The server counts deletion markers too.
            counted.connections = kv::keys(nats, CONNECTIONS, &filter).await?.len() as u64;
            counted.deleted = entries.saturating_sub(counted.connections);
        }
        self.0.insert(account.clone(), counted);
        Ok(counted.used_up(most))
    }
}

/// A token bucket of events for each account.
pub(crate) struct EventBuckets(Cache<Account, Arc<Mutex<Bucket>>>);

struct Bucket {
    /// Events that may be published now.
    left: f64,
    since: Instant,
}

impl Default for EventBuckets {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ACCOUNTS).time_to_idle(BUCKET_FORGOTTEN).build())
    }
}

impl EventBuckets {
    /// Takes one event out of the account's bucket. Returns false if it is empty. At most `per_minute` events leave a full
    /// bucket at once.
    pub(crate) fn take(&self, account: &Account, per_minute: u32, now: Instant) -> bool {
        let most = f64::from(per_minute);
        let bucket = self.0.get_with_by_ref(account, || Arc::new(Mutex::new(Bucket { left: most, since: now })));
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = now.saturating_duration_since(bucket.since).as_secs_f64() * most / 60.0;
        (bucket.left, bucket.since) = ((bucket.left + refilled).min(most), now);
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h5_deleted_connections_have_a_quota_of_their_own() {
        #[track_caller]
        fn check(connections: u64, deleted: u64, expected: Option<UsedUp>) {
            let counted = Counted { connections, deleted, at: Instant::now() };
            assert_eq!(counted.used_up(3), expected, "{connections} and {deleted}");
        }
        check(2, 2, None);
        check(3, 0, Some(UsedUp::Connections));
        check(0, 29, None);
        check(0, 30, Some(UsedUp::DeletedNames));
        check(3, 30, Some(UsedUp::Connections));
        check(2, 31, Some(UsedUp::DeletedNames));
    }

    #[test]
    fn h5_a_bucket_refills_within_a_minute_and_belongs_to_one_account() {
        let account = || Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap();
        let (one, other) = (account(), account());
        let (buckets, now) = (EventBuckets::default(), Instant::now());
        let taken = |account: &Account, at: Instant| (0..100).filter(|_| buckets.take(account, 60, at)).count();
        assert_eq!(taken(&one, now), 60);
        assert_eq!(taken(&other, now), 60);
        assert_eq!(taken(&one, now + Duration::from_secs(10)), 10);
        assert_eq!(taken(&one, now + Duration::from_mins(5)), 60);
        assert!(!buckets.take(&one, 0, now + Duration::from_mins(9)));
    }
}
