//! Connections in their bucket.
//!
//! A deleted connection leaves a marker in the bucket (`store/deletion.rs`), and its record stays as a tombstone. Releases
//! before this one left no marker. A write that finds neither entry nor marker therefore reads the newest record afterwards,
//! and deletes the entry again if that record is a newer tombstone. If the worker dies in between, an entry without a
//! schedule is left; the repair pass finds and deletes it.

mod note;
mod page;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::error;

use self::note::Note;
pub(crate) use self::page::{ConnectionPage, ListedConnection};
use super::{Replaced, SEQUENCE, Store, StoreError, json, parse};
use crate::command::{HEADER_REFRESH, HEADER_STATUS, REFRESH_NONE, REFRESH_PAUSED};
use crate::connection::{OauthConnection, RefreshFailure, Status, StoredConnection};
use crate::integration::LoginRequests;
use crate::jetstream::header;
use crate::jetstream::kv::{self, Change, Write};
use crate::protocol::records;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{CONNECTIONS, ConnectionKey};

/// A connection's entry, opened.
pub(crate) struct OpenedEntry {
    pub(crate) stored: StoredConnection,
    pub(crate) revision: u64,
}

/// A connection's entry in the bucket.
#[derive(Serialize, Deserialize)]
struct ConnectionEntry {
    /// Stream sequence of the record.
    sequence: u64,
    /// The whole connection.
    sealed: String,
    /// The only field that a worker changes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_failure: Option<Note>,
    /// Copies of the connection's other fields, without its tokens.
    #[serde(flatten)]
    copies: Map<String, Value>,
}

impl Store {
    pub(crate) async fn connection(&self, key: &ConnectionKey) -> Result<Option<OauthConnection>, StoreError> {
        Ok(self.stored_connection(key).await?.map(|stored| stored.connection))
    }

    /// Reads a connection with the fields that only workers need. Restores an entry that cannot be read from its record.
    pub async fn stored_connection(&self, key: &ConnectionKey) -> Result<Option<StoredConnection>, StoreError> {
        Ok(self.connection_entry(key).await?.map(|entry| entry.stored))
    }

    /// The same with the revision of the entry.
    pub(crate) async fn connection_entry(&self, key: &ConnectionKey) -> Result<Option<OpenedEntry>, StoreError> {
        let Some(entry) = kv::get(&self.nats, CONNECTIONS, &key.kv_key()).await? else { return Ok(None) };
        let stored = self.open_or_restore(key, &entry).await?;
        Ok(stored.map(|stored| OpenedEntry { stored, revision: entry.revision }))
    }

    /// Returns true if a connection with this name exists, or its deletion has left a marker.
    pub(crate) async fn has_name(&self, key: &ConnectionKey) -> Result<bool, StoreError> {
        Ok(kv::get(&self.nats, CONNECTIONS, &key.kv_key()).await?.is_some())
    }

    async fn open_or_restore(
        &self,
        key: &ConnectionKey,
        entry: &kv::Entry,
    ) -> Result<Option<StoredConnection>, StoreError> {
        match self.open_entry(entry) {
            Ok(stored) => Ok(stored),
            Err(error) if error.is_junk() => self.restore_connection(key, error).await,
            Err(error) => Err(error),
        }
    }

    /// Reads a connection from its record, and updates the entry. Returns the given error if the record cannot be read either.
    async fn restore_connection(
        &self,
        key: &ConnectionKey,
        cause: StoreError,
    ) -> Result<Option<StoredConnection>, StoreError> {
        let Some(record) = records::last(&self.nats, &key.subject()).await? else { return Err(cause) };
        let stored = match self.connection_of(key, &record) {
            Ok(stored) => stored,
            Err(error) if error.is_junk() => return Err(cause),
            Err(error) => return Err(error),
        };
        error!("{cause}; restored the entry from its record");
        self.put_or_delete_connection(key, stored.clone(), None).await?;
        Ok((stored.connection.status != Status::Revoked).then_some(stored))
    }

    /// Opens an entry. Returns `None` if it marks a deletion.
    pub(super) fn open_entry(&self, entry: &kv::Entry) -> Result<Option<StoredConnection>, StoreError> {
        match &entry.value {
            Some(value) => self.open_connection(&entry.key, value).map(Some),
            None => self.check_deletion(CONNECTIONS, entry).map(|()| None),
        }
    }

