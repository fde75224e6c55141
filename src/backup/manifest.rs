//! The manifest: it names what a backup holds, and proves that a holder of the keyring wrote it.

use std::path::Path;

use async_nats::jetstream::stream::Config;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::BackupError;
use crate::seal::backup::BackupKeys;
use crate::seal::{Keyring, SealError};

/// File of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// The form that this release writes.
pub(super) const FORM: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// All streams, while workers may have run.
    Running,
    /// All streams, with all workers stopped and no command left.
    Final,
    /// The streams that `setup --rebuild` creates again.
    Rebuild,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub form: u32,
    /// Random, so that no file of one backup opens in another.
    pub id: String,
    /// The program's version.
    pub program: String,
    /// When the backup began, by this machine's clock.
    pub taken: Timestamp,
    pub kind: Kind,
    /// Id of the sealing key from which the backup's keys are derived.
    pub key: String,
    /// Ids of the keys that the stored values need.
    pub keys_in_use: Vec<String>,
    pub streams: Vec<Part>,
}

/// One stream of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub stream: String,
    /// SHA-256 of the sealed file, in base64url.
    pub sha256: String,
    /// Bytes of the sealed file.
    pub bytes: u64,
    /// Creation time of the stream, in nanoseconds.
    pub created: String,
    pub messages: u64,
    pub last_sequence: u64,
    pub config: Config,
    /// The server's own description of the state, which it wants back at a restore.
    pub state: Value,
}

/// Name of the file of a stream.
pub(super) fn file_of(stream: &str) -> String {
    format!("{stream}.sealed")
}

#[derive(Deserialize)]
struct Form {
    form: u32,
}

#[derive(Serialize, Deserialize)]
struct Signed<'a> {
    #[serde(borrow)]
    manifest: &'a RawValue,
    /// HMAC-SHA-256 of the manifest's text, in base64url.
    proof: String,
}

/// Returns the text of the manifest's file.
pub(super) fn signed(manifest: &Manifest, keys: &BackupKeys) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(manifest)?;
    let proof = BASE64_URL_SAFE_NO_PAD.encode(keys.sign(&text));
    let manifest = RawValue::from_string(text)?;
    serde_json::to_string_pretty(&Signed { manifest: &manifest, proof })
}

/// Reads a manifest, and checks that its backup's keys have signed it.
pub(super) fn parse(path: &Path, text: &str, keyring: &Keyring) -> Result<(Manifest, BackupKeys), BackupError> {
    let unreadable = || {
        let path = path.to_owned();
        move |source| BackupError::Unreadable { path, source }
    };
    let Signed { manifest: signed, proof } = serde_json::from_str(text).map_err(unreadable())?;
    let Form { form } = serde_json::from_str(signed.get()).map_err(unreadable())?;
    if form > FORM {
        return Err(BackupError::Newer { found: form });
    }
    let manifest: Manifest = serde_json::from_str(signed.get()).map_err(unreadable())?;
    let keys = keyring.backup_keys(&manifest.key, &manifest.id)?;
    let proof = BASE64_URL_SAFE_NO_PAD.decode(proof).unwrap_or_default();
    if !keys.has_signed(signed.get(), &proof) {
        return Err(BackupError::Changed(path.to_owned()));
    }
    let held = keyring.key_ids();
    match manifest.keys_in_use.iter().find(|id| !held.contains(id)) {
        Some(missing) => Err(SealError::MissingKey(missing.clone()).into()),
        None => Ok((manifest, keys)),
    }
}
