//! Rotation: all that is stored is sealed anew with the key that seals now, while traffic runs, and keys that nothing
//! needs any more are taken off the note of those in use.
//!
//! Nothing of it is remembered: an entry shows by itself whether it is done, so a rotation that was cut off is simply
//! begun again. Entries are replaced at the revision they were read at, so whatever else is written meanwhile wins.
//! Records stay as they are: an entry that has caught up with its record has all that the record has sealed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::Message;
use fail::fail_point;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::connection::secrets;
use super::{Newest, Store, StoreError, StoredConfig, json, parse, ticket};
use crate::command::{HEADER_SEALED_REFRESH, HEADER_STATUS};
use crate::connection::{Status, StoredConnection};
use crate::integration::IntegrationOauthConfig;
use crate::jetstream::reader::{Reader, Stored};
use crate::jetstream::{NatsError, header, kv};
use crate::login::PendingLogin;
use crate::protocol::ask_workers::ask_all_workers;
use crate::protocol::records;
use crate::seal::key_id;
use crate::subject::{self, CONFIGS, CONNECTIONS, ConnectionKey, OAUTH, STATES, kv_stream, kv_subject};

/// Entries sealed at once.
const AT_ONCE: usize = 32;
/// Tries of one entry while the bus is away, a second apart.
const TRIES: u32 = 60;
const AGAIN: Duration = Duration::from_secs(1);
/// How long workers have to take up the keyring: they look at its file every few seconds.
const PATIENCE: Duration = Duration::from_secs(45);

/// Why a rotation ended early. What is sealed anew by then stays so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// What is stored could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A worker would not open, or go on writing, what has to be rotated.
    #[error(
        "worker {worker} {problem} key `{key}`: give it the same keyring, send it SIGHUP if that is not a file, and rotate again"
    )]
    Worker {
        /// Its process and host.
        worker: String,
        /// What is wrong with it.
        problem: &'static str,
        /// The key that seals here.
        key: String,
    },
    /// Some entries could not be sealed anew.
    #[error("{count} entries cannot be sealed anew, `{first}` first; the log says why, and the older keys stay in use")]
    Entries {
        /// How many.
        count: u64,
        /// One of them.
        first: String,
    },
}

impl From<NatsError> for RotateError {
    fn from(error: NatsError) -> Self {
        Self::Store(error.into())
    }
}

/// What a rotation has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rotated {
    /// The key that seals.
    pub sealing: String,
    /// Entries sealed anew.
    pub resealed: u64,
    /// Entries that had not caught up with their records, and have now.
    pub caught_up: u64,
    /// Keys that were in use before and are not now.
    pub retired: Vec<String>,
}

/// How a rotation goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// So many messages of this stream come next.
    Begins(&'a str, u64),
    /// One of them is done.
    Done,
    /// Nothing to do but wait for this.
    Waits(&'a str),
}

/// What a worker says of its keyring.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerKeys {
    /// Its process and host.
    pub worker: String,
    /// Its keys' ids, the sealing one first.
    pub keys: Vec<String>,
}

/// Seals everything anew that is not sealed with the first key of the keyring.
///
/// # Errors
/// [`RotateError`].
pub(crate) async fn rotate(store: &Store, tell: &(dyn Fn(Step<'_>) + Sync)) -> Result<Rotated, RotateError> {
    let sealing = store.keyring.key_ids().into_iter().next().unwrap_or_default();
    let (used, _) = store.keys_in_use().await?;
    let mut rotation = Rotation { store, tell, at: [0; 3], failed: None, failures: 0, done: Rotated::default() };
    rotation.done.sealing.clone_from(&sealing);
    if used.iter().all(|id| *id == sealing) {
        return Ok(rotation.done);
    }
    store.claim_keys().await?;
    rotation.await_workers().await?;
    rotation.pass().await?;
    rotation.await_logins().await?;
    // What workers sealed with an older key before they took up the newer one lies behind the first pass.
    rotation.await_workers().await?;
    rotation.pass().await?;
    if let Some(first) = rotation.failed {
        return Err(RotateError::Entries { count: rotation.failures, first });
    }
    fail_point!("before_retire");
    let unused = used.into_iter().filter(|id| *id != sealing).collect();
    rotation.done.retired = store.retire_keys(&unused).await?;
    fail_point!("after_retire");
    rotation.pass().await?;
    Ok(rotation.done)
}

/// What a message of a stream needs.
enum Need {
    Catch(String, String, u64),
    Reseal(&'static str, kv::Entry),
}

struct Rotation<'a> {
    store: &'a Store,
    tell: &'a (dyn Fn(Step<'_>) + Sync),
    /// How far the records, the connections and the configs were walked through.
    at: [u64; 3],
    failed: Option<String>,
    failures: u64,
    done: Rotated,
}

