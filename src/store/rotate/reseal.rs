//! Work on one record or entry. Each function returns true if there was something to do.

use async_nats::HeaderMap;
use fail::fail_point;

use crate::command::HEADER_STATUS;
use crate::connection::{Status, StoredConnection};
use crate::integration::IntegrationOauthConfig;
use crate::jetstream::header;
use crate::jetstream::kv::{self, Change, Write};
use crate::protocol::records;
use crate::secret::Secret;
use crate::store::config::StoredConfig;
use crate::store::connection::{parse_key, secrets};
use crate::store::{RecordSequence, Store, StoreError, json, parse};
use crate::subject::{self, CONFIGS, CONNECTIONS, ConnectionKey, Integration, OAUTH};

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

    async fn catch_up_connection(&self, key: &ConnectionKey, subject: &str) -> Result<bool, StoreError> {
        let Some(record) = records::last(&self.nats, subject).await? else { return Ok(false) };
        let stored = self.connection_of(key, &record)?;
        let is_gone = kv::get(&self.nats, CONNECTIONS, &key.kv_key()).await?.is_none();
        if stored.connection.status == Status::Revoked && is_gone {
            return Ok(false);
        }
        self.put_or_delete_connection(key, stored).await?;
        Ok(true)
    }

    async fn catch_up_config(&self, integration: &Integration, subject: &str) -> Result<bool, StoreError> {
        let Some(record) = records::last(&self.nats, subject).await? else { return Ok(false) };
        if header(&record.headers, HEADER_STATUS).is_empty() {
            let sealed: IntegrationOauthConfig<String> = parse(OAUTH, subject, &record.payload)?;
            let config = self.open_config(OAUTH, subject, 0, sealed)?;
            self.put_config(config, &record).await?;
        } else {
            self.delete_config(integration, record.sequence).await?;
        }
        Ok(true)
    }

    /// Returns true if the entry is missing or of an older record.
    async fn is_older(&self, bucket: &str, key: &str, sequence: u64) -> Result<bool, StoreError> {
        let entry = kv::get(&self.nats, bucket, key).await?.filter(|entry| !entry.payload.is_empty());
        let stored = entry.map(|entry| parse::<RecordSequence>(bucket, key, &entry.payload)).transpose()?;
        Ok(stored.is_none_or(|stored| stored.sequence < sequence))
    }

    /// Re-seals an entry. If it was replaced since it was read, re-seals the newer one: that may have an older key,
    /// too.
    pub(super) async fn reseal(&self, bucket: &str, found: kv::Entry) -> Result<bool, StoreError> {
        let key = found.key.clone();
        let resealed = kv::update_from(&self.nats, bucket, &key, Some(found), |entry| {
            let Some(value) = entry.and_then(|entry| entry.value.as_ref()) else { return Ok(Change::Keep(false)) };
            let Some(write) = self.resealed(bucket, &key, value)? else { return Ok(Change::Keep(false)) };
            fail_point!("before_reseal");
            Ok::<_, StoreError>(Change::Write(write, true))
        });
        let resealed = resealed.await?;
        if resealed {
            fail_point!("after_reseal");
        }
        Ok(resealed)
    }

    /// Returns the re-sealed entry, or `None` if all its secrets are sealed with the current key.
    fn resealed(&self, bucket: &str, key: &str, value: &[u8]) -> Result<Option<Write>, StoreError> {
        if bucket == CONFIGS { self.resealed_config(key, value) } else { self.resealed_connection(key, value) }
    }

    fn resealed_config(&self, key: &str, value: &[u8]) -> Result<Option<Write>, StoreError> {
        let StoredConfig { config, sequence, modified } = parse(CONFIGS, key, value)?;
        let mut has_older = false;
        config.clone().map_secrets(|_, sealed| {
            has_older |= self.is_older_seal(&sealed);
            Ok::<_, StoreError>(())
        })?;
        if !has_older {
            return Ok(None);
        }
        let config = self.open_config(CONFIGS, key, sequence, config)?;
        let config = self.seal_config(CONFIGS, key, sequence, config)?;
        let value = json(&StoredConfig { config, sequence, modified })?;
        Ok(Some(Write::Put { headers: HeaderMap::new(), value }))
    }

    fn resealed_connection(&self, kv_key: &str, value: &[u8]) -> Result<Option<Write>, StoreError> {
        let mut stored: StoredConnection = parse(CONNECTIONS, kv_key, value)?;
        let is_older =
            |sealed: &Option<Secret>| sealed.as_ref().is_some_and(|sealed| self.is_older_seal(sealed.expose()));
        if !secrets(&mut stored.connection).into_iter().any(|(_, sealed)| is_older(sealed)) {
            return Ok(None);
        }
        let opened = self.open_secrets(kv_key, stored)?;
        let (headers, value) = self.sealed_connection(&parse_key(kv_key)?, opened)?;
        Ok(Some(Write::Put { headers, value }))
    }

    fn is_older_seal(&self, sealed: &str) -> bool {
        !sealed.is_empty() && !self.keyring.is_current(sealed)
    }
}
