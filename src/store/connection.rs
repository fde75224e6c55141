//! Connections in their bucket: opened, sealed, noted about, taken out.

use async_nats::HeaderMap;
use bytes::Bytes;

use super::{Newest, Store, StoreError, json, parse, seal_error};
use crate::command::{HEADER_REFRESH, REFRESH_NONE, REFRESH_PAUSED};
use crate::connection::{NO_CONFIG, OauthConnection, RefreshFailure, Status, StoredConnection};
use crate::jetstream::{NatsError, batch, kv};
use crate::protocol::records;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{CONNECTIONS, ConnectionKey};

/// A page of connections.
pub struct ConnectionPage {
    /// Each with its place in the bucket and its key.
    pub connections: Vec<(u64, ConnectionKey, OauthConnection)>,
    /// How many there are in all.
    pub total: u64,
    /// Whether there are more behind the last.
    pub more: bool,
}

impl Store {
    /// Connections whose keys match, in the order in which they were last changed, from behind that place on; at most
    /// `limit`, and about as many bytes as given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connections(
        &self,
        filter: &str,
        after: u64,
        limits: batch::PageLimits,
    ) -> Result<ConnectionPage, StoreError> {
        let page = batch::page(&self.nats, CONNECTIONS, filter, after, limits).await?;
        let mut connections = Vec::new();
        for entry in page.entries {
            let stored = self.open_connection(&entry.key, &entry.payload)?;
            let key = ConnectionKey::parse_kv_key(&entry.key);
            let key = key.map_err(|_| StoreError::Unreadable(format!("{CONNECTIONS}/{}", entry.key)))?;
            connections.push((entry.revision, key, stored.connection));
        }
        Ok(ConnectionPage { connections, total: page.total, more: page.more })
    }

    pub(super) fn open_connection(&self, kv_key: &str, value: &[u8]) -> Result<StoredConnection, StoreError> {
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
                let context = connection_context(kv_key, field, sequence);
                *secret = Some(self.keyring.open(context, sealed.expose()).map_err(seal_error(CONNECTIONS, kv_key))?);
            }
        }
        Ok(stored)
    }

    /// A connection as the bucket keeps it: headers and value.
    ///
    /// # Errors
    /// [`StoreError::Seal`].
    pub fn sealed_connection(
        &self,
        key: &ConnectionKey,
        mut stored: StoredConnection,
    ) -> Result<(HeaderMap, Bytes), StoreError> {
        let (kv_key, headers, sequence) = (key.kv_key(), mark(&stored), stored.connection.sequence);
        for (field, secret) in secrets(&mut stored.connection) {
            if let Some(clear) = secret.take() {
                let context = connection_context(&kv_key, field, sequence);
                let sealed = self.keyring.seal(context, &clear).map_err(seal_error(CONNECTIONS, &kv_key))?;
                *secret = Some(Secret::new(sealed));
            }
        }
        Ok((headers, json(&stored)?))
    }

    /// Stores a connection, or takes it out if that is what its record says, unless a newer one is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_connection(&self, key: &ConnectionKey, stored: StoredConnection) -> Result<(), StoreError> {
        match stored.connection.status {
            Status::Revoked => self.delete_connection(key, stored.connection.sequence).await,
            Status::Active | Status::NeedsReauthorization => self.put_connection(key, stored).await,
        }
    }

    /// Stores a connection unless a newer one is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_connection(&self, key: &ConnectionKey, stored: StoredConnection) -> Result<(), StoreError> {
        let sequence = stored.connection.sequence;
        let value = self.sealed_connection(key, stored)?;
        if !self.replace_older(CONNECTIONS, &key.kv_key(), sequence, Some(value)).await? {
            return Ok(());
        }
        // Nothing was there: either it is new, or it was deleted while this write was held up.
        match self.tombstone(key).await? {
            Some(deleted) if deleted > sequence => self.delete_connection(key, deleted).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Sequence of the record that says that this connection was deleted, if that is its newest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tombstone(&self, key: &ConnectionKey) -> Result<Option<u64>, StoreError> {
        let Some(newest) = records::last(&self.nats, &key.subject()).await? else { return Ok(None) };
        let connection: OauthConnection = parse(crate::subject::OAUTH, &key.subject(), &newest.payload)?;
        Ok((connection.status == Status::Revoked).then_some(newest.sequence))
    }

    /// Takes a connection out of the bucket unless a newer one is there. Its record stays and says that it is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_connection(&self, key: &ConnectionKey, sequence: u64) -> Result<(), StoreError> {
        let kv_key = key.kv_key();
        while let Some(entry) = kv::get(&self.nats, CONNECTIONS, &kv_key).await? {
            let there: Newest = parse(CONNECTIONS, &kv_key, &entry.payload)?;
            if there.sequence > sequence {
                return Ok(());
            }
            let at = kv::At { bucket: CONNECTIONS, key: &kv_key, replaces: entry.revision };
            kv::purge(&self.nats, at).await?;
        }
        Ok(())
    }

    /// Notes down that a refresh of this connection failed, unless a newer one is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_failure(
        &self,
        key: &ConnectionKey,
        sequence: u64,
        failure: &RefreshFailure,
    ) -> Result<(), StoreError> {
        let kv_key = key.kv_key();
        while let Some(entry) = kv::get(&self.nats, CONNECTIONS, &kv_key).await? {
            let Some(value) = entry.value else { return Ok(()) };
            // Still sealed: the note needs no key.
            let mut stored: StoredConnection = parse(CONNECTIONS, &kv_key, &value)?;
            if stored.connection.sequence != sequence {
                return Ok(());
            }
            stored.refresh_failure = Some(failure.clone());
            let mut headers = crate::jetstream::headers(None);
            if let Some(value) = mark(&stored).get(HEADER_REFRESH) {
                headers.insert(HEADER_REFRESH, value.clone());
            }
            let at = kv::At { bucket: CONNECTIONS, key: &kv_key, replaces: entry.revision };
            match kv::put_with(&self.nats, at, headers, json(&stored)?).await {
                // It may only have been sealed anew.
                Err(NatsError::WrongLastSequence) => {}
                put => return Ok(put.map(drop)?),
            }
        }
        Ok(())
    }
}

/// What the repair pass has to know of a connection, in a header.
fn mark(stored: &StoredConnection) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !stored.connection.is_kept_alive() {
        headers.insert(HEADER_REFRESH, REFRESH_NONE);
    } else if stored.refresh_failure.as_ref().is_some_and(|failure| failure.reason == NO_CONFIG) {
        headers.insert(HEADER_REFRESH, REFRESH_PAUSED);
    }
    headers
}

/// What of a connection is sealed, by field.
pub(super) fn secrets(connection: &mut OauthConnection) -> [(&'static str, &mut Option<Secret>); 2] {
    [("access_token", &mut connection.access_token), ("refresh_token", &mut connection.refresh_token)]
}

fn connection_context<'a>(key: &'a str, field: &'a str, sequence: u64) -> SealContext<'a> {
    SealContext { bucket: CONNECTIONS, key, field, sequence, bound_to: "" }
}
