//! Rotation re-seals everything that is stored with the keyring's first key while traffic continues, and then removes
//! the other keys from the list of keys in use.
//!
//! Steps, and what a crash leaves:
//! 1. List the first key as in use. Wait until all workers seal with it.
//! 2. Bring entries up to date with their records, and re-seal entries that have an older key.
//! 3. Wait until pending logins with an older key have ended. Re-sealing one would consume it.
//! 4. Ask the workers again, and repeat step 2 for what they wrote with an older key meanwhile.
//! 5. Remove the older keys from the list, and repeat step 2 once more, for a worker that did not answer. A worker that
//!    seals with a removed key lists it again at its next look at the keyring.
//!
//! No step leaves a note of its progress: each entry itself shows its key. A rotation that was interrupted simply
//! starts again. Entries are replaced at the revision at which they were read, so a concurrent write wins.
//!
//! Records are not re-sealed. The sealed part of a record is needed only until its entry is up to date, and step 2
//! updates entries first. A key with which a tombstone's waiting revocation is sealed stays in use: nothing else holds those
//! tokens.

mod pass;
mod reseal;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fail::fail_point;
use serde::{Deserialize, Serialize};

use self::pass::Progress;
use super::{Store, StoreError, parse, ticket};
use crate::command::HEADER_SEALED_REVOCATION;
use crate::jetstream::reader::{Reader, Stored};
use crate::jetstream::{NatsError, header, kv};
use crate::login::PendingLogin;
use crate::protocol::ask_workers::ask_all_workers;
use crate::seal;
use crate::subject::{self, OAUTH, STATES};

/// Pause between two questions to workers, two looks at pending logins, and two tries of an entry.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for workers to reload the keyring. They look at its file every few seconds; this leaves time for an
/// operator to copy the file and send SIGHUP.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(45);

/// A rotation that ended early. What was re-sealed stays so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker could not open re-sealed values, or would continue to write with an older key.
    #[error(
        "worker {worker} {problem} key `{key}`: give it the same keyring, send it SIGHUP if that is not a file, and rotate again"
    )]
    Worker {
        /// Process and host.
        worker: String,
        problem: &'static str,
        key: String,
    },
    #[error("{count} entries cannot be re-sealed, `{first}` first; the log says why, and the older keys stay in use")]
    Entries { count: u64, first: String },
}

