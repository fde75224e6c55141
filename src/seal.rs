//! The keyring: seals values at rest and opens them; opens what was sealed to the workers on the bus.
//!
//! Sealed form: `v1.<key id>.<base64url(nonce ‖ ciphertext)>`, XChaCha20-Poly1305 with a random nonce of 192 bits.
//! The place a value belongs to is its associated data: moved to another place it does not open.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::{self, Secret};
use crate::system;

const VERSION: &str = "v1";
const NONCE: usize = 24;

/// Where a sealed value belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Bucket or stream.
    pub bucket: &'a str,
    /// Key or subject.
    pub key: &'a str,
    /// Field.
    pub field: &'a str,
    /// Stream sequence of the record it came with; 0 where there is none.
    pub sequence: u64,
    /// What else it must not be separated from (a config's token endpoint and client id).
    pub bound_to: &'a str,
}

impl Place<'_> {
    fn associated_data(&self) -> Vec<u8> {
        let Self { bucket, key, field, sequence, bound_to } = *self;
        format!("{bucket}\0{key}\0{field}\0{sequence}\0{bound_to}").into_bytes()
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not of the sealed form.
    #[error("not a sealed value of a known version")]
    Form,
    /// Sealed with a key that is not in the keyring.
    #[error("sealed with key `{0}`, which is not in the keyring; add it to the file of `secrets.keys_file`")]
    MissingKey(String),
    /// Changed, or moved from where it was sealed.
    #[error("sealed value does not open: it was changed or belongs elsewhere")]
    Forged,
}

/// Why a keyring could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// No path is configured.
    #[error("no keyring: set `secrets.keys_file` and make one with `tokenbus keys generate`")]
    NotConfigured,
    /// The file cannot be read or written.
    #[error("keyring {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not hold a keyring.
    #[error("keyring {path} is not valid: {reason}")]
    Invalid {
        /// Its path.
        path: String,
        /// What is wrong; no key material.
        reason: &'static str,
    },
}

/// The keyring's file: TOML with `curve_seed` and one `[[key]]` for each sealing key, the first of which seals.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(serialize_with = "secret::in_clear")]
    curve_seed: Secret,
    key: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    id: String,
    #[serde(serialize_with = "secret::in_clear")]
    secret: Secret,
}

/// Sealing keys, the first of which seals while all open, and the workers' curve key.
pub struct Keyring {
    keys: Vec<(String, XChaCha20Poly1305)>,
    curve: nkeys::XKey,
}

