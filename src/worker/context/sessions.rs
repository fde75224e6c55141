//! Sessions of gateways that this worker has opened, so that a call costs no curve operation.

use std::time::Duration;

use moka::sync::Cache;

use crate::seal::{Keyring, SealError, SharedKey};

/// Sessions to remember. A gateway begins one an hour; one that begins more only pushes out others, which are opened again.
const MAX_SESSIONS: u64 = 10_000;
/// Time after the last call of a session until it is forgotten. A gateway uses a session for an hour.
const IDLE: Duration = Duration::from_mins(10);
/// Longest sealed form in bytes: a public curve key, a dot, and a sealed key of 32 bytes.
const SEALED_BYTES: usize = 256;

/// Opened sessions, by their sealed form.
pub(crate) struct Sessions(Cache<String, SharedKey>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MAX_SESSIONS).time_to_idle(IDLE).build())
    }
}

impl Sessions {
    /// Returns the key of a session.
    pub(crate) fn open(&self, keyring: &Keyring, sealed: &str) -> Result<SharedKey, SealError> {
        if let Some(key) = self.0.get(sealed) {
            return Ok(key);
        }
        if sealed.len() > SEALED_BYTES {
            return Err(SealError::Form);
        }
        let key = keyring.open_session(sealed)?;
        self.0.insert(sealed.to_owned(), key.clone());
        Ok(key)
    }
}
