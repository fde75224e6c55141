//! Configs: their records, and their entries in the bucket. Both hold the whole config sealed, and a copy without secrets.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::error;

use super::record::modified;
use super::{Store, StoreError, json, parse};
use crate::command::{HEADER_COMMAND, HEADER_STATUS};
use crate::integration::IntegrationOauthConfig;
use crate::jetstream::header;
use crate::jetstream::kv::{self, Write};
use crate::protocol::records;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{self, CONFIGS, Integration, OAUTH};

/// Body of a config's record.
#[derive(Debug, Serialize, Deserialize)]
struct ConfigRecord {
    /// Copy of the config without its secrets.
    config: Map<String, Value>,
    /// The whole config.
    sealed: String,
}

/// A config's entry in the bucket.
#[derive(Debug, Serialize, Deserialize)]
struct ConfigEntry {
    config: Map<String, Value>,
    /// Stream sequence of the record.
    sequence: u64,
    /// Unix seconds of the record.
    modified: u64,
    sealed: String,
}

/// A config with its JSON, which may have fields that only a later release knows.
pub(crate) struct WholeConfig {
    pub(crate) config: IntegrationOauthConfig,
    json: Secret,
}

impl WholeConfig {
    /// # Errors
    /// [`StoreError::Unreadable`] for a config without a JSON form. There is none.
    pub(crate) fn new(config: IntegrationOauthConfig) -> Result<Self, StoreError> {
        let json = config.with_secrets().map_err(StoreError::unreadable("a config to be stored"))?;
        Ok(Self { config, json })
    }

    fn copy(&self) -> Result<Map<String, Value>, StoreError> {
        self.config.without_secrets().map_err(StoreError::unreadable("a config to be stored"))
    }
}

impl Store {
    /// Returns true if the integration has an entry, readable or not.
    pub(crate) async fn has_config(&self, integration: &Integration) -> Result<bool, StoreError> {
        let entry = kv::get(&self.nats, CONFIGS, integration.as_str()).await?;
        Ok(entry.is_some_and(|entry| entry.value.is_some()))
    }

    /// Does the same from a worker's memory, for reads of connections. Another worker's change counts within moments.
    pub(crate) async fn is_configured(&self, integration: &Integration) -> Result<bool, StoreError> {
        let exists = |entry: Option<kv::Entry>| Some(entry.is_some_and(|entry| entry.value.is_some()));
        Ok(self.configured.get(integration.as_str(), exists).await?.unwrap_or(false))
    }

    /// Reads a config. Restores an entry that cannot be read from its record.
    pub(crate) async fn config(&self, integration: &Integration) -> Result<Option<IntegrationOauthConfig>, StoreError> {
        let Some(entry) = kv::get(&self.nats, CONFIGS, integration.as_str()).await? else { return Ok(None) };
        match self.open_config_entry(&entry) {
            Ok(whole) => Ok(whole.map(|whole| whole.config)),
            Err(error) if error.is_junk() => self.restore_config(integration, error).await,
            Err(error) => Err(error),
        }
    }

    /// Reads a config from its record, and updates the entry. Returns the given error if the record cannot be read either.
    async fn restore_config(
        &self,
        integration: &Integration,
        cause: StoreError,
    ) -> Result<Option<IntegrationOauthConfig>, StoreError> {
        let subject = subject::config_subject(integration);
        let Some(record) = records::last(&self.nats, &subject).await? else { return Err(cause) };
        if is_tombstone(&record) {
            self.delete_config(integration, record.sequence).await?;
            return Ok(None);
        }
        match self.config_of(integration, &record) {
            Ok(whole) => {
                error!("{cause}; restored the entry from its record");
                self.put_config(&whole, &record).await?;
                Ok(Some(whole.config))
            }
            Err(error) if error.is_junk() => Err(cause),
            Err(error) => Err(error),
        }
    }

    /// Opens an entry. Returns `None` if it marks a deletion.
    pub(super) fn open_config_entry(&self, entry: &kv::Entry) -> Result<Option<WholeConfig>, StoreError> {
        let key = &entry.key;
        let Some(value) = &entry.value else { return self.check_deletion(CONFIGS, entry).map(|()| None) };
        let ConfigEntry { config, sequence, modified, sealed } = parse(CONFIGS, key, value)?;
        let modified = modified.to_string();
        self.open_config(entry_context(key, sequence, &modified), &sealed, &config).map(Some)
    }