    fn open_connection(&self, kv_key: &str, value: &[u8]) -> Result<StoredConnection, StoreError> {
        let ConnectionEntry { sequence, sealed, refresh_failure, copies } = parse(CONNECTIONS, kv_key, value)?;
        let whole = self.open_whole(seal_context(kv_key, sequence), &sealed, &copies)?;
        let mut stored: StoredConnection = parse(CONNECTIONS, kv_key, whole.expose().as_bytes())?;
        let refresh_failure = refresh_failure.map(|note| self.open_note(kv_key, sequence, note));
        // The reason why the grant has ended is worth more than that of a later try.
        if let Some(failure) = refresh_failure.as_ref().filter(|_| stored.connection.status == Status::Active) {
            stored.connection.status_reason = Some(failure.reason.clone());
        }
        stored.refresh_failure = refresh_failure;
        Ok(stored)
    }

    /// Returns headers and value of a connection's entry.
    pub fn sealed_connection(
        &self,
        key: &ConnectionKey,
        mut stored: StoredConnection,
    ) -> Result<(HeaderMap, Bytes), StoreError> {
        let (kv_key, headers) = (key.kv_key(), self.entry_headers(&stored));
        let (sequence, failure) = (stored.connection.sequence, stored.refresh_failure.take());
        let refresh_failure = failure.map(|failure| self.seal_note(&kv_key, sequence, failure)).transpose()?;
        let what = || format!("{CONNECTIONS}/{kv_key}");
        let whole = serde_json::to_string(&stored).map(Secret::new).map_err(StoreError::unreadable(what()))?;
        let sealed = self.seal_whole(seal_context(&kv_key, sequence), &whole)?;
        (stored.connection.access_token, stored.connection.refresh_token) = (None, None);
        // Their headers may hold a credential of the integration.
        stored.issued_at.requests = LoginRequests::default();
        // A field of a later release may be secret.
        stored.unknown.clear();
        let copies = serde_json::to_value(&stored).map_err(StoreError::unreadable(what()))?;
        let mut copies = copies.as_object().cloned().unwrap_or_default();
        copies.remove(SEQUENCE);
        Ok((headers, json(&ConnectionEntry { sequence, sealed, refresh_failure, copies })?))
    }

    fn entry_headers(&self, stored: &StoredConnection) -> HeaderMap {
        let mut headers = refresh_header(stored);
        self.mark_grant(&mut headers, stored);
        headers
    }

    /// Seals an entry again. Returns `None` if it is sealed with the current key.
    pub(super) fn resealed_connection(&self, kv_key: &str, found: &kv::Entry) -> Result<Option<Write>, StoreError> {
        let Some(value) = &found.value else { return self.resealed_deletion(CONNECTIONS, found) };
        let mut entry: ConnectionEntry = parse(CONNECTIONS, kv_key, value)?;
        let has_new_note = self.reseal_note(kv_key, entry.sequence, &mut entry.refresh_failure)?;
        if self.keyring.is_current(&entry.sealed) && !has_new_note {
            return Ok(None);
        }
        let context = seal_context(kv_key, entry.sequence);
        let whole = self.open_whole(context, &entry.sealed, &entry.copies)?;
        entry.sealed = self.seal_whole(context, &whole)?;
        let mut headers = refresh_header_of(found);
        self.mark_grant(&mut headers, &parse(CONNECTIONS, kv_key, whole.expose().as_bytes())?);
        Ok(Some(Write::Put { headers, value: json(&entry)? }))
    }

    /// Updates the entry to a record: stores the connection, or its deletion if the record is a tombstone.
    /// Does nothing if the entry is of a newer record. `known` is the revision of the older entry, if it was read; 0 if there
    /// was none.
    pub(crate) async fn put_or_delete_connection(
        &self,
        key: &ConnectionKey,
        stored: StoredConnection,
        known: Option<u64>,
    ) -> Result<(), StoreError> {
        match stored.connection.status {
            Status::Revoked => self.delete_connection(key, stored.connection.sequence).await,
            Status::Active | Status::NeedsReauthorization => self.put_connection(key, stored, known).await.map(drop),
        }
    }

