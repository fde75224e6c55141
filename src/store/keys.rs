//! The list of sealing keys in use.
//!
//! A key is listed before it seals anything, and stays listed until rotation has re-sealed everything. A process whose
//! keyring lacks a listed key does not start, so no process runs that cannot open what is stored.

use std::collections::BTreeSet;

use async_nats::HeaderMap;

use super::{Store, StoreError, json, parse};
use crate::jetstream::kv::{self, Change, Entry, Write};
use crate::subject::{META, META_KEYS};

impl Store {
    /// Checks that the keyring has every key in use, and lists its sealing key.
    ///
    /// # Errors
    /// [`StoreError::MissingKey`] if the keyring lacks a key in use.
    pub(crate) async fn claim_keys(&self) -> Result<(), StoreError> {
        match self.claim(&self.keyring.key_ids()).await {
            // While this process waited for NATS, an operator may have added the key, and another worker begun to seal with it.
            Err(StoreError::MissingKey(_)) => self.reload_keys().await.map(drop),
            claimed => claimed,
        }
    }

    /// Reads the keyring again and switches to it. Returns the sealing key if the keyring has changed.
    ///
    /// # Errors
    /// If the keyring cannot be read or lacks a key in use; the old one then stays.
    pub(crate) async fn reload_keys(&self) -> Result<Option<String>, StoreError> {
        let newer = self.keyring.read_again().await?;
        // Claim the keys even if none has changed: a rotation that did not reach this worker may have removed its key
        // from the list.
        self.claim(&newer.key_ids()).await?;
        if newer.key_ids() == self.keyring.key_ids() {
            return Ok(None);
        }
        self.keyring.reload(&newer);
        Ok(newer.key_ids().into_iter().next())
    }

    async fn claim(&self, held: &[String]) -> Result<(), StoreError> {
        let Some(sealing) = held.first() else { return Ok(()) };
        kv::update(&self.nats, META, META_KEYS, |entry| {
            let mut used = listed(entry)?;
            if let Some(missing) = used.iter().find(|id| !held.contains(id)) {
                return Err(StoreError::MissingKey(missing.clone()));
            }
            if used.contains(sealing) {
                return Ok(Change::Keep(()));
            }
            used.push(sealing.clone());
            Ok(Change::Write(list(&used)?, ()))
        })
        .await
    }

    pub(crate) async fn keys_in_use(&self) -> Result<Vec<String>, StoreError> {
        listed(kv::get(&self.nats, META, META_KEYS).await?.as_ref())
    }

    /// Removes keys from the list, because nothing is sealed with them any more. Returns those that were listed.
    pub(super) async fn retire_keys(&self, unused: &BTreeSet<String>) -> Result<Vec<String>, StoreError> {
        kv::update(&self.nats, META, META_KEYS, |entry| {
            let (retired, used): (Vec<_>, Vec<_>) = listed(entry)?.into_iter().partition(|id| unused.contains(id));
            Ok(if retired.is_empty() { Change::Keep(retired) } else { Change::Write(list(&used)?, retired) })
        })
        .await
    }
}

fn listed(entry: Option<&Entry>) -> Result<Vec<String>, StoreError> {
    match entry.and_then(|entry| entry.value.as_ref()) {
        Some(value) => parse(META, META_KEYS, value),
        None => Ok(Vec::new()),
    }
}

fn list(used: &[String]) -> Result<Write, StoreError> {
    Ok(Write::Put { headers: HeaderMap::new(), value: json(&used)? })
}
