//! What is kept: configs, connections and pending logins, sealed on the way in and opened on the way out.

mod connection;
mod keys;
mod login;
mod rotate;
mod ticket;

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use serde::{Deserialize, Serialize};

use crate::command::{HEADER_COMMAND, HEADER_SEALED_REFRESH};
use crate::connection::{OauthConnection, SealedPart, StoredConnection};
use crate::integration::IntegrationOauthConfig;
use crate::jetstream::{Nats, NatsError, header, kv};
use crate::protocol::high_water::Backwards;
use crate::seal::{Keyring, KeyringError, SealContext, SealError};
use crate::secret::Secret;
use crate::subject::{CONFIGS, CONNECTIONS, ConnectionKey, Integration, OAUTH};

pub(crate) use self::connection::ConnectionPage;
pub(crate) use self::login::{Consumed, FoundLogin};
pub(crate) use self::rotate::{Rotated, Step, WorkerKeys, rotate, spare};
pub(crate) use self::ticket::Start;

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bus.
    #[error("{0}")]
    Nats(#[from] NatsError),
    /// Sealing.
    #[error("{what}: {source}")]
    Seal {
        /// Bucket and key.
        what: String,
        /// Why.
        source: SealError,
    },
    /// This delivery took so long that another worker has the command by now.
    #[error("the command is no longer this worker's")]
    Lost,
    /// What is stored is not of the known form.
    #[error("{0} holds something that is not of the known form")]
    Unreadable(String),
    /// Stored values need keys that are not there.
    #[error(
        "stored values are sealed with key `{0}`, which is not in the keyring: put it back there behind the others, then start again; without it they cannot be opened"
    )]
    MissingKey(String),
    /// The keyring cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Sequences would go backwards.
    #[error(transparent)]
    Backwards(#[from] Backwards),
}

/// A config as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredConfig {
    /// The config; secrets sealed.
    pub config: IntegrationOauthConfig<String>,
    /// Stream sequence of its record.
    pub sequence: u64,
    /// Unix seconds of its record.
    pub modified: u64,
}

/// The buckets with the keys to them.
#[derive(Clone)]
pub struct Store {
    /// The bus.
    nats: Nats,
    /// The keys.
    pub keyring: Arc<Keyring>,
}

impl Store {
    pub fn new(nats: Nats, keyring: Arc<Keyring>) -> Self {
        Self { nats, keyring }
    }

