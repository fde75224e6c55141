//! Deletion markers of connections and configs.
//!
//! A marker stays in the bucket until its key is written again, because nothing else makes a deletion last: a nats-server that was
//! killed finds again what a newer message of the same subject had replaced, if that newer message was purged or expired. It
//! finds nothing older than a message that is still there.
//!
//! A marker holds the sequence of the deletion's record, so that a late write of an older record does not bring that back.

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::{Store, StoreError, json, parse};
use crate::jetstream::kv::{self, Write};
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{CONNECTIONS, ConnectionKey};

/// Body of a marker.
#[derive(Debug, Serialize, Deserialize)]
struct Deletion {
    /// Stream sequence of the record.
    sequence: u64,
    /// Opens to an empty text, which proves that a worker wrote the marker for this key.
    sealed: String,
}

impl Store {
    pub(super) fn deletion(&self, bucket: &str, key: &str, sequence: u64) -> Result<Write, StoreError> {
        let sealed = self.seal_whole(context(bucket, key, sequence), &Secret::default())?;
        Ok(Write::Delete { headers: HeaderMap::new(), body: json(&Deletion { sequence, sealed })? })
    }

    /// Checks that a worker wrote the marker.
    pub(super) fn check_deletion(&self, bucket: &str, marker: &kv::Entry) -> Result<(), StoreError> {
        let Deletion { sequence, sealed } = parse(bucket, &marker.key, &marker.payload)?;
        self.open_whole(context(bucket, &marker.key, sequence), &sealed, &Map::new()).map(drop)
    }

    /// Returns true if a newer deletion of the connection than the record with this sequence is marked. Then the record's tombstone
    /// has expired, and a killed server has brought the record back.
    pub(crate) async fn was_deleted_after(&self, key: &ConnectionKey, sequence: u64) -> Result<bool, StoreError> {
        let found = kv::get(&self.nats, CONNECTIONS, &key.kv_key()).await?;
        let Some(marker) = found.filter(|found| found.value.is_none()) else { return Ok(false) };
        match self.check_deletion(CONNECTIONS, &marker) {
            Err(error) if error.is_junk() => Ok(false),
            checked => {
                checked?;
                let Deletion { sequence: deleted, .. } = parse(CONNECTIONS, &marker.key, &marker.payload)?;
                Ok(deleted > sequence)
            }
        }
    }

    /// Seals a marker again. Returns `None` if it is sealed with the current key.
    pub(super) fn resealed_deletion(&self, bucket: &str, marker: &kv::Entry) -> Result<Option<Write>, StoreError> {
        let Deletion { sequence, sealed } = parse(bucket, &marker.key, &marker.payload)?;
        if self.keyring.is_current(&sealed) {
            return Ok(None);
        }
        self.check_deletion(bucket, marker)?;
        self.deletion(bucket, &marker.key, sequence).map(Some)
    }
}

fn context<'a>(bucket: &'a str, key: &'a str, sequence: u64) -> SealContext<'a> {
    SealContext { bucket, key, field: "deletion", sequence, bound_to: "" }
}