    /// Stores a connection. Returns false if a newer one or a newer deletion is stored.
    pub(crate) async fn put_connection(
        &self,
        key: &ConnectionKey,
        stored: StoredConnection,
        known: Option<u64>,
    ) -> Result<bool, StoreError> {
        let sequence = stored.connection.sequence;
        let (headers, value) = self.sealed_connection(key, stored)?;
        // A connection that was deleted meanwhile has left a marker with a newer sequence.
        match self.replace_older(CONNECTIONS, &key.kv_key(), sequence, Write::Put { headers, value }, known).await? {
            Replaced::Updated => Ok(true),
            Replaced::Kept { stored } => Ok(stored == sequence),
        }
    }

    /// Returns the sequence of the newest record if that is a tombstone.
    pub(crate) async fn tombstone(&self, key: &ConnectionKey) -> Result<Option<u64>, StoreError> {
        let newest = records::last(&self.nats, &key.subject()).await?;
        Ok(newest.filter(is_tombstone).map(|record| record.sequence))
    }

    /// Marks a connection as deleted, unless its entry is of a newer record than the tombstone with this sequence.
    pub(crate) async fn delete_connection(&self, key: &ConnectionKey, sequence: u64) -> Result<(), StoreError> {
        let kv_key = key.kv_key();
        let write = self.deletion(CONNECTIONS, &kv_key, sequence)?;
        self.replace_older(CONNECTIONS, &kv_key, sequence, write, None).await.map(drop)
    }

    /// Stores the failure of a connection's refresh in its entry, if the entry still belongs to the same record.
    pub(crate) async fn put_failure(&self, key: &ConnectionKey, stored: &StoredConnection) -> Result<(), StoreError> {
        let (kv_key, sequence) = (key.kv_key(), stored.connection.sequence);
        let failure = stored.refresh_failure.clone();
        let note = failure.map(|failure| self.seal_note(&kv_key, sequence, failure)).transpose()?;
        kv::update(&self.nats, CONNECTIONS, &kv_key, |found| {
            let Some(found) = found else { return Ok(Change::Keep(())) };
            // An entry that cannot be read has no failure: the next reader restores it.
            let value = found.value.as_ref();
            let entry = value.and_then(|value| parse::<ConnectionEntry>(CONNECTIONS, &kv_key, value).ok());
            let Some(mut entry) = entry else { return Ok(Change::Keep(())) };
            if entry.sequence != sequence {
                return Ok(Change::Keep(()));
            }
            entry.refresh_failure.clone_from(&note);
            Ok(Change::Write(Write::Put { headers: self.entry_headers(stored), value: json(&entry)? }, ()))
        })
        .await
    }
}

/// Returns true for the record of a deleted connection.
#[must_use]
fn is_tombstone(record: &StreamMessage) -> bool {
    header(&record.headers, HEADER_STATUS) == Status::Revoked.as_str()
}

/// The header from which the repair pass learns, without the value, whether the connection needs a schedule.
fn refresh_header(stored: &StoredConnection) -> HeaderMap {
    let is_active = stored.connection.status == Status::Active;
    if !stored.has_due_time() {
        refresh(REFRESH_NONE)
    } else if is_active && stored.refresh_failure.as_ref().is_some_and(RefreshFailure::is_pause) {
        refresh(REFRESH_PAUSED)
    } else {
        HeaderMap::new()
    }
}

/// The same header of an entry that is written again.
fn refresh_header_of(entry: &kv::Entry) -> HeaderMap {
    let value = header(&entry.headers, HEADER_REFRESH);
    if value.is_empty() { HeaderMap::new() } else { refresh(value) }
}

fn refresh(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_REFRESH, value);
    headers
}

pub(super) fn parse_key(kv_key: &str) -> Result<ConnectionKey, StoreError> {
    ConnectionKey::parse_kv_key(kv_key).map_err(StoreError::unreadable(format!("{CONNECTIONS}/{kv_key}")))
}

fn seal_context(key: &str, sequence: u64) -> SealContext<'_> {
    SealContext { bucket: CONNECTIONS, key, field: "connection", sequence, bound_to: "" }
}