    fn open_config(
        &self,
        context: SealContext<'_>,
        sealed: &str,
        copy: &Map<String, Value>,
    ) -> Result<WholeConfig, StoreError> {
        let json = self.open_whole(context, sealed, copy)?;
        Ok(WholeConfig { config: parse(context.bucket, context.key, json.expose().as_bytes())?, json })
    }

    /// Returns the body of a config's record, bound to the command that writes the record.
    pub(crate) fn config_record(&self, whole: &WholeConfig, command_id: &str) -> Result<Bytes, StoreError> {
        let subject = subject::config_subject(&whole.config.integration_id);
        let sealed = self.seal_whole(record_context(&subject, command_id), &whole.json)?;
        json(&ConfigRecord { config: whole.copy()?, sealed })
    }

    /// Reads a config from its record.
    pub(crate) fn config_of(
        &self,
        integration: &Integration,
        record: &StreamMessage,
    ) -> Result<WholeConfig, StoreError> {
        let subject = subject::config_subject(integration);
        let Ok(ConfigRecord { config, sealed }) = parse(OAUTH, &subject, &record.payload) else {
            return self.config_of_form_1(OAUTH, &subject, 0, &record.payload);
        };
        self.open_config(record_context(&subject, header(&record.headers, HEADER_COMMAND)), &sealed, &config)
    }

    /// Stores the config of a record, unless a newer one is stored.
    pub(crate) async fn put_config(&self, whole: &WholeConfig, record: &StreamMessage) -> Result<(), StoreError> {
        let key = whole.config.integration_id.as_str();
        let write = self.config_entry(whole, record.sequence, modified(record))?;
        self.replace_older(CONFIGS, key, record.sequence, write, None).await?;
        // The caller may read a connection before the watch delivers the change.
        self.configured.forget(key);
        Ok(())
    }

    pub(super) fn config_entry(&self, whole: &WholeConfig, sequence: u64, modified: u64) -> Result<Write, StoreError> {
        let bound_to = modified.to_string();
        let context = entry_context(whole.config.integration_id.as_str(), sequence, &bound_to);
        let sealed = self.seal_whole(context, &whole.json)?;
        let value = json(&ConfigEntry { config: whole.copy()?, sequence, modified, sealed })?;
        Ok(Write::Put { headers: HeaderMap::new(), value })
    }

    /// Deletes a config, unless a newer one is stored.
    pub(crate) async fn delete_config(&self, integration: &Integration, sequence: u64) -> Result<(), StoreError> {
        let write = self.deletion(CONFIGS, integration.as_str(), sequence)?;
        self.replace_older(CONFIGS, integration.as_str(), sequence, write, None).await?;
        self.configured.forget(integration.as_str());
        Ok(())
    }

    /// Seals an entry again. Returns `None` if it is sealed with the current key.
    pub(super) fn resealed_config(&self, entry: &kv::Entry) -> Result<Option<Write>, StoreError> {
        let Some(value) = &entry.value else { return self.resealed_deletion(CONFIGS, entry) };
        let ConfigEntry { sequence, modified, sealed, .. } = parse(CONFIGS, &entry.key, value)?;
        if self.keyring.is_current(&sealed) {
            return Ok(None);
        }
        let whole = self.open_config_entry(entry)?;
        whole.map(|whole| self.config_entry(&whole, sequence, modified)).transpose()
    }
}

/// Returns true for the record of a deleted config.
#[must_use]
pub(super) fn is_tombstone(record: &StreamMessage) -> bool {
    !header(&record.headers, HEADER_STATUS).is_empty()
}

fn entry_context<'a>(key: &'a str, sequence: u64, modified: &'a str) -> SealContext<'a> {
    SealContext { bucket: CONFIGS, key, field: "config", sequence, bound_to: modified }
}

fn record_context<'a>(subject: &'a str, command_id: &'a str) -> SealContext<'a> {
    SealContext { bucket: OAUTH, key: subject, field: "config", sequence: 0, bound_to: command_id }
}
