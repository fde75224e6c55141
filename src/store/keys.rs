//! Which sealing keys are in use: noted down before a key seals anything, so that no process starts without it.

use std::collections::BTreeSet;

use super::{Store, StoreError, json, parse};
use crate::jetstream::{NatsError, kv};
use crate::subject::{META, META_KEYS};

impl Store {
    /// Checks that the keyring opens what is stored, and notes down the sealing key before it is used.
    ///
    /// # Errors
    /// [`StoreError::MissingKey`] naming a key in use that is not in the keyring.
    pub async fn claim_keys(&self) -> Result<(), StoreError> {
        self.claim(&self.keyring.key_ids()).await
    }

    /// Reads the keyring again and, if it has changed, goes on with what is there now. Gives the key that seals from
    /// here on.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or lacks a key in use; the one from before stays.
    pub async fn take_up_keys(&self) -> Result<Option<String>, StoreError> {
        let newer = self.keyring.read_again().await?;
        // Also of what has not changed: whoever seals with a key has it noted down again, should it have been taken out.
        self.claim(&newer.key_ids()).await?;
        if newer.key_ids() == self.keyring.key_ids() {
            return Ok(None);
        }
        self.keyring.reload(&newer);
        Ok(newer.key_ids().into_iter().next())
    }

    async fn claim(&self, held: &[String]) -> Result<(), StoreError> {
        let Some(sealing) = held.first() else { return Ok(()) };
        loop {
            let (mut used, revision) = self.keys_in_use().await?;
            if let Some(missing) = used.iter().find(|id| !held.contains(id)) {
                return Err(StoreError::MissingKey(missing.clone()));
            }
            if used.contains(sealing) {
                return Ok(());
            }
            used.push(sealing.clone());
            match kv::put(&self.nats, META, META_KEYS, json(&used)?, revision).await {
                Err(NatsError::WrongLastSequence) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// Ids of the keys that stored values need, and the revision of that note.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keys_in_use(&self) -> Result<(Vec<String>, u64), StoreError> {
        let entry = kv::get(&self.nats, META, META_KEYS).await?;
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let used = match entry.and_then(|entry| entry.value) {
            Some(value) => parse(META, META_KEYS, &value)?,
            None => Vec::new(),
        };
        Ok((used, revision))
    }

    /// Notes down that of these keys nothing is sealed with any more. Gives those that were noted before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retire_keys(&self, unused: &BTreeSet<String>) -> Result<Vec<String>, StoreError> {
        loop {
            let (used, revision) = self.keys_in_use().await?;
            let (retired, used): (Vec<_>, Vec<_>) = used.into_iter().partition(|id| unused.contains(id));
            if retired.is_empty() {
                return Ok(retired);
            }
            match kv::put(&self.nats, META, META_KEYS, json(&used)?, revision).await {
                Err(NatsError::WrongLastSequence) => {}
                other => return Ok(other.map(|_| retired)?),
            }
        }
    }
}