impl Rotation<'_> {
    /// Waits until all workers seal with the key that seals here.
    async fn await_workers(&self) -> Result<(), RotateError> {
        let began = Instant::now();
        loop {
            let answers = ask_all_workers(&self.store.nats, subject::WORKER_KEYS).await?;
            let mut workers = answers.iter().filter_map(|answer| serde_json::from_slice::<WorkerKeys>(answer).ok());
            let sealing = &self.done.sealing;
            let Some(behind) = workers.find(|worker| worker.keys.first() != Some(sealing)) else { return Ok(()) };
            if began.elapsed() > PATIENCE {
                let has = behind.keys.contains(sealing);
                let problem = if has { "does not yet seal with" } else { "does not have" };
                return Err(RotateError::Worker { worker: behind.worker, problem, key: sealing.clone() });
            }
            (self.tell)(Step::Waits("workers that have not taken up the keyring yet"));
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Waits until no pending login needs an older key: they end by themselves, and sealing one anew would use it up.
    async fn await_logins(&self) -> Result<(), RotateError> {
        while self.has_older_login().await? {
            (self.tell)(Step::Waits("logins that began with an older key; they end within `oauth.login_ttl`"));
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn has_older_login(&self) -> Result<bool, StoreError> {
        let nats = &self.store.nats;
        for key in kv::keys(nats, STATES, "*.*").await? {
            let Some(value) = kv::get(nats, STATES, &key).await?.and_then(|entry| entry.value) else { continue };
            let login: PendingLogin = parse(STATES, "a pending login", &value)?;
            if login.sealed_verifier.is_some_and(|sealed| !self.store.keyring.is_current(&sealed)) {
                return Ok(true);
            }
        }
        // A login without PKCE has nothing sealed but the ticket that leads to it.
        for key in kv::keys(nats, STATES, &subject::ticket_key_of_any("*")).await? {
            let Some(value) = kv::get(nats, STATES, &key).await?.and_then(|entry| entry.value) else { continue };
            if !self.store.keyring.is_current(&ticket::sealed(&value)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Walks through what has come since the last pass. Records first: an entry that catches up is then sealed anew.
    async fn pass(&mut self) -> Result<(), RotateError> {
        let [records, connections, configs] = self.at;
        let records = self.walk(OAUTH, subject::RECORDS_STORED, records, |sequence, message| {
            let headers = message.headers.clone().unwrap_or_default();
            let sealed = header(&headers, HEADER_SEALED_REFRESH).to_owned();
            Some(Need::Catch(message.subject.to_string(), sealed, sequence))
        });
        let records = records.await?;
        let mut at = [records, connections, configs];
        for (at, bucket) in at.iter_mut().skip(1).zip([CONNECTIONS, CONFIGS]) {
            let (stream, all) = (kv_stream(bucket), kv_subject(bucket, ">"));
            let need = |revision, message| Some(Need::Reseal(bucket, kv::entry_of(bucket, revision, message)));
            *at = self.walk(&stream, &all, *at, need).await?;
        }
        self.at = at;
        Ok(())
    }

    async fn walk(
        &mut self,
        stream: &str,
        subjects: &str,
        after: u64,
        need: impl Fn(u64, Message) -> Option<Need>,
    ) -> Result<u64, RotateError> {
        let (store, tell) = (self.store, self.tell);
        let state = store.nats.stream_state(stream).await?;
        let Some(scan) = Reader::through(&store.nats, stream, subjects, after).await? else { return Ok(after) };
        tell(Step::Begins(stream, state.map_or(0, |state| state.messages.min(state.last_sequence - after))));
        let messages = stream::unfold(scan, async |mut scan| match scan.next().await {
            Ok(None) => None,
            Ok(Some(message)) => Some((Ok(message), scan)),
            Err(error) => Some((Err(error), scan)),
        });
        let need = &need;
        let mut done = std::pin::pin!(
            messages
                .map(async |message: Result<Stored, NatsError>| {
                    let Stored { sequence, message } = message?;
                    let what = message.subject.to_string();
                    let outcome = match need(sequence, message) {
                        Some(need) => patiently(store, &need).await,
                        None => Ok(false),
                    };
                    Ok::<_, NatsError>((sequence, what, outcome))
                })
                .buffered(AT_ONCE)
        );
        let mut at = after;
        while let Some(next) = done.next().await {
            let (sequence, what, outcome) = next?;
            tell(Step::Done);
            at = sequence;
            match outcome {
                Ok(false) => {}
                Ok(true) if stream == OAUTH => self.done.caught_up += 1,
                Ok(true) => self.done.resealed += 1,
                // One that cannot be opened must not hold up the others.
                Err(error @ (StoreError::Seal { .. } | StoreError::Unreadable(_))) => {
                    warn!("{error}");
                    self.failures += 1;
                    self.failed.get_or_insert(what);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(at)
    }
}

/// Does what is needed, however often the bus is away in between. Gives whether anything was.
async fn patiently(store: &Store, need: &Need) -> Result<bool, StoreError> {
    let mut tries = 0;
    loop {
        let done = match need {
            Need::Catch(subject, sealed, sequence) => store.catch_up(subject, sealed, *sequence).await,
            Need::Reseal(bucket, entry) => store.reseal(bucket, entry).await,
        };
        match done {
            Err(StoreError::Nats(error)) if error.is_unavailable() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

impl Store {
    /// Brings an entry up to its record, if it is behind and what the record has sealed is sealed with an older key.
    async fn catch_up(&self, subject: &str, sealed: &str, sequence: u64) -> Result<bool, StoreError> {
        if let Ok(key) = ConnectionKey::parse_subject(subject) {
            if self.keyring.is_current(sealed) || !self.is_behind(CONNECTIONS, &key.kv_key(), sequence).await? {
                return Ok(false);
            }
            let Some(record) = records::last(&self.nats, subject).await? else { return Ok(false) };
            let stored = self.connection_of(&key, &record)?;
            let is_gone = kv::get(&self.nats, CONNECTIONS, &key.kv_key()).await?.is_none();
            if stored.connection.status == Status::Revoked && is_gone {
                return Ok(false);
            }
            self.keep_connection(&key, stored).await?;
            return Ok(true);
        }
        let Some(integration) = subject::parse_config_subject(subject) else { return Ok(false) };
        if !self.is_behind(CONFIGS, integration.as_str(), sequence).await? {
            return Ok(false);
        }
        let Some(record) = records::last(&self.nats, subject).await? else { return Ok(false) };
        if header(&record.headers, HEADER_STATUS).is_empty() {
            let sealed: IntegrationOauthConfig<String> = parse(OAUTH, subject, &record.payload)?;
            let config = self.open_config(OAUTH, subject, 0, sealed)?;
            self.put_config(config, &record).await?;
        } else {
            self.delete_config(&integration, record.sequence).await?;
        }
        Ok(true)
    }

    async fn is_behind(&self, bucket: &str, key: &str, sequence: u64) -> Result<bool, StoreError> {
        let entry = kv::get(&self.nats, bucket, key).await?.filter(|entry| !entry.payload.is_empty());
        let there = entry.map(|entry| parse::<Newest>(bucket, key, &entry.payload)).transpose()?;
        Ok(there.is_none_or(|there| there.sequence < sequence))
    }

    /// Seals an entry anew, in whatever state it is by now. Gives whether it had to be.
    async fn reseal(&self, bucket: &str, found: &kv::Entry) -> Result<bool, StoreError> {
        let (mut value, mut revision) = (found.value.clone(), found.revision);
        loop {
            let Some(newer) = value.map(|value| self.resealed(bucket, &found.key, &value)).transpose()?.flatten()
            else {
                return Ok(false);
            };
            fail_point!("before_reseal");
            let (headers, newer) = newer;
            let at = kv::At { bucket, key: &found.key, replaces: revision };
            match kv::put_with(&self.nats, at, headers, newer).await {
                // Something newer is there, and may be sealed with an older key all the same.
                Err(NatsError::WrongLastSequence) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    fail_point!("after_reseal");
                    return Ok(true);
                }
            }
            let Some(entry) = kv::get(&self.nats, bucket, &found.key).await? else { return Ok(false) };
            (value, revision) = (entry.value, entry.revision);
        }
    }

    /// An entry's value sealed anew; none when it is sealed with the key that seals now.
    fn resealed(&self, bucket: &str, key: &str, value: &[u8]) -> Result<Option<(HeaderMap, bytes::Bytes)>, StoreError> {
        let is_old =
            |sealed: &str| !sealed.is_empty() && key_id(sealed).is_none_or(|_| !self.keyring.is_current(sealed));
        if bucket == CONFIGS {
            let StoredConfig { config, sequence, modified } = parse(bucket, key, value)?;
            let mut old = false;
            config.clone().map_secrets(|_, sealed| {
                old |= is_old(&sealed);
                Ok::<_, StoreError>(())
            })?;
            if !old {
                return Ok(None);
            }
            let config = self.open_config(bucket, key, sequence, config)?;
            let config = self.seal_config(bucket, key, sequence, config)?;
            return Ok(Some((crate::jetstream::headers(None), json(&StoredConfig { config, sequence, modified })?)));
        }
        let mut stored: StoredConnection = parse(bucket, key, value)?;
        if !secrets(&mut stored.connection)
            .into_iter()
            .any(|(_, secret)| secret.as_ref().is_some_and(|sealed| is_old(sealed.expose())))
        {
            return Ok(None);
        }
        let opened = self.open_secrets(key, stored)?;
        let name = ConnectionKey::parse_kv_key(key).map_err(|_| StoreError::Unreadable(format!("{bucket}/{key}")))?;
        let (marks, sealed) = self.sealed_connection(&name, opened)?;
        Ok(Some((crate::jetstream::headers_with(&marks), sealed)))
    }
}

/// The keys of `held` that are not in use.
#[must_use]
pub(crate) fn spare(held: &[String], used: &[String]) -> BTreeSet<String> {
    held.iter().filter(|id| !used.contains(id)).cloned().collect()
}
