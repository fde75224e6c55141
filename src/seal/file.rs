//! The keyring's file. It is never overwritten, and each change replaces the whole file or nothing.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::aead::KeyInit as _;
use chacha20poly1305::{Key, XChaCha20Poly1305};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::backup::BackupSecret;
use super::is_key_id;
use super::mark::MarkKey;
use super::source::{KeyringError, Source, read_file};
use crate::secret::{self, Secret};
use crate::system;

/// TOML with `curve_seed` and one `[[key]]` for each sealing key. The first one seals.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    #[serde(serialize_with = "secret::in_clear")]
    pub(super) curve_seed: Secret,
    pub(super) key: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyEntry {
    pub(super) id: String,
    #[serde(serialize_with = "secret::in_clear")]
    secret: Secret,
}

impl KeyEntry {
    fn fresh() -> Self {
        let secret = Zeroizing::new(system::random::<32>());
        let id = BASE64_URL_SAFE_NO_PAD.encode(system::random::<6>()).replace(['-', '_'], "x");
        Self { id, secret: Secret::new(BASE64_URL_SAFE_NO_PAD.encode(*secret)) }
    }

    pub(super) fn cipher(&self) -> Result<XChaCha20Poly1305, InvalidKeyring> {
        let bytes = self.bytes()?;
        let key = <&Key>::try_from(bytes.as_slice()).ok();
        key.map(XChaCha20Poly1305::new).ok_or(InvalidKeyring::Secret)
    }

    pub(super) fn mark_key(&self) -> Result<MarkKey, InvalidKeyring> {
        self.bytes().map(|bytes| MarkKey::of(&bytes))
    }

    pub(super) fn backup_secret(&self) -> Result<BackupSecret, InvalidKeyring> {
        self.bytes().map(|bytes| BackupSecret::of(&bytes))
    }

    fn bytes(&self) -> Result<Zeroizing<Vec<u8>>, InvalidKeyring> {
        // The decoder's error quotes a character of the secret.
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(self.secret.expose()).ok();
        bytes.map(Zeroizing::new).ok_or(InvalidKeyring::Secret)
    }
}

/// An invalid keyring, or an impossible change of one. Holds no key material, and no cause that could quote some.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeyring {
    #[error("it is not the TOML that `tokenbus keys generate` writes")]
    Toml,
    #[error("it has no [[key]]")]
    NoKey,
    #[error("a key's id must be 1 to 32 letters or digits")]
    KeyId,
    #[error("two keys have the same id")]
    DuplicateId,
    #[error("a key's secret must be 32 bytes in base64url")]
    Secret,
    #[error("curve_seed is not an nkeys curve seed (SX…): {0}")]
    CurveSeed(#[source] nkeys::error::Error),
    #[error("curve_seed has changed: that needs a restart of all workers")]
    OtherCurveSeed,
    #[error("it has no key with that id")]
    UnknownId,
    #[error("no curve key could be created: {0}")]
    Create(#[source] nkeys::error::Error),
    #[error("it could not be written as TOML: {0}")]
    Write(#[from] toml::ser::Error),
}

pub(super) fn parse(text: &str) -> Result<KeyFile, InvalidKeyring> {
    // The parser's error quotes the line at fault, which may be a secret.
    let Ok(file) = toml::from_str::<KeyFile>(text) else { return Err(InvalidKeyring::Toml) };
    if file.key.is_empty() {
        return Err(InvalidKeyring::NoKey);
    }
    if !file.key.iter().all(|key| is_key_id(&key.id)) {
        return Err(InvalidKeyring::KeyId);
    }
    let mut ids: Vec<&str> = file.key.iter().map(|key| key.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() == file.key.len() { Ok(file) } else { Err(InvalidKeyring::DuplicateId) }
}

/// Returns the text of a new keyring, and its key's id.
pub(super) fn fresh() -> Result<(Zeroizing<String>, String), InvalidKeyring> {
    let curve_seed = nkeys::XKey::new().seed().map_err(InvalidKeyring::Create)?;
    let entry = KeyEntry::fresh();
    let id = entry.id.clone();
    let file = KeyFile { curve_seed: Secret::new(curve_seed), key: vec![entry] };
    Ok((text(&file)?, id))
}

fn text(file: &KeyFile) -> Result<Zeroizing<String>, InvalidKeyring> {
    Ok(Zeroizing::new(toml::to_string(file)?))
}

/// Creates a keyring with one key, in a new file that only its owner can read. Returns the key's id.
///
/// # Errors
/// Also if the file exists: it is never overwritten, because values sealed with its keys would be lost.
pub fn generate(path: &Path) -> Result<String, KeyringError> {
    let source = Source::File(path.to_owned());
    let (text, id) = fresh().map_err(|reason| source.invalid(reason))?;
    write_new(path, &text).map_err(|error| KeyringError::file(path, error))?;
    Ok(id)
}

/// Appends a new key to a keyring's file. It opens, and seals nothing until it is promoted. Returns its id.
///
/// # Errors
/// The file is then unchanged.
pub(crate) fn add(path: &Path) -> Result<String, KeyringError> {
    change(path, |file| {
        let entry = KeyEntry::fresh();
        let id = entry.id.clone();
        file.key.push(entry);
        Ok(id)
    })
}

/// Moves a key to the front of a keyring's file, so that it seals. Returns true if another key was first.
///
/// # Errors
/// The file is then unchanged.
pub(crate) fn promote(path: &Path, id: &str) -> Result<bool, KeyringError> {
    change(path, |file| {
        let at = file.key.iter().position(|key| key.id == id).ok_or(InvalidKeyring::UnknownId)?;
        let key = file.key.remove(at);
        file.key.insert(0, key);
        Ok(at > 0)
    })
}

fn change<T>(path: &Path, edit: impl FnOnce(&mut KeyFile) -> Result<T, InvalidKeyring>) -> Result<T, KeyringError> {
    let failed = |error| KeyringError::file(path, error);
    // A link stays a link: its target is replaced.
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let source = Source::File(path.clone());
    let folder = File::open(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    // One change at a time on this machine: two at once would lose a key.
    folder.lock().map_err(failed)?;
    let mut file = parse(&read_file(&path)?).map_err(|reason| source.invalid(reason))?;
    let edited = edit(&mut file).map_err(|reason| source.invalid(reason))?;
    let text = text(&file).map_err(|reason| source.invalid(reason))?;
    replace(&path, &text).and_then(|()| folder.sync_all()).map_err(failed)?;
    Ok(edited)
}

/// Replaces a file by a new one, which is complete and on disk before it takes the name. Keeps owner and mode.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = std::fs::metadata(path)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", system::random_id()));
    let newer = PathBuf::from(name);
    let replaced = write_new(&newer, text).and_then(|()| {
        let made = std::fs::metadata(&newer)?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::chown(&newer, Some(old.uid()), Some(old.gid()))?;
        }
        std::fs::set_permissions(&newer, private_mode(&old))?;
        std::fs::rename(&newer, path)
    });
    if replaced.is_err() {
        drop(std::fs::remove_file(&newer));
    }
    replaced
}

/// Returns the old file's mode without the permissions for all users.
fn private_mode(old: &std::fs::Metadata) -> Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    Permissions::from_mode(old.mode() & 0o770)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
