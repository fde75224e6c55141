//! Stored configs, connections and pending logins. Secrets are sealed before they are written and opened after they are
//! read.
//!
//! Guarantees:
//! - Reads go to the leader, so they see every confirmed write. Configs are not cached: a watch lags, and a login right
//!   after a PUT would not find its config.
//! - An entry of a connection or config holds the sequence of its record. A write never replaces an entry of a newer
//!   record, so late and repeated writes do no harm.
//! - A pending login, and the start ticket that leads to it, is used once.
//! - A sealing key is listed as in use before it seals its first value, and until no stored value needs it.

mod config;
mod connection;
mod error;
mod json;
mod keys;
mod login;
mod record;
mod rotate;
mod ticket;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::connection::{ConnectionPage, ListedConnection};
pub(crate) use self::error::StoreError;
pub(crate) use self::json::json;
use self::json::parse;
pub(crate) use self::login::{Consumer, FoundLogin};
pub(crate) use self::rotate::{Rotated, Step, WorkerKeys, rotate, unused_keys};
pub(crate) use self::ticket::Start;
use crate::jetstream::Nats;
use crate::jetstream::kv::{self, Change, Write};
use crate::protocol::high_water::Backwards;
use crate::seal::Keyring;
use crate::subject::OAUTH;

#[derive(Clone)]
pub struct Store {
    nats: Nats,
    pub(crate) keyring: Arc<Keyring>,
}

/// The field that every entry with a record has: the record's sequence.
#[derive(Serialize, Deserialize)]
struct RecordSequence {
    sequence: u64,
}

/// Outcome of [`Store::replace_older`].
enum Replaced {
    /// Nothing was stored under the key.
    Created,
    Updated,
    /// The stored entry is as new or newer, and was kept.
    Kept {
        stored: u64,
    },
}

impl Store {
    pub fn new(nats: Nats, keyring: Arc<Keyring>) -> Self {
        Self { nats, keyring }
    }

    /// Writes the entry of the record with this sequence, unless an entry of the same or a newer record is stored.
    ///
    /// # Errors
    /// [`StoreError::Backwards`] if the stored entry is of a record that the stream has never had.
    async fn replace_older(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        write: Write,
    ) -> Result<Replaced, StoreError> {
        let replaced = kv::update(&self.nats, bucket, key, |entry| {
            let stored = match entry {
                Some(entry) if !entry.payload.is_empty() => {
                    parse::<RecordSequence>(bucket, key, &entry.payload)?.sequence
                }
                Some(_) | None => 0,
            };
            if stored >= sequence {
                return Ok(Change::Keep(Replaced::Kept { stored }));
            }
            let outcome = if entry.is_some() { Replaced::Updated } else { Replaced::Created };
            Ok::<_, StoreError>(Change::Write(write.clone(), outcome))
        });
        let replaced = replaced.await?;
        if let Replaced::Kept { stored } = replaced
            && stored > sequence
        {
            self.check_sequence_exists(stored).await?;
        }
        Ok(replaced)
    }

    /// Checks that the stream has assigned the sequence of an entry that is newer than the record in hand. If it has not,
    /// the stream was restored from an older copy, and records are lost.
    async fn check_sequence_exists(&self, highest: u64) -> Result<(), StoreError> {
        let ends = self.nats.stream_state(OAUTH).await?.map_or(0, |state| state.last_sequence);
        if ends < highest { Err(Backwards { ends, highest }.into()) } else { Ok(()) }
    }
}