impl Keyring {
    /// Reads a keyring's file.
    ///
    /// # Errors
    /// [`KeyringError`] when there is none or it is not valid.
    pub fn load(path: &Path) -> Result<Self, KeyringError> {
        if path.as_os_str().is_empty() {
            return Err(KeyringError::NotConfigured);
        }
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|source| file_error(path, source))?;
        Self::parse(&text).map_err(|reason| KeyringError::Invalid { path: path.display().to_string(), reason })
    }

    /// Makes a keyring with one key in a new file that only its owner can read. An existing file is left alone.
    ///
    /// # Errors
    /// [`KeyringError`] when the file exists or cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyringError> {
        let (text, keyring) =
            Self::fresh().map_err(|reason| KeyringError::Invalid { path: path.display().to_string(), reason })?;
        write_new(path, &text).map_err(|source| file_error(path, source))?;
        Ok(keyring)
    }

    fn fresh() -> Result<(Zeroizing<String>, Self), &'static str> {
        let secret = Zeroizing::new(system::random::<32>());
        let id = BASE64_URL_SAFE_NO_PAD.encode(system::random::<6>()).replace(['-', '_'], "x");
        let curve_seed = nkeys::XKey::new().seed().map_err(|_| "no curve key could be made")?;
        let entry = KeyEntry { id, secret: Secret::new(BASE64_URL_SAFE_NO_PAD.encode(*secret)) };
        let file = KeyFile { curve_seed: Secret::new(curve_seed), key: vec![entry] };
        let text = toml::to_string(&file).map(Zeroizing::new).map_err(|_| "no file could be written")?;
        let keyring = Self::parse(&text)?;
        Ok((text, keyring))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let file: KeyFile =
            toml::from_str(text).map_err(|_| "it is not the TOML that `tokenbus keys generate` writes")?;
        let keys = file
            .key
            .iter()
            .map(|entry| cipher(&entry.secret).map(|cipher| (entry.id.clone(), cipher)))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err("it holds no [[key]]");
        }
        if !keys.iter().all(|(id, _)| is_key_id(id)) {
            return Err("a key's id must be 1 to 32 letters or digits");
        }
        let curve = nkeys::XKey::from_seed(file.curve_seed.expose())
            .map_err(|_| "curve_seed is not an nkeys curve seed (SX…)")?;
        Ok(Self { keys, curve })
    }

    /// Ids of the keys, the sealing one first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// The public curve key that commands are sealed to.
    #[must_use]
    pub fn seal_to(&self) -> String {
        self.curve.public_key()
    }

    /// Seals a value for its place.
    ///
    /// # Errors
    /// [`SealError::Form`] when the value is too large for the cipher, which no capped value is.
    pub fn seal(&self, place: Place<'_>, value: &Secret) -> Result<String, SealError> {
        let (id, cipher) = self.keys.first().ok_or(SealError::Form)?;
        let nonce = system::random::<NONCE>();
        let payload = Payload { msg: value.expose().as_bytes(), aad: &place.associated_data() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Form)?;
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed);
        Ok(format!("{VERSION}.{id}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens a value at its place.
    ///
    /// # Errors
    /// [`SealError`] saying whether the form, the key or the value is wrong.
    pub fn open(&self, place: Place<'_>, sealed: &str) -> Result<Secret, SealError> {
        let (id, text) = sealed
            .strip_prefix(VERSION)
            .and_then(|rest| rest.strip_prefix('.')?.split_once('.'))
            .ok_or(SealError::Form)?;
        let cipher = self.keys.iter().find(|(known, _)| known == id).map(|(_, cipher)| cipher);
        let cipher = cipher.ok_or_else(|| SealError::MissingKey(printable_key_id(id)))?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Form)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(SealError::Form)?;
        let payload = Payload { msg: sealed, aad: &place.associated_data() };
        let opened = cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Forged)?;
        String::from_utf8(opened).map(Secret::new).map_err(|_| SealError::Forged)
    }

    /// Seals an order to the workers as one of them. Gives the sealed order and the sender's public key.
    ///
    /// # Errors
    /// [`SealError::Form`] when the curve key cannot seal.
    pub fn seal_own_order(&self, order: &[u8]) -> Result<(String, String), SealError> {
        let sealed = self.curve.seal(order, &self.curve).map_err(|_| SealError::Form)?;
        Ok((BASE64_URL_SAFE_NO_PAD.encode(sealed), self.seal_to()))
    }

    /// Opens what a sender sealed to the workers.
    ///
    /// # Errors
    /// [`SealError`] when it was not sealed to these workers by that sender.
    pub fn open_order(&self, sender: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let sender = nkeys::XKey::from_public_key(sender).map_err(|_| SealError::Form)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed).map_err(|_| SealError::Form)?;
        self.curve.open(&bytes, &sender).map(Zeroizing::new).map_err(|_| SealError::Forged)
    }
}

/// Seals an order to the workers' public curve key with a fresh sender key, which is forgotten: the sender itself
/// cannot read it back. Gives the sealed order and the sender's public key.
///
/// # Errors
/// [`SealError::Form`] when `seal_to` is no public curve key.
pub fn seal_order(seal_to: &str, order: &[u8]) -> Result<(String, String), SealError> {
    let workers = nkeys::XKey::from_public_key(seal_to).map_err(|_| SealError::Form)?;
    let sender = nkeys::XKey::new();
    let sealed = sender.seal(order, &workers).map_err(|_| SealError::Form)?;
    Ok((BASE64_URL_SAFE_NO_PAD.encode(sealed), sender.public_key()))
}

