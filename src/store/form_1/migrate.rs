//! Migration of a store from form 1. Runs while no worker does, and can be repeated: an entry of form 2 stays as it is.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use tracing::warn;

use crate::integration::IntegrationOauthConfig;
use crate::jetstream::kv::{self, Entry, Write};
use crate::jetstream::reader::{Parts, Reader};
use crate::store::connection::parse_key;
use crate::store::{RecordSequence, Store, StoreError, json, parse};
use crate::subject::{CONFIGS, CONNECTIONS, Integration, kv_stream, kv_subject};

/// Entries per chunk, and entries in work at once. Each costs one request, so this hides its latency.
pub(super) const CHUNK: usize = 32;

/// Result of a migration.
#[derive(Debug, Default)]
pub(crate) struct Migrated {
    /// Number of entries that were sealed as a whole.
    pub(crate) sealed: usize,
    /// The entries (bucket and key) and tombstones (stream and subject) that cannot be read. They are left as they are.
    pub(crate) unreadable: Vec<String>,
}

/// A config's entry of form 1.
#[derive(Deserialize)]
struct StoredConfig {
    config: serde_json::Value,
    sequence: u64,
    modified: u64,
}

/// The field that only entries of form 2 have.
#[derive(Deserialize)]
struct SealedEntry {
    sealed: Option<String>,
}

type Configs = HashMap<Integration, IntegrationOauthConfig>;

impl Store {
    /// Seals all configs and connections as a whole, and empties tombstones, which then expire after `tombstones`. Configs
    /// come first: connections take from them what form 1 did not store.
    ///
    /// # Errors
    /// Also if a key is missing from the keyring. What was migrated before stays so.
    pub(crate) async fn migrate(&self, tombstones: Duration) -> Result<Migrated, StoreError> {
        let mut migrated = Migrated::default();
        self.migrate_bucket(CONFIGS, &Configs::new(), &mut migrated).await?;
        let mut configs = Configs::new();
        for key in kv::keys(&self.nats, CONFIGS, "*").await? {
            let Ok(integration) = Integration::parse(&key) else { continue };
            match self.config(&integration).await {
                Ok(Some(config)) => drop(configs.insert(integration, config)),
                Ok(None) => {}
                Err(error) if error.is_junk() => {}
                Err(error) => return Err(error),
            }
        }
        self.migrate_bucket(CONNECTIONS, &configs, &mut migrated).await?;
        self.migrate_tombstones(tombstones, &mut migrated).await?;
        Ok(migrated)
    }

    async fn migrate_bucket(
        &self,
        bucket: &'static str,
        configs: &Configs,
        migrated: &mut Migrated,
    ) -> Result<(), StoreError> {
        let reader = Reader::through(&self.nats, &kv_stream(bucket), &kv_subject(bucket, ">"), 0, Parts::All).await?;
        let Some(mut reader) = reader else { return Ok(()) };
        loop {
            let chunk = reader.next_chunk(CHUNK).await?;
            if chunk.is_empty() {
                return Ok(());
            }
            let entries = chunk.into_iter().map(|stored| kv::entry_of(bucket, stored.sequence, stored.message));
            let done = stream::iter(entries).map(async |entry| self.migrate_entry(bucket, &entry, configs).await);
            for Done { sealed, unreadable } in done.buffered(CHUNK).try_collect::<Vec<_>>().await? {
                migrated.sealed += usize::from(sealed);
                migrated.unreadable.extend(unreadable);
            }
        }
    }

    async fn migrate_entry(&self, bucket: &'static str, entry: &Entry, configs: &Configs) -> Result<Done, StoreError> {
        let write = match bucket {
            CONFIGS => self.migrated_config(entry),
            _ => self.migrated_connection(entry, configs),
        };
        match write {
            Ok(None) => Ok(Done { sealed: false, unreadable: None }),
            Ok(Some(write)) => {
                let at = kv::At { bucket, key: &entry.key, replaces: entry.revision };
                kv::swap(&self.nats, at, write).await?;
                Ok(Done { sealed: true, unreadable: None })
            }
            Err(error) if error.is_junk() => {
                warn!("not migrated: {error}");
                Ok(Done { sealed: false, unreadable: Some(format!("{bucket}/{}", entry.key)) })
            }
            Err(error) => Err(error),
        }
    }

    fn migrated_config(&self, entry: &Entry) -> Result<Option<Write>, StoreError> {
        let key = &entry.key;
        if parse::<SealedEntry>(CONFIGS, key, &entry.payload)?.sealed.is_some() {
            return Ok(None);
        }
        if entry.value.is_none() {
            let RecordSequence { sequence } = parse(CONFIGS, key, &entry.payload)?;
            return self.deletion(CONFIGS, key, sequence).map(Some);
        }
        let StoredConfig { config, sequence, modified } = parse(CONFIGS, key, &entry.payload)?;
        let whole = self.config_of_form_1(CONFIGS, key, sequence, &json(&config)?)?;
        self.config_entry(&whole, sequence, modified).map(Some)
    }

    fn migrated_connection(&self, entry: &Entry, configs: &Configs) -> Result<Option<Write>, StoreError> {
        let kv_key = &entry.key;
        if parse::<SealedEntry>(CONNECTIONS, kv_key, &entry.payload)?.sealed.is_some() {
            return Ok(None);
        }
        let key = parse_key(kv_key)?;
        let mut stored = self.connection_of_form_1(kv_key, &entry.payload)?;
        if let Some(config) = configs.get(&key.integration) {
            stored.issued_at = config.complete(stored.issued_at);
        }
        let (headers, value) = self.sealed_connection(&key, stored)?;
        Ok(Some(Write::Put { headers, value }))
    }
}

struct Done {
    sealed: bool,
    unreadable: Option<String>,
}
