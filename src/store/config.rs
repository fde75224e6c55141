//! Configs.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use serde::{Deserialize, Serialize};

use super::record::modified;
use super::{RecordSequence, Store, StoreError, json, parse};
use crate::integration::IntegrationOauthConfig;
use crate::jetstream::kv::{self, Write};
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{CONFIGS, Integration};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredConfig {
    /// With sealed secrets.
    pub(crate) config: IntegrationOauthConfig<String>,
    /// Stream sequence of the record.
    pub(crate) sequence: u64,
    /// Unix seconds of the record.
    pub(crate) modified: u64,
}

impl Store {
    /// Reads a config and leaves its secrets sealed.
    pub(crate) async fn stored_config(&self, integration: &Integration) -> Result<Option<StoredConfig>, StoreError> {
        let entry = kv::get(&self.nats, CONFIGS, integration.as_str()).await?;
        entry.and_then(|entry| entry.value).map(|value| parse(CONFIGS, integration.as_str(), &value)).transpose()
    }

    pub(crate) async fn has_config(&self, integration: &Integration) -> Result<bool, StoreError> {
        let entry = kv::get(&self.nats, CONFIGS, integration.as_str()).await?;
        Ok(entry.is_some_and(|entry| entry.value.is_some()))
    }

    pub(crate) async fn config(&self, integration: &Integration) -> Result<Option<IntegrationOauthConfig>, StoreError> {
        let Some(StoredConfig { config, sequence, modified: _ }) = self.stored_config(integration).await? else {
            return Ok(None);
        };
        self.open_config(CONFIGS, integration.as_str(), sequence, config).map(Some)
    }

    pub(super) fn open_config(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        config: IntegrationOauthConfig<String>,
    ) -> Result<IntegrationOauthConfig, StoreError> {
        let bound_to = bound_to(&config);
        config.map_secrets(|field, sealed| {
            let context = SealContext { bucket, key, field, sequence, bound_to: &bound_to };
            if sealed.is_empty() {
                Ok(Secret::default())
            } else {
                self.keyring.open(context, &sealed).map_err(StoreError::seal(format!("{bucket}/{key}")))
            }
        })
    }

    /// Seals a config's secrets for its record, or for its entry in the bucket. An empty secret stays empty.
    ///
    /// For the record `sequence` is 0, because a record's sequence is unknown until it is stored. Its secrets open only
    /// at the record's subject, and only for the same token endpoint and client id.
    pub(crate) fn seal_config(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        config: IntegrationOauthConfig,
    ) -> Result<IntegrationOauthConfig<String>, StoreError> {
        let bound_to = bound_to(&config);
        config.map_secrets(|field, secret| {
            let context = SealContext { bucket, key, field, sequence, bound_to: &bound_to };
            if secret.is_empty() {
                Ok(String::new())
            } else {
                self.keyring.seal(context, &secret).map_err(StoreError::seal(format!("{bucket}/{key}")))
            }
        })
    }

    /// Stores the config of a record, unless a newer one is stored.
    pub(crate) async fn put_config(
        &self,
        config: IntegrationOauthConfig,
        record: &StreamMessage,
    ) -> Result<(), StoreError> {
        let key = config.integration_id.to_string();
        let config = self.seal_config(CONFIGS, &key, record.sequence, config)?;
        let stored = StoredConfig { config, sequence: record.sequence, modified: modified(record) };
        let write = Write::Put { headers: HeaderMap::new(), value: json(&stored)? };
        self.replace_older(CONFIGS, &key, record.sequence, write).await.map(drop)
    }

    /// Deletes a config, unless a newer one is stored. The deletion marker holds the sequence of the record, so that a
    /// late write of an older config does not bring that back.
    pub(crate) async fn delete_config(&self, integration: &Integration, sequence: u64) -> Result<(), StoreError> {
        let write = Write::Delete { headers: HeaderMap::new(), body: json(&RecordSequence { sequence })? };
        self.replace_older(CONFIGS, integration.as_str(), sequence, write).await.map(drop)
    }
}

/// A client secret must not be sent to another endpoint or for another client than it was stored for.
fn bound_to<T>(config: &IntegrationOauthConfig<T>) -> String {
    format!("{} {}", config.token_url, config.client_id)
}
