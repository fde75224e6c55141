//! Stored configs, connections and pending logins. Secrets are sealed before they are written and opened after they are
//! read.
//!
//! Guarantees:
//! - Reads go to the leader, so they see every confirmed write. Configs are not cached: a watch lags, and a login right
//!   after a PUT would not find its config. Only reads of connections ask a cache whether a config exists.
//! - An entry of a connection or config holds the sequence of its record. A write never replaces an entry of a newer
//!   record, so late and repeated writes do no harm.
//! - A pending login, and the start ticket that leads to it, is used once.
//! - A sealing key is listed as in use before it seals its first value, and until no stored value needs it.
//! - A worker acts on sealed values only. An entry that cannot be opened, or whose clear fields differ from the sealed ones,
//!   is restored from its record; without one, reading it is an error. The next write replaces it in any case.

mod catch_up;
mod config;
mod connection;
mod deletion;
mod error;
mod form_1;
mod json;
mod keys;
mod login;
mod name_index;
mod names;
mod record;
mod rotate;
pub(crate) mod shared_grant;
mod ticket;
mod unreadable;
mod whole;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;

pub(crate) use self::config::WholeConfig;
pub(crate) use self::connection::{ConnectionPage, ListedConnection, OpenedEntry};
pub(crate) use self::error::StoreError;
pub(crate) use self::form_1::Migrated;
pub(crate) use self::json::json;
use self::json::parse;
pub(crate) use self::login::{Consumer, FoundLogin};
use self::name_index::NameIndex;
pub(crate) use self::rotate::{Rotated, Step, WorkerKeys, rotate, unused_keys};
pub(crate) use self::ticket::Start;
use crate::jetstream::kv::{self, Change, Swapped, Write};
use crate::jetstream::{Nats, WatchedBucket};
use crate::protocol::high_water::Backwards;
use crate::seal::Keyring;
use crate::subject::{CONFIGS, OAUTH};

#[derive(Clone)]
pub struct Store {
    nats: Nats,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) names: NameIndex,
    /// Integrations that have a config.
    pub(crate) configured: Arc<WatchedBucket<bool>>,
}

/// Name of the field that every entry with a record has: the record's sequence.
const SEQUENCE: &str = "sequence";

/// An entry, read for that field only.
#[derive(Serialize, Deserialize)]
struct RecordSequence {
    sequence: u64,
}

/// Outcome of [`Store::replace_older`].
enum Replaced {
    Updated,
    /// The stored entry is as new or newer, and was kept.
    Kept {
        stored: u64,
    },
}

impl Store {
    pub fn new(nats: Nats, keyring: Arc<Keyring>) -> Self {
        let names = NameIndex::new(nats.clone());
        let configured = Arc::new(WatchedBucket::new(nats.clone(), CONFIGS, "configs"));
        Self { nats, keyring, names, configured }
    }

    /// Writes the entry of the record with this sequence, unless an entry of the same or a newer record is stored. Replaces
    /// an entry that cannot be read. `known` is the revision of an entry that was read and is older, or 0: then only a conflict
    /// is looked into.
    ///
    /// # Errors
    /// [`StoreError::Backwards`] if the stored entry is of a record that the stream has never had.
    async fn replace_older(
        &self,
        bucket: &'static str,
        key: &str,
        sequence: u64,
        write: Write,
        known: Option<u64>,
    ) -> Result<Replaced, StoreError> {
        let newest = match known {
            Some(replaces) => match kv::swap(&self.nats, kv::At { bucket, key, replaces }, write.clone()).await? {
                Swapped::Done => return Ok(Replaced::Updated),
                Swapped::Lost(newest) => newest,
            },
            None => kv::get(&self.nats, bucket, key).await?,
        };
        let replaced = kv::update_from(&self.nats, bucket, key, newest, |entry| {
            let stored = entry.map_or(Ok(0), |entry| self.sequence_of(bucket, entry, sequence))?;
            if stored >= sequence {
                return Ok(Change::Keep(Replaced::Kept { stored }));
            }
            Ok::<_, StoreError>(Change::Write(write.clone(), Replaced::Updated))
        });
        let replaced = replaced.await?;
        if let Replaced::Kept { stored } = replaced
            && stored > sequence
        {
            self.check_sequence_exists(stored).await?;
        }
        Ok(replaced)
    }

    /// Returns the sequence of an entry's record; 0 if the entry cannot be read. Opens the entry before it returns `least` or
    /// more, because such an entry prevents a write.
    fn sequence_of(&self, bucket: &'static str, entry: &kv::Entry, least: u64) -> Result<u64, StoreError> {
        let read = parse::<RecordSequence>(bucket, &entry.key, &entry.payload);
        let opened = read.and_then(|RecordSequence { sequence }| {
            if sequence >= least {
                self.check_entry(bucket, entry)?;
            }
            Ok(sequence)
        });
        match opened {
            Err(error) if error.is_junk() => {
                warn!("replacing an entry: {error}");
                Ok(0)
            }
            opened => opened,
        }
    }

    /// Checks that an entry of a connection or config can be read.
    fn check_entry(&self, bucket: &str, entry: &kv::Entry) -> Result<(), StoreError> {
        match bucket {
            CONFIGS => self.open_config_entry(entry).map(drop),
            _ => self.open_entry(entry).map(drop),
        }
    }

    /// Checks that the stream has assigned the sequence of an entry that is newer than the record in hand. If it has not,
    /// the stream was restored from an older copy, and records are lost.
    async fn check_sequence_exists(&self, highest: u64) -> Result<(), StoreError> {
        let ends = self.nats.stream_state(OAUTH).await?.map_or(0, |state| state.last_sequence);
        if ends < highest { Err(Backwards { ends, highest }.into()) } else { Ok(()) }
    }
}
