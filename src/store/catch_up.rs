//! Entries that are updated from their record.

use std::collections::HashMap;

use tracing::warn;

use super::config::is_tombstone;
use super::{RecordSequence, Store, StoreError, parse};
use crate::connection::Status;
use crate::jetstream::{batch, kv};
use crate::protocol::records;
use crate::subject::{CONNECTIONS, ConnectionKey, Integration, parse_config_subject};

impl Store {
    /// Returns the sequences of the records that these entries are of, by key. Leaves out missing entries. An entry that cannot be
    /// read has 0.
    pub(crate) async fn entry_sequences(
        &self,
        bucket: &'static str,
        keys: Vec<String>,
    ) -> Result<HashMap<String, u64>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let entries = batch::entries(&self.nats, bucket, &keys).await?;
        let sequence = |entry: &kv::Entry| parse(bucket, &entry.key, &entry.payload);
        let found = entries.into_iter().map(|entry| {
            let sequence = sequence(&entry).map_or(0, |RecordSequence { sequence }| sequence);
            (entry.key, sequence)
        });
        Ok(found.collect())
    }

    /// Updates the entry of a connection or config to the newest record on that subject. Returns false if the record cannot be
    /// read, or no reader notices the update.
    pub(crate) async fn update_entry(&self, subject: &str) -> Result<bool, StoreError> {
        let updated = match (ConnectionKey::parse_subject(subject), parse_config_subject(subject)) {
            (Ok(key), _) => self.catch_up_connection(&key, subject).await,
            (_, Some(integration)) => self.catch_up_config(&integration, subject).await,
            _ => return Ok(false),
        };
        match updated {
            Err(error) if error.is_junk() => {
                warn!("not a record: {error}; the next one replaces it");
                Ok(false)
            }
            updated => updated,
        }
    }

    pub(super) async fn catch_up_connection(&self, key: &ConnectionKey, subject: &str) -> Result<bool, StoreError> {
        let Some(record) = records::last(&self.nats, subject).await? else { return Ok(false) };
        let stored = match self.connection_of(key, &record) {
            Err(error) if error.is_junk() => {
                warn!("not a record: {error}; the next one replaces it");
                return Ok(false);
            }
            stored => stored?,
        };
        let is_deleted = stored.connection.status == Status::Revoked;
        let is_gone = is_deleted && kv::get(&self.nats, CONNECTIONS, &key.kv_key()).await?.is_none();
        self.put_or_delete_connection(key, stored, None).await?;
        // Releases before this one left no marker, so an upgrade writes one for each tombstone.
        Ok(!is_gone)
    }

    pub(super) async fn catch_up_config(&self, integration: &Integration, subject: &str) -> Result<bool, StoreError> {
        let Some(record) = records::last(&self.nats, subject).await? else { return Ok(false) };
        if is_tombstone(&record) {
            self.delete_config(integration, record.sequence).await?;
        } else {
            self.put_config(&self.config_of(integration, &record)?, &record).await?;
        }
        Ok(true)
    }
}