    /// The config in force, as kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored_config(&self, integration: &Integration) -> Result<Option<StoredConfig>, StoreError> {
        let entry = kv::get(&self.nats, CONFIGS, integration.as_str()).await?;
        entry.and_then(|entry| entry.value).map(|value| parse(CONFIGS, integration.as_str(), &value)).transpose()
    }

    /// Whether there is a config in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_config(&self, integration: &Integration) -> Result<bool, StoreError> {
        let entry = kv::get(&self.nats, CONFIGS, integration.as_str()).await?;
        Ok(entry.is_some_and(|entry| entry.value.is_some()))
    }

    /// The config in force, opened.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn config(&self, integration: &Integration) -> Result<Option<IntegrationOauthConfig>, StoreError> {
        let Some(StoredConfig { config, sequence, modified: _ }) = self.stored_config(integration).await? else {
            return Ok(None);
        };
        self.open_config(CONFIGS, integration.as_str(), sequence, config).map(Some)
    }

    /// Opens a config's secrets at their place.
    ///
    /// # Errors
    /// [`StoreError::Seal`].
    pub fn open_config(
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
                self.keyring.open(context, &sealed).map_err(seal_error(bucket, key))
            }
        })
    }

    /// Seals a config's secrets for their place; an empty secret stays empty.
    ///
    /// # Errors
    /// [`StoreError::Seal`].
    pub fn seal_config(
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
                self.keyring.seal(context, &secret).map_err(seal_error(bucket, key))
            }
        })
    }

    /// A connection with its secrets opened.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connection(&self, key: &ConnectionKey) -> Result<Option<OauthConnection>, StoreError> {
        Ok(self.stored_connection(key).await?.map(|stored| stored.connection))
    }

    /// A connection with its secrets opened, and what only workers need of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored_connection(&self, key: &ConnectionKey) -> Result<Option<StoredConnection>, StoreError> {
        let kv_key = key.kv_key();
        let Some(value) = kv::get(&self.nats, CONNECTIONS, &kv_key).await?.and_then(|entry| entry.value) else {
            return Ok(None);
        };
        self.open_connection(&kv_key, &value).map(Some)
    }

    /// Puts a config in force unless a newer one is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_config(&self, config: IntegrationOauthConfig, record: &StreamMessage) -> Result<(), StoreError> {
        let key = config.integration_id.to_string();
        let config = self.seal_config(CONFIGS, &key, record.sequence, config)?;
        let stored = StoredConfig { config, sequence: record.sequence, modified: modified(record) };
        self.replace_older(CONFIGS, &key, record.sequence, Some((HeaderMap::new(), json(&stored)?))).await.map(drop)
    }

    /// Deletes a config unless a newer one is in force. The mark keeps the sequence, so that an older config that
    /// comes late does not bring it back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_config(&self, integration: &Integration, sequence: u64) -> Result<(), StoreError> {
        self.replace_older(CONFIGS, integration.as_str(), sequence, None).await.map(drop)
    }

    /// Writes unless something as new is there. Gives whether there was nothing before.
    async fn replace_older(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        value: Option<(HeaderMap, bytes::Bytes)>,
    ) -> Result<bool, StoreError> {
        loop {
            let entry = kv::get(&self.nats, bucket, key).await?;
            let replaces = entry.as_ref().map_or(0, |entry| entry.revision);
            let there: Newest = match &entry {
                Some(entry) if !entry.payload.is_empty() => parse(bucket, key, &entry.payload)?,
                _ => Newest { sequence: 0 },
            };
            if there.sequence > sequence {
                self.check_newer(there.sequence).await?;
            }
            if there.sequence >= sequence {
                return Ok(false);
            }
            let at = kv::At { bucket, key, replaces };
            let written = if let Some((headers, value)) = &value {
                kv::put_with(&self.nats, at, crate::jetstream::headers_with(headers), value.clone()).await
            } else {
                kv::delete(&self.nats, at, crate::jetstream::headers(None), json(&Newest { sequence })?).await
            };
            match written {
                Err(NatsError::WrongLastSequence) => {}
                other => return Ok(other.map(|_| replaces == 0)?),
            }
        }
    }

    /// Something newer is there than what was to be written. That is nothing to pass over in silence when the stream
    /// has given out no such sequence.
    async fn check_newer(&self, highest: u64) -> Result<(), StoreError> {
        let ends = self.nats.stream_state(OAUTH).await?.map_or(0, |state| state.last_sequence);
        if ends < highest { Err(Backwards { ends, highest }.into()) } else { Ok(()) }
    }

    /// Seals what a connection's record carries beside its body.
    ///
    /// # Errors
    /// [`StoreError::Seal`].
    pub fn seal_part(&self, key: &ConnectionKey, command_id: &str, part: &SealedPart) -> Result<String, StoreError> {
        let text = serde_json::to_string(part).map(Secret::new).map_err(|_| StoreError::Unreadable(key.subject()))?;
        self.keyring.seal(record_context(&key.subject(), command_id), &text).map_err(seal_error(OAUTH, &key.subject()))
    }

    /// The whole connection of a stored record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn connection_of(&self, key: &ConnectionKey, record: &StreamMessage) -> Result<StoredConnection, StoreError> {
        let subject = key.subject();
        let mut connection: OauthConnection = parse(OAUTH, &subject, &record.payload)?;
        let context = record_context(&subject, header(&record.headers, HEADER_COMMAND));
        let opened = self
            .keyring
            .open(context, header(&record.headers, HEADER_SEALED_REFRESH))
            .map_err(seal_error(OAUTH, &subject))?;
        let SealedPart { refresh_token, issued_at, login_id } = parse(OAUTH, &subject, opened.expose().as_bytes())?;
        connection.refresh_token = refresh_token;
        connection.sequence = record.sequence;
        connection.modified = modified(record);
        Ok(StoredConnection { connection, issued_at, login_id, refresh_failure: None })
    }
}

/// What every entry that follows a record says of it.
#[derive(Serialize, Deserialize)]
struct Newest {
    sequence: u64,
}

/// Unix seconds of a record.
#[must_use]
pub(crate) fn modified(record: &StreamMessage) -> u64 {
    u64::try_from(record.time.unix_timestamp()).unwrap_or(0)
}

/// A value as JSON.
///
/// # Errors
/// [`StoreError::Unreadable`] for a value that has no JSON form, which none of ours is.
pub(crate) fn json(value: &impl Serialize) -> Result<bytes::Bytes, StoreError> {
    serde_json::to_vec(value).map(Into::into).map_err(|_| StoreError::Unreadable("a value to be stored".to_owned()))
}

fn parse<T: for<'de> Deserialize<'de>>(bucket: &str, key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|_| StoreError::Unreadable(format!("{bucket}/{key}")))
}

fn seal_error(bucket: &str, key: &str) -> impl Fn(SealError) -> StoreError {
    let what = format!("{bucket}/{key}");
    move |source| StoreError::Seal { what: what.clone(), source }
}

fn bound_to<T>(config: &IntegrationOauthConfig<T>) -> String {
    format!("{} {}", config.token_url, config.client_id)
}

fn record_context<'a>(subject: &'a str, command_id: &'a str) -> SealContext<'a> {
    SealContext { bucket: OAUTH, key: subject, field: HEADER_SEALED_REFRESH, sequence: 0, bound_to: command_id }
}
