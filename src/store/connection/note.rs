//! The note of a failed refresh, beside the sealed connection in its entry.
//!
//! Only a sealed note can end a grant: it says that the provider has refused the grant before, or for how long refreshes have
//! failed. It is sealed for the entry's sequence, so a note of an earlier grant does not count. A note that is not sealed, or
//! does not open, only moves the next try. A note that is lost makes the provider's next refusal the first one.

use serde::{Deserialize, Serialize};
use tracing::error;

use crate::connection::RefreshFailure;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::store::{Store, StoreError, json, parse};
use crate::subject::CONNECTIONS;

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Note {
    /// A copy for operators.
    #[serde(flatten)]
    copy: RefreshFailure,
    /// Absent in notes of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

impl Store {
    pub(super) fn seal_note(&self, key: &str, sequence: u64, failure: RefreshFailure) -> Result<Note, StoreError> {
        let text = String::from_utf8_lossy(&json(&failure)?).into_owned();
        let sealed = self.seal_whole(context(key, sequence), &Secret::new(text))?;
        Ok(Note { copy: failure, sealed: Some(sealed) })
    }

    /// Also a key that is missing must not cost the connection, which has opened with another one.
    pub(super) fn open_note(&self, key: &str, sequence: u64, note: Note) -> RefreshFailure {
        let Note { copy, sealed } = note;
        let Some(sealed) = sealed else { return copy.without_history() };
        let opened = self.keyring.open(context(key, sequence), &sealed).map_err(StoreError::seal(CONNECTIONS));
        opened.and_then(|text| parse(CONNECTIONS, key, text.expose().as_bytes())).unwrap_or_else(|error| {
            error!("{key}: {error}; the note of its failed refresh only moves the next try");
            copy.without_history()
        })
    }

    /// Seals a note again, unless it is sealed with the current key. Returns true if it did.
    pub(super) fn reseal_note(&self, key: &str, sequence: u64, note: &mut Option<Note>) -> Result<bool, StoreError> {
        let is_old = |note: &Note| note.sealed.as_ref().is_some_and(|sealed| !self.keyring.is_current(sealed));
        let Some(old) = note.clone().filter(is_old) else { return Ok(false) };
        *note = Some(self.seal_note(key, sequence, self.open_note(key, sequence, old))?);
        Ok(true)
    }
}

fn context(key: &str, sequence: u64) -> SealContext<'_> {
    SealContext { bucket: CONNECTIONS, key, field: "refresh_failure", sequence, bound_to: "" }
}