impl From<NatsError> for RotateError {
    fn from(error: NatsError) -> Self {
        Self::Store(error.into())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rotated {
    /// The sealing key.
    pub(crate) sealing: String,
    /// Number of re-sealed entries.
    pub(crate) resealed: u64,
    /// Number of entries that were older than their records and were brought up to date.
    pub(crate) caught_up: u64,
    /// Keys that were removed from the list of keys in use.
    pub(crate) retired: Vec<String>,
}

/// Progress for display.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// This many messages of this stream follow.
    Begins(&'a str, u64),
    /// One message is done.
    Done,
    Waits(&'a str),
}

/// A worker's answer about its keyring.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerKeys {
    /// Process and host.
    pub(crate) worker: String,
    /// Key ids, the sealing one first.
    pub(crate) keys: Vec<String>,
}

/// Re-seals everything that is not sealed with the first key of the keyring.
pub(crate) async fn rotate(store: &Store, show: &(dyn Fn(Step<'_>) + Sync)) -> Result<Rotated, RotateError> {
    let sealing = store.keyring.key_ids().into_iter().next().unwrap_or_default();
    let used = store.keys_in_use().await?;
    let done = Rotated { sealing: sealing.clone(), ..Rotated::default() };
    if used.iter().all(|id| *id == sealing) {
        return Ok(done);
    }
    let mut rotation = Rotation { store, show, progress: Progress::default(), failures: Vec::new(), done };
    store.claim_keys().await?;
    rotation.await_workers().await?;
    rotation.pass().await?;
    rotation.await_logins().await?;
    rotation.await_workers().await?;
    rotation.pass().await?;
    if let Some(first) = rotation.failures.first() {
        let count = u64::try_from(rotation.failures.len()).unwrap_or(u64::MAX);
        return Err(RotateError::Entries { count, first: first.clone() });
    }
    fail_point!("before_retire");
    let needed = keys_of_waiting_revocations(store).await?;
    let unused = used.into_iter().filter(|id| *id != sealing && !needed.contains(id)).collect();
    rotation.done.retired = store.retire_keys(&unused).await?;
    fail_point!("after_retire");
    rotation.pass().await?;
    Ok(rotation.done)
}

/// Returns the keys with which waiting revocations are sealed.
async fn keys_of_waiting_revocations(store: &Store) -> Result<BTreeSet<String>, NatsError> {
    let mut reader = Reader::headers(&store.nats, OAUTH, subject::RECORDS_STORED).await?;
    let mut found = BTreeSet::new();
    while let Some(Stored { message, .. }) = reader.next().await? {
        let sealed = message.headers.as_ref().map_or("", |headers| header(headers, HEADER_SEALED_REVOCATION));
        found.extend(seal::key_id(sealed).map(str::to_owned));
    }
    Ok(found)
}

/// Returns the keys of the keyring that are not in use.
#[must_use]
pub(crate) fn unused_keys(held: &[String], used: &[String]) -> BTreeSet<String> {
    held.iter().filter(|id| !used.contains(id)).cloned().collect()
}

struct Rotation<'a> {
    store: &'a Store,
    show: &'a (dyn Fn(Step<'_>) + Sync),
    progress: Progress,
    /// Entries that cannot be opened.
    failures: Vec<String>,
    done: Rotated,
}

impl Rotation<'_> {
    /// Waits until all workers that answer seal with the sealing key.
    async fn await_workers(&self) -> Result<(), RotateError> {
        let began = Instant::now();
        let sealing = &self.done.sealing;
        loop {
            let answers = ask_all_workers(&self.store.nats, subject::WORKER_KEYS).await?;
            let mut workers = answers.iter().filter_map(|answer| serde_json::from_slice::<WorkerKeys>(answer).ok());
            let Some(late) = workers.find(|worker| worker.keys.first() != Some(sealing)) else { return Ok(()) };
            if began.elapsed() > WORKERS_TIMEOUT {
                let has = late.keys.contains(sealing);
                let problem = if has { "does not yet seal with" } else { "does not have" };
                return Err(RotateError::Worker { worker: late.worker, problem, key: sealing.clone() });
            }
            (self.show)(Step::Waits("workers that have not reloaded the keyring yet"));
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until no pending login needs an older key.
    async fn await_logins(&self) -> Result<(), RotateError> {
        while self.has_older_login().await? {
            (self.show)(Step::Waits("logins that began with an older key; they end within `oauth.login_ttl`"));
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    async fn has_older_login(&self) -> Result<bool, StoreError> {
        let nats = &self.store.nats;
        for key in kv::keys(nats, STATES, "*.*").await? {
            let Some(value) = kv::get(nats, STATES, &key).await?.and_then(|entry| entry.value) else { continue };
            // An entry that cannot be read is no login.
            let Ok(login) = parse::<PendingLogin>(STATES, "a pending login", &value) else { continue };
            if login.sealed_verifier.is_some_and(|sealed| !self.store.keyring.is_current(&sealed)) {
                return Ok(true);
            }
        }
        // A login without PKCE has no sealed verifier, but its start ticket is sealed.
        for key in kv::keys(nats, STATES, &subject::ticket_key_of_any("*")).await? {
            let Some(value) = kv::get(nats, STATES, &key).await?.and_then(|entry| entry.value) else { continue };
            if ticket::sealed(&value).is_ok_and(|sealed| !self.store.keyring.is_current(&sealed)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