fn cipher(secret: &Secret) -> Result<XChaCha20Poly1305, &'static str> {
    let wrong = "a key's secret must be 32 bytes in base64url";
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(secret.expose()).map(Zeroizing::new).map_err(|_| wrong)?;
    let key = Key::try_from(bytes.as_slice()).map_err(|_| wrong)?;
    Ok(XChaCha20Poly1305::new(&key))
}

fn is_key_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn printable_key_id(id: &str) -> String {
    if is_key_id(id) { id.to_owned() } else { "?".to_owned() }
}

fn file_error(path: &Path, source: std::io::Error) -> KeyringError {
    KeyringError::File { path: path.display().to_string(), source }
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::fresh().unwrap().1
    }

    const PLACE: Place<'_> = Place {
        bucket: "oauth_configs",
        key: "slack",
        field: "client_secret",
        sequence: 7,
        bound_to: "https://a client",
    };

    #[test]
    fn opens_what_it_sealed() {
        let keyring = keyring();
        let sealed = keyring.seal(PLACE, &Secret::new("hush")).unwrap();
        assert!(sealed.starts_with("v1.") && !sealed.contains("hush"));
        assert_eq!(keyring.open(PLACE, &sealed).unwrap().expose(), "hush");
    }

    #[test]
    fn e1_a_sealed_value_moved_elsewhere_does_not_open() {
        let keyring = keyring();
        let sealed = keyring.seal(PLACE, &Secret::new("hush")).unwrap();
        let moved = [
            Place { bucket: "oauth_connections", ..PLACE },
            Place { key: "github", ..PLACE },
            Place { field: "client_key", ..PLACE },
            Place { sequence: 8, ..PLACE },
            Place { bound_to: "https://b client", ..PLACE },
        ];
        for place in moved {
            assert!(matches!(keyring.open(place, &sealed), Err(SealError::Forged)), "{place:?}");
        }
    }

    #[test]
    fn e2_a_missing_key_is_named() {
        let sealed = keyring().seal(PLACE, &Secret::new("hush")).unwrap();
        let id = sealed.split('.').nth(1).unwrap().to_owned();
        let error = keyring().open(PLACE, &sealed).unwrap_err();
        assert!(matches!(&error, SealError::MissingKey(missing) if *missing == id), "{error}");
    }

    #[test]
    fn broken_values_are_refused() {
        let keyring = keyring();
        let sealed = keyring.seal(PLACE, &Secret::new("hush")).unwrap();
        let mut flipped = sealed.clone();
        flipped.replace_range(sealed.len() - 2..sealed.len() - 1, if sealed.ends_with("AA") { "B" } else { "A" });
        for text in ["", "v1", "v1.", "v1..", "v2.k.AAAA", &sealed[..sealed.len() - 4]] {
            assert!(keyring.open(PLACE, text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_order_is_read_by_the_workers_alone() {
        let (workers, others) = (keyring(), keyring());
        let (sealed, sender) = seal_order(&workers.seal_to(), b"order").unwrap();
        assert_eq!(workers.open_order(&sender, &sealed).unwrap().as_slice(), b"order");
        assert!(others.open_order(&sender, &sealed).is_err());
        assert!(workers.open_order(&others.seal_to(), &sealed).is_err());
    }

    #[test]
    fn a_file_is_made_once_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let made = Keyring::generate(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = made.seal(PLACE, &Secret::new("hush")).unwrap();
        assert_eq!(Keyring::load(&path).unwrap().open(PLACE, &sealed).unwrap().expose(), "hush");
        assert!(Keyring::generate(&path).is_err());
    }
}

#[cfg(test)]
#[path = "seal/forms.rs"]
mod forms;
