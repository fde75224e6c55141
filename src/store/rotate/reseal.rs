//! Work on one record or entry. Each function returns true if there was something to do.

use fail::fail_point;

use crate::jetstream::kv::{self, Change};
use crate::store::{Store, StoreError};
use crate::subject::{self, CONFIGS, CONNECTIONS, ConnectionKey};

impl Store {
    /// Updates an entry if it is older than its record. Skips a connection's record that is sealed with the current key,
    /// because that record stays readable.
    pub(super) async fn catch_up(&self, record: &str, sealed: &str, sequence: u64) -> Result<bool, StoreError> {
        if let Ok(key) = ConnectionKey::parse_subject(record) {
            if self.keyring.is_current(sealed) || !self.is_older(CONNECTIONS, &key.kv_key(), sequence).await? {
                return Ok(false);
            }
            return self.catch_up_connection(&key, record).await;
        }
        let Some(integration) = subject::parse_config_subject(record) else { return Ok(false) };
        if !self.is_older(CONFIGS, integration.as_str(), sequence).await? {
            return Ok(false);
        }
        self.catch_up_config(&integration, record).await
    }

    /// Returns true if the entry is missing, of an older record, or unreadable.
    async fn is_older(&self, bucket: &'static str, key: &str, sequence: u64) -> Result<bool, StoreError> {
        let entry = kv::get(&self.nats, bucket, key).await?;
        let stored = entry.map(|entry| self.sequence_of(bucket, &entry, sequence)).transpose()?;
        Ok(stored.is_none_or(|stored| stored < sequence))
    }

    /// Re-seals an entry. If it was replaced since it was read, re-seals the newer one: that may have an older key,
    /// too.
    pub(super) async fn reseal(&self, bucket: &str, found: kv::Entry) -> Result<bool, StoreError> {
        let key = found.key.clone();
        let resealed = kv::update_from(&self.nats, bucket, &key, Some(found), |entry| {
            let Some(entry) = entry else { return Ok(Change::Keep(false)) };
            let write = match bucket {
                CONFIGS => self.resealed_config(entry)?,
                _ => self.resealed_connection(&key, entry)?,
            };
            let Some(write) = write else { return Ok(Change::Keep(false)) };
            fail_point!("before_reseal");
            Ok::<_, StoreError>(Change::Write(write, true))
        });
        let resealed = resealed.await?;
        if resealed {
            fail_point!("after_reseal");
        }
        Ok(resealed)
    }
}
