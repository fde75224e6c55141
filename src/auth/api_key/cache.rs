//! API keys in a worker's memory, so that a request with a known key needs no read from the bus. A revoked key is rejected by
//! every worker within moments, or by a read ([`WatchedBucket`]).
//!
//! The time of a key's last use is stored once a minute, in place of the revision that was read. The write fails if the
//! key was revoked meanwhile, so it never revives a key.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::{SignedDuration, Timestamp};
use moka::sync::Cache;
use subtle::ConstantTimeEq as _;
use tokio::sync::mpsc;
use tracing::debug;

use super::{StoredKey, hash, parse, to_json};
use crate::auth::rejection::Reason;
use crate::auth::{AuthError, Failed, VerifiedCaller};
use crate::command::Origin;
use crate::jetstream::{Nats, NatsError, WatchedBucket, kv};
use crate::rights::Scopes;
use crate::subject::API_KEYS;

/// Rate limiters and stored uses, each. Bounds memory.
const MAX_REMEMBERED: u64 = 10_000;
/// Idle time after which a rate limiter is dropped: by then its quota is full again.
const LIMITER_TTL: Duration = Duration::from_mins(1);
/// Shortest time between two writes of a key's last use. Limits writes to one a minute for each key and worker.
const LAST_USE_INTERVAL: Duration = Duration::from_mins(1);
/// Uses that wait to be stored. More are dropped: the time of the last use is a hint for people.
const MAX_WAITING_USES: usize = 1_024;

#[derive(Clone)]
pub(crate) struct ApiKeys(Arc<Inner>);

struct Inner {
    nats: Nats,
    cached: WatchedBucket<Arc<Cached>>,
    /// Keys whose last use was stored less than [`LAST_USE_INTERVAL`] ago.
    recently_stored: Cache<String, ()>,
    limiters: Cache<String, Arc<DefaultDirectRateLimiter>>,
    uses: mpsc::Sender<Use>,
    waiting_uses: tokio::sync::Mutex<mpsc::Receiver<Use>>,
}

/// A key as it was read.
struct Cached {
    key: StoredKey,
    revision: u64,
}

/// A use to be stored.
struct Use {
    id: String,
    key: Arc<Cached>,
    at: Timestamp,
}

impl ApiKeys {
    /// Until [`ApiKeys::watch`] runs, every use reads the key.
    #[must_use]
    pub(crate) fn new(nats: Nats) -> Self {
        let (uses, waiting_uses) = mpsc::channel(MAX_WAITING_USES);
        Self(Arc::new(Inner {
            cached: WatchedBucket::new(nats.clone(), API_KEYS, "API keys"),
            nats,
            recently_stored: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(LAST_USE_INTERVAL).build(),
            limiters: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_idle(LIMITER_TTL).build(),
            uses,
            waiting_uses: tokio::sync::Mutex::new(waiting_uses),
        }))
    }

    /// Verifies a key. Compares the hash of its secret in constant time; ids are no secret.
    pub(in crate::auth) async fn authenticate(
        &self,
        key: &str,
        member: &Scopes,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<VerifiedCaller, Failed> {
        let unknown = || AuthError::from(Reason::ApiKey);
        let (id, secret) = parse(key).ok_or_else(unknown)?;
        let found = self.find(id).await.map_err(AuthError::from)?;
        let expected = found.as_ref().map_or("", |found| found.key.hash.as_str());
        let is_same: bool = hash(secret).as_bytes().ct_eq(expected.as_bytes()).into();
        match found {
            Some(found) if is_same && now < found.key.expires => {
                self.record_use(id, &found, now);
                let actor = format!("key:{id}");
                if let Some(limit) = found.key.rate_limit {
                    let fresh = || Arc::new(RateLimiter::direct(Quota::per_second(limit)));
                    drop(self.0.limiters.get_with_by_ref(&actor, fresh));
                }
                let (account, rights) = (found.key.account.clone(), found.key.rights(member));
                Ok(VerifiedCaller { account, rights, actor, origin: origin.clone() })
            }
            Some(found) => Err(Failed::of_key(id, found.key.account.clone())),
            None => Err(unknown().into()),
        }
    }

    /// Counts a request of a caller that [`ApiKeys::authenticate`] has verified.
    ///
    /// # Errors
    /// The time to wait, if the rate limit is reached.
    pub(crate) fn admit(&self, actor: &str) -> Result<(), Duration> {
        let Some(limiter) = self.0.limiters.get(actor) else { return Ok(()) };
        limiter.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Watches the bucket and stores uses, for as long as this future is polled.
    pub(crate) async fn watch(&self) -> Infallible {
        let mut waiting_uses = self.0.waiting_uses.lock().await;
        tokio::select! {
            never = self.0.cached.watch() => never,
            never = self.store_uses(&mut waiting_uses) => never,
        }
    }

    async fn find(&self, id: &str) -> Result<Option<Arc<Cached>>, NatsError> {
        let value = |entry: Option<kv::Entry>| {
            let entry = entry?;
            let key = serde_json::from_slice(&entry.value?).ok()?;
            Some(Arc::new(Cached { key, revision: entry.revision }))
        };
        self.0.cached.get(id, value).await
    }

    fn record_use(&self, id: &str, key: &Arc<Cached>, now: Timestamp) {
        let interval = SignedDuration::try_from(LAST_USE_INTERVAL).unwrap_or(SignedDuration::MAX);
        let is_recent = key.key.last_used.is_some_and(|last| now.duration_since(last) < interval);
        if is_recent || self.0.recently_stored.contains_key(id) {
            return;
        }
        self.0.recently_stored.insert(id.to_owned(), ());
        drop(self.0.uses.try_send(Use { id: id.to_owned(), key: Arc::clone(key), at: now }));
    }

    /// Stores uses. A key that was revoked or stored since it was read stays as it is.
    async fn store_uses(&self, waiting_uses: &mut mpsc::Receiver<Use>) -> Infallible {
        loop {
            let Some(Use { id, key, at }) = waiting_uses.recv().await else { return std::future::pending().await };
            let Ok(value) = to_json(&StoredKey { last_used: Some(at), ..key.key.clone() }) else { continue };
            if let Err(error) = kv::put(&self.0.nats, API_KEYS, &id, value, key.revision).await {
                debug!("last use of an API key not stored: {error}");
            }
        }
    }
}
