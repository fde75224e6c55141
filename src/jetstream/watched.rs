//! Values of a bucket in a worker's memory, so that their use needs no read from the bus.
//!
//! A value is cached only while a watch of the bucket runs. A change in the bucket removes the value from the cache; a value
//! that was read while a change arrived is not cached, because the read may be older than the change. Nothing cached is used
//! once the connection is not the one on which the watch began, a change was missed, or the server was silent for two
//! seconds: without a watch each use reads the bucket. So a change counts for every worker within moments.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tracing::{debug, info, warn};

use super::changes;
use super::client::Nats;
use super::error::NatsError;
use super::kv::{self, Entry};

/// Cached values. Bounds memory.
const MAX_CACHED: u64 = 10_000;
/// Longest time in the cache.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// Pause before the bucket is watched again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A watched bucket, with values that were made of its entries.
pub(crate) struct WatchedBucket<V> {
    nats: Nats,
    bucket: &'static str,
    /// The values' name in the log.
    name: &'static str,
    cached: Cache<String, V>,
    watch: Mutex<Watch>,
}

#[derive(Default)]
struct Watch {
    /// The connection on which the watch runs.
    connection: Option<u64>,
    /// Number of changes seen. A read that began before the newest change may be out of date.
    changes: u64,
}

impl<V: Clone + Send + Sync + 'static> WatchedBucket<V> {
    /// Until [`WatchedBucket::watch`] runs, every use reads the bucket.
    #[must_use]
    pub(crate) fn new(nats: Nats, bucket: &'static str, name: &'static str) -> Self {
        let cached = Cache::builder().max_capacity(MAX_CACHED).time_to_live(CACHE_TTL).build();
        Self { nats, bucket, name, cached, watch: Mutex::default() }
    }

    /// Returns the value of a key. Reads the entry from the leader unless the value is cached, and caches what `value` makes of
    /// it.
    pub(crate) async fn get(
        &self,
        key: &str,
        value: impl FnOnce(Option<Entry>) -> Option<V>,
    ) -> Result<Option<V>, NatsError> {
        let changes_before = self.reliable_changes();
        if changes_before.is_some()
            && let Some(cached) = self.cached.get(key)
        {
            return Ok(Some(cached));
        }
        debug!("reading {}/{key}", self.bucket);
        let Some(value) = value(kv::get(&self.nats, self.bucket, key).await?) else { return Ok(None) };
        let watch = self.lock();
        // Don't cache if a change arrived during the read: it may be this key's, and the read may be older.
        if changes_before == Some(watch.changes) && watch.connection.is_some() {
            self.cached.insert(key.to_owned(), value.clone());
        }
        Ok(Some(value))
    }

    /// Watches the bucket for as long as this future is polled.
    pub(crate) async fn watch(&self) -> Infallible {
        let mut is_news = true;
        loop {
            let ended = self.follow().await;
            is_news |= self.lock().connection.take().is_some();
            if std::mem::take(&mut is_news) {
                warn!("watch of {} ended: {ended}; each use reads the bucket until a new watch begins", self.name);
            }
            tokio::time::sleep(WATCH_AGAIN_AFTER).await;
        }
    }

    /// Follows the bucket's changes until that fails.
    async fn follow(&self) -> NatsError {
        let connection = self.nats.connection_count();
        let mut changes = match changes::of_bucket(&self.nats, self.bucket).await {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        self.begin_watch(connection);
        info!("watching {}", self.name);
        loop {
            tokio::select! {
                next = changes.next() => match next {
                    Ok(stored) => self.forget(&stored.key),
                    Err(error) => return error,
                },
                // The server keeps the consumer of a short interruption, but nothing cached is used on another connection.
                () = self.nats.new_connection(connection) => return NatsError::away("the connection was lost"),
            }
        }
    }

    fn begin_watch(&self, connection: u64) {
        let mut watch = self.lock();
        watch.changes += 1;
        watch.connection = Some(connection);
        self.cached.invalidate_all();
    }

    /// Removes a value from the cache. The next use reads it.
    pub(crate) fn forget(&self, key: &str) {
        let mut watch = self.lock();
        watch.changes += 1;
        self.cached.invalidate(key);
    }

    /// Returns the number of changes seen, or `None` if a change may have been missed.
    fn reliable_changes(&self) -> Option<u64> {
        let watch = self.lock();
        let nats = &self.nats;
        (nats.is_connected() && watch.connection == Some(nats.connection_count())).then_some(watch.changes)
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
