//! The keyring's file: made once, changed as a whole or not at all.

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

use super::is_key_id;
use super::source::{KeyringError, Source, read_file};
use crate::secret::{self, Secret};
use crate::system;

/// TOML with `curve_seed` and one `[[key]]` for each sealing key, the first of which seals.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    #[serde(serialize_with = "secret::in_clear")]
    pub(super) curve_seed: Secret,
    pub(super) key: Vec<KeyEntry>,
}

/// A sealing key with its name.
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

    pub(super) fn cipher(&self) -> Result<XChaCha20Poly1305, &'static str> {
        let wrong = "a key's secret must be 32 bytes in base64url";
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(self.secret.expose()).map(Zeroizing::new).map_err(|_| wrong)?;
        let key = <&Key>::try_from(bytes.as_slice()).map_err(|_| wrong)?;
        Ok(XChaCha20Poly1305::new(key))
    }
}

/// Reads the text of a keyring. Errors say what is wrong with it and hold nothing of it.
pub(super) fn parse(text: &str) -> Result<KeyFile, &'static str> {
    let file: KeyFile = toml::from_str(text).map_err(|_| "it is not the TOML that `tokenbus keys generate` writes")?;
    if file.key.is_empty() {
        return Err("it holds no [[key]]");
    }
    if !file.key.iter().all(|key| is_key_id(&key.id)) {
        return Err("a key's id must be 1 to 32 letters or digits");
    }
    let mut ids: Vec<&str> = file.key.iter().map(|key| key.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() == file.key.len() { Ok(file) } else { Err("two keys have the same id") }
}

/// The text of a new keyring, and its key's id.
pub(super) fn fresh() -> Result<(Zeroizing<String>, String), &'static str> {
    let curve_seed = nkeys::XKey::new().seed().map_err(|_| "no curve key could be made")?;
    let entry = KeyEntry::fresh();
    let id = entry.id.clone();
    let file = KeyFile { curve_seed: Secret::new(curve_seed), key: vec![entry] };
    Ok((text(&file)?, id))
}

fn text(file: &KeyFile) -> Result<Zeroizing<String>, &'static str> {
    toml::to_string(file).map(Zeroizing::new).map_err(|_| "no file could be written")
}

/// Makes a keyring with one key in a new file that only its owner can read. An existing file is left alone. Gives the
/// key's id.
///
/// # Errors
/// [`KeyringError`] when the file exists or cannot be written.
pub fn generate(path: &Path) -> Result<String, KeyringError> {
    let source = Source::File(path.to_owned());
    let (text, id) = fresh().map_err(|reason| source.invalid(reason))?;
    write_new(path, &text).map_err(|error| KeyringError::file(path, error))?;
    Ok(id)
}

/// Puts a new key behind the others of a keyring's file: it opens, and seals nothing yet. Gives its id.
///
/// # Errors
/// [`KeyringError`] when the file cannot be read or replaced; it is then as before.
pub(crate) fn add(path: &Path) -> Result<String, KeyringError> {
    change(path, |file| {
        let entry = KeyEntry::fresh();
        let id = entry.id.clone();
        file.key.push(entry);
        Ok(id)
    })
}

/// Puts a key before the others of a keyring's file: it seals from then on. Gives whether another one did before.
///
/// # Errors
/// [`KeyringError`] when there is no such key, or the file cannot be read or replaced; it is then as before.
pub(crate) fn promote(path: &Path, id: &str) -> Result<bool, KeyringError> {
    change(path, |file| {
        let at = file.key.iter().position(|key| key.id == id).ok_or("it has no key with that id")?;
        let key = file.key.remove(at);
        file.key.insert(0, key);
        Ok(at > 0)
    })
}

fn change<T>(path: &Path, edit: impl FnOnce(&mut KeyFile) -> Result<T, &'static str>) -> Result<T, KeyringError> {
    let failed = |error| KeyringError::file(path, error);
    // A link stays a link: what it names is replaced.
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let source = Source::File(path.clone());
    let folder = File::open(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    // One at a time on this machine, or the other one's key would be lost.
    folder.lock().map_err(failed)?;
    let mut file = parse(&read_file(&path)?).map_err(|reason| source.invalid(reason))?;
    let edited = edit(&mut file).map_err(|reason| source.invalid(reason))?;
    let text = text(&file).map_err(|reason| source.invalid(reason))?;
    replace(&path, &text).and_then(|()| folder.sync_all()).map_err(failed)?;
    Ok(edited)
}

/// Replaces a file by one that is whole and on disk before it takes the name; owner and mode stay.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let there = std::fs::metadata(path)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", system::random_id()));
    let newer = PathBuf::from(name);
    let replaced = write_new(&newer, text).and_then(|()| {
        let made = std::fs::metadata(&newer)?;
        if (made.uid(), made.gid()) != (there.uid(), there.gid()) {
            std::os::unix::fs::chown(&newer, Some(there.uid()), Some(there.gid()))?;
        }
        std::fs::set_permissions(&newer, keep_from_others(&there))?;
        std::fs::rename(&newer, path)
    });
    if replaced.is_err() {
        drop(std::fs::remove_file(&newer));
    }
    replaced
}

/// The mode that the file had, without whatever let all others in.
fn keep_from_others(there: &std::fs::Metadata) -> Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    Permissions::from_mode(there.mode() & 0o770)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
