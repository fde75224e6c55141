//! Connections in their bucket.
//!
//! A deleted connection leaves nothing in the bucket, so that lists and their totals need not look at deleted entries.
//! Its record stays as a tombstone. A write that creates an entry therefore reads the newest record afterwards, and
//! removes the entry again if that record is a newer tombstone. If the worker dies between the write and the removal, an
//! entry without a schedule is left; the repair pass finds and removes it.

use async_nats::HeaderMap;
use bytes::Bytes;

use super::{RecordSequence, Replaced, Store, StoreError, json, parse};
use crate::command::{HEADER_REFRESH, REFRESH_NONE, REFRESH_PAUSED};
use crate::connection::{NO_CONFIG, OauthConnection, RefreshFailure, Status, StoredConnection};
use crate::jetstream::batch;
use crate::jetstream::batch::PageLimits;
use crate::jetstream::kv::{self, Change, Write};
use crate::protocol::records;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{CONNECTIONS, ConnectionKey, OAUTH};

pub(crate) struct ConnectionPage {
    pub(crate) connections: Vec<ListedConnection>,
    /// Matching connections in the bucket.
    pub(crate) total: u64,
    /// True if more follow after the last one.
    pub(crate) more: bool,
}

pub(crate) struct ListedConnection {
    /// Revision of the entry. The next page starts after the last one of this page.
    pub(crate) revision: u64,
    pub(crate) key: ConnectionKey,
    pub(crate) connection: OauthConnection,
}

impl Store {
    /// Lists the connections whose keys match, after a revision, in the order of their last change.
    pub(crate) async fn connections(
        &self,
        filter: &str,
        after: u64,
        limits: PageLimits,
    ) -> Result<ConnectionPage, StoreError> {
        let page = batch::page(&self.nats, CONNECTIONS, filter, after, limits).await?;
        let mut connections = Vec::new();
        for entry in page.entries {
            let stored = self.open_connection(&entry.key, &entry.payload)?;
            let key = parse_key(&entry.key)?;
            connections.push(ListedConnection { revision: entry.revision, key, connection: stored.connection });
        }
        Ok(ConnectionPage { connections, total: page.total, more: page.more })
    }

    pub(crate) async fn connection(&self, key: &ConnectionKey) -> Result<Option<OauthConnection>, StoreError> {
        Ok(self.stored_connection(key).await?.map(|stored| stored.connection))
    }

    /// Reads a connection with the fields that only workers need.
    pub(crate) async fn stored_connection(&self, key: &ConnectionKey) -> Result<Option<StoredConnection>, StoreError> {
        let kv_key = key.kv_key();
        let Some(value) = kv::get(&self.nats, CONNECTIONS, &kv_key).await?.and_then(|entry| entry.value) else {
            return Ok(None);
        };
        self.open_connection(&kv_key, &value).map(Some)
    }

    fn open_connection(&self, kv_key: &str, value: &[u8]) -> Result<StoredConnection, StoreError> {
        let mut stored = self.open_secrets(kv_key, parse(CONNECTIONS, kv_key, value)?)?;
        if let Some(failure) = &stored.refresh_failure {
            stored.connection.status_reason = Some(failure.reason.clone());
        }
        Ok(stored)
    }

    pub(super) fn open_secrets(
        &self,
        kv_key: &str,
        mut stored: StoredConnection,
    ) -> Result<StoredConnection, StoreError> {
        let sequence = stored.connection.sequence;
        for (field, secret) in secrets(&mut stored.connection) {
            if let Some(sealed) = secret.take() {
                let context = seal_context(kv_key, field, sequence);
                let opened = self.keyring.open(context, sealed.expose());
                *secret = Some(opened.map_err(StoreError::seal(format!("{CONNECTIONS}/{kv_key}")))?);
            }
        }
        Ok(stored)
    }

    /// Returns headers and value of a connection's entry, with sealed secrets.
    pub fn sealed_connection(
        &self,
        key: &ConnectionKey,
        mut stored: StoredConnection,
    ) -> Result<(HeaderMap, Bytes), StoreError> {
        let (kv_key, headers, sequence) = (key.kv_key(), refresh_header(&stored), stored.connection.sequence);
        for (field, secret) in secrets(&mut stored.connection) {
            if let Some(clear) = secret.take() {
                let sealed = self.keyring.seal(seal_context(&kv_key, field, sequence), &clear);
                *secret = Some(Secret::new(sealed.map_err(StoreError::seal(format!("{CONNECTIONS}/{kv_key}")))?));
            }
        }
        Ok((headers, json(&stored)?))
    }

