//! API keys in a worker's memory: verified without asking the bus, noted down as used, held to their rate.
//!
//! What is kept is dropped when the bucket says that it changed. Whenever that cannot be relied upon (the watch has
//! just begun, has ended, or the connection is another one than it began on) nothing kept is believed.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::{SignedDuration, Timestamp};
use moka::sync::Cache;
use subtle::ConstantTimeEq as _;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{StoredKey, hash, parse, to_json};
use crate::auth::rejection::Reason;
use crate::auth::{AuthError, VerifiedCaller};
use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::API_KEYS;

/// ApiKeys kept at most, and for how long.
const KEPT: u64 = 10_000;
const KEPT_FOR: Duration = Duration::from_mins(1);
/// How often a key's use is noted down.
const NOTED_EVERY: Duration = Duration::from_mins(1);
/// Uses waiting to be noted down; more are not noted.
const NOTES: usize = 1_024;
/// Pause before the bucket is watched again.
const AGAIN: Duration = Duration::from_millis(500);

/// The API keys, as this process knows them.
#[derive(Clone)]
pub(crate) struct ApiKeys(Arc<Inner>);

struct Inner {
    nats: Nats,
    kept: Cache<String, Arc<Kept>>,
    watch: Mutex<Watch>,
    noted: Cache<String, ()>,
    limits: Cache<String, Arc<DefaultDirectRateLimiter>>,
    uses: mpsc::Sender<Use>,
    to_note: tokio::sync::Mutex<mpsc::Receiver<Use>>,
}

/// A key as it was read.
struct Kept {
    key: StoredKey,
    revision: u64,
}

/// A use to be noted down.
struct Use {
    id: String,
    key: Arc<Kept>,
    at: Timestamp,
}

/// What is known of changes in the bucket.
#[derive(Default)]
struct Watch {
    /// The connection on which the bucket is watched.
    on: Option<u64>,
    /// Changes seen so far: what was read before the newest of them may be out of date.
    changes: u64,
}

impl ApiKeys {
    /// The keys on this bus. Until [`ApiKeys::watch`] runs, each is read whenever it is used.
    #[must_use]
    pub(crate) fn new(nats: Nats) -> Self {
        let (uses, to_note) = mpsc::channel(NOTES);
        let lasting = |time| Cache::builder().max_capacity(KEPT).time_to_live(time).build();
        Self(Arc::new(Inner {
            nats,
            kept: Cache::builder().max_capacity(KEPT).time_to_live(KEPT_FOR).build(),
            watch: Mutex::default(),
            noted: lasting(NOTED_EVERY),
            // Whoever was silent that long has all of its quota again.
            limits: Cache::builder().max_capacity(KEPT).time_to_idle(KEPT_FOR).build(),
            uses,
            to_note: tokio::sync::Mutex::new(to_note),
        }))
    }

    /// Checks a key. Its secret's hash is compared in constant time; ids are no secret.
    ///
    /// # Errors
    /// [`Reason::ApiKey`] for anything but a known key within its lifetime.
    pub(crate) async fn authenticate(&self, key: &str, now: Timestamp) -> Result<VerifiedCaller, AuthError> {
        let (id, secret) = parse(key).ok_or(Reason::ApiKey)?;
        let found = self.find(id).await?;
        let expected = found.as_ref().map_or("", |found| found.key.hash.as_str());
        let is_same: bool = hash(secret).as_bytes().ct_eq(expected.as_bytes()).into();
        match found {
            Some(found) if is_same && now < found.key.expires => {
                self.note(id, &found, now);
                let actor = format!("key:{id}");
                if let Some(limit) = found.key.rate_limit {
                    let fresh = || Arc::new(RateLimiter::direct(Quota::per_second(limit)));
                    drop(self.0.limits.get_with_by_ref(&actor, fresh));
                }
                Ok(VerifiedCaller { account: found.key.account.clone(), role: found.key.role, actor })
            }
            _ => Err(Reason::ApiKey.into()),
        }
    }

    /// Counts a request of a caller that [`ApiKeys::authenticate`] has proven.
    ///
    /// # Errors
    /// How long to wait, when it has made as many as it may.
    pub(crate) fn admit(&self, actor: &str) -> Result<(), Duration> {
        let Some(limit) = self.0.limits.get(actor) else { return Ok(()) };
        limit.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Watches the bucket and notes down uses, for as long as it is polled.
    pub(crate) async fn watch(&self) -> Infallible {
        let (mut to_note, mut is_news) = (self.0.to_note.lock().await, true);
        loop {
            let ended = tokio::select! {
                ended = self.follow() => ended,
                never = self.note_down(&mut to_note) => match never {},
            };
            is_news |= self.lock().on.take().is_some();
            if std::mem::take(&mut is_news) {
                warn!("API keys are not watched, each is read when it is used: {ended}; beginning again");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Follows the bucket's changes until that fails.
    async fn follow(&self) -> NatsError {
        let connection = self.0.nats.connects();
        let mut changes = match kv::changes(&self.0.nats, API_KEYS).await {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        self.begin(connection);
        info!("watching API keys");
        loop {
            match changes.next().await {
                Ok(id) => self.forget(&id),
                Err(error) => return error,
            }
        }
    }

    fn begin(&self, connection: u64) {
        let mut watch = self.lock();
        watch.changes += 1;
        watch.on = Some(connection);
        self.0.kept.invalidate_all();
    }

    fn forget(&self, id: &str) {
        let mut watch = self.lock();
        watch.changes += 1;
        self.0.kept.invalidate(id);
    }

    async fn find(&self, id: &str) -> Result<Option<Arc<Kept>>, NatsError> {
        let watched = self.watched();
        if watched.is_some()
            && let Some(kept) = self.0.kept.get(id)
        {
            return Ok(Some(kept));
        }
        debug!(id, "reading an API key");
        let Some(entry) = kv::get(&self.0.nats, API_KEYS, id).await? else { return Ok(None) };
        let key = entry.value.and_then(|value| serde_json::from_slice(&value).ok());
        let Some(key) = key else { return Ok(None) };
        let found = Arc::new(Kept { key, revision: entry.revision });
        let watch = self.lock();
        // Not when a change came in the meantime: it may be this key's, and what was read the state before.
        if watched == Some(watch.changes) && watch.on.is_some() {
            self.0.kept.insert(id.to_owned(), Arc::clone(&found));
        }
        Ok(Some(found))
    }

    /// How many changes were seen, if none can be missed at this moment.
    fn watched(&self) -> Option<u64> {
        let watch = self.lock();
        let nats = &self.0.nats;
        (nats.is_connected() && watch.on == Some(nats.connects())).then_some(watch.changes)
    }

    fn note(&self, id: &str, key: &Arc<Kept>, now: Timestamp) {
        let is_noted = key.key.last_used.is_some_and(|last| now.duration_since(last) < every());
        if is_noted || self.0.noted.contains_key(id) {
            return;
        }
        self.0.noted.insert(id.to_owned(), ());
        drop(self.0.uses.try_send(Use { id: id.to_owned(), key: Arc::clone(key), at: now }));
    }

    /// Writes down uses in place of what was read: a key that was revoked or noted since stays as it is.
    async fn note_down(&self, to_note: &mut mpsc::Receiver<Use>) -> Infallible {
        loop {
            let Some(Use { id, key, at }) = to_note.recv().await else { return std::future::pending().await };
            let Ok(value) = to_json(&StoredKey { last_used: Some(at), ..key.key.clone() }) else { continue };
            if let Err(error) = kv::put(&self.0.nats, API_KEYS, &id, value, key.revision).await {
                debug!("use of an API key not noted down: {error}");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn every() -> SignedDuration {
    SignedDuration::try_from(NOTED_EVERY).unwrap_or(SignedDuration::MAX)
}