    /// Updates the entry to a record: stores the connection, or removes it if the record is a tombstone.
    /// Does nothing if the entry is of a newer record.
    pub(crate) async fn put_or_delete_connection(
        &self,
        key: &ConnectionKey,
        stored: StoredConnection,
    ) -> Result<(), StoreError> {
        match stored.connection.status {
            Status::Revoked => self.delete_connection(key, stored.connection.sequence).await,
            Status::Active | Status::NeedsReauthorization => self.put_connection(key, stored).await,
        }
    }

    /// Stores a connection, unless a newer one is stored.
    pub(crate) async fn put_connection(&self, key: &ConnectionKey, stored: StoredConnection) -> Result<(), StoreError> {
        let sequence = stored.connection.sequence;
        let (headers, value) = self.sealed_connection(key, stored)?;
        match self.replace_older(CONNECTIONS, &key.kv_key(), sequence, Write::Put { headers, value }).await? {
            Replaced::Updated | Replaced::Kept { .. } => return Ok(()),
            Replaced::Created => {}
        }
        // Either the connection is new, or it was deleted while this write was delayed.
        match self.tombstone(key).await? {
            Some(deleted) if deleted > sequence => self.delete_connection(key, deleted).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the sequence of the newest record if that is a tombstone.
    pub(crate) async fn tombstone(&self, key: &ConnectionKey) -> Result<Option<u64>, StoreError> {
        let Some(newest) = records::last(&self.nats, &key.subject()).await? else { return Ok(None) };
        let connection: OauthConnection = parse(OAUTH, &key.subject(), &newest.payload)?;
        Ok((connection.status == Status::Revoked).then_some(newest.sequence))
    }

    /// Removes a connection's entry, unless it is of a newer record than the tombstone with this sequence.
    pub(crate) async fn delete_connection(&self, key: &ConnectionKey, sequence: u64) -> Result<(), StoreError> {
        let kv_key = key.kv_key();
        // A purge that meets a newer entry removes nothing, so read again until the key is gone.
        while let Some(entry) = kv::get(&self.nats, CONNECTIONS, &kv_key).await? {
            let stored: RecordSequence = parse(CONNECTIONS, &kv_key, &entry.payload)?;
            if stored.sequence > sequence {
                return Ok(());
            }
            let at = kv::At { bucket: CONNECTIONS, key: &kv_key, replaces: entry.revision };
            kv::purge(&self.nats, at).await?;
        }
        Ok(())
    }

    /// Stores the failure of a refresh in the connection's entry, if the entry still belongs to the record with
    /// this sequence.
    pub(crate) async fn put_failure(
        &self,
        key: &ConnectionKey,
        sequence: u64,
        failure: &RefreshFailure,
    ) -> Result<(), StoreError> {
        let kv_key = key.kv_key();
        kv::update(&self.nats, CONNECTIONS, &kv_key, |entry| {
            let Some(value) = entry.and_then(|entry| entry.value.as_ref()) else { return Ok(Change::Keep(())) };
            // The secrets stay sealed: this needs no key.
            let mut stored: StoredConnection = parse(CONNECTIONS, &kv_key, value)?;
            if stored.connection.sequence != sequence {
                return Ok(Change::Keep(()));
            }
            stored.refresh_failure = Some(failure.clone());
            Ok(Change::Write(Write::Put { headers: refresh_header(&stored), value: json(&stored)? }, ()))
        })
        .await
    }
}

/// The header from which the repair pass learns, without the value, whether the connection needs a schedule.
fn refresh_header(stored: &StoredConnection) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !stored.connection.is_kept_alive() {
        headers.insert(HEADER_REFRESH, REFRESH_NONE);
    } else if stored.refresh_failure.as_ref().is_some_and(|failure| failure.reason == NO_CONFIG) {
        headers.insert(HEADER_REFRESH, REFRESH_PAUSED);
    }
    headers
}

/// The sealed fields of a connection, by name.
pub(super) fn secrets(connection: &mut OauthConnection) -> [(&'static str, &mut Option<Secret>); 2] {
    [("access_token", &mut connection.access_token), ("refresh_token", &mut connection.refresh_token)]
}

pub(super) fn parse_key(kv_key: &str) -> Result<ConnectionKey, StoreError> {
    ConnectionKey::parse_kv_key(kv_key).map_err(StoreError::unreadable(format!("{CONNECTIONS}/{kv_key}")))
}

fn seal_context<'a>(key: &'a str, field: &'a str, sequence: u64) -> SealContext<'a> {
    SealContext { bucket: CONNECTIONS, key, field, sequence, bound_to: "" }
}
