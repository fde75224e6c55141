//! The keyring: seals values at rest and opens them; opens what was sealed to the workers on the bus.
//!
//! Sealed form: `v1.<key id>.<base64url(nonce ‖ ciphertext)>`, XChaCha20-Poly1305 with a random nonce of 192 bits.
//! The place a value belongs to is its associated data: moved to another place it does not open.

mod file;
mod source;

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use self::file::KeyFile;
pub use self::file::generate;
pub(crate) use self::file::{add, promote};
pub(crate) use self::source::KeyringError;
use self::source::Source;
use crate::secret::Secret;
use crate::{config, system};

const VERSION: &str = "v1";
const NONCE: usize = 24;

/// Where a sealed value belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealContext<'a> {
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

impl SealContext<'_> {
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
    #[error("sealed with key `{0}`, which is not in the keyring; put it back there, behind the others")]
    MissingKey(String),
    /// Changed, or moved from where it was sealed.
    #[error("sealed value does not open: it was changed or belongs elsewhere")]
    Forged,
}

/// Sealing keys, the first of which seals while all open, and the workers' curve key. The sealing keys can be changed
/// while it is in use.
pub struct Keyring {
    source: Source,
    keys: ArcSwap<Vec<SealingKey>>,
    curve: nkeys::XKey,
}

#[derive(Clone)]
struct SealingKey {
    id: String,
    cipher: Arc<XChaCha20Poly1305>,
}

impl Keyring {
    /// Reads the keyring from wherever the settings say.
    ///
    /// # Errors
    /// [`KeyringError`] when there is none, more than one place is set or it is not valid.
    pub async fn load(settings: &config::Secrets) -> Result<Self, KeyringError> {
        Self::from(Source::of(settings)?).await
    }

    async fn from(source: Source) -> Result<Self, KeyringError> {
        let text = source.read().await?;
        Self::parse(&source, &text)
    }

    fn parse(source: &Source, text: &str) -> Result<Self, KeyringError> {
        let KeyFile { curve_seed, key } = file::parse(text).map_err(|reason| source.invalid(reason))?;
        let keys = key.iter().map(|entry| {
            let cipher = Arc::new(entry.cipher()?);
            Ok(SealingKey { id: entry.id.clone(), cipher })
        });
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|reason| source.invalid(reason))?;
        let curve = nkeys::XKey::from_seed(curve_seed.expose())
            .map_err(|_| source.invalid("curve_seed is not an nkeys curve seed (SX…)"))?;
        Ok(Self { source: source.clone(), keys: ArcSwap::from_pointee(keys), curve })
    }

    /// Whether it comes from a file, which may change at any time.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Whether it comes from a file that all users of this machine can read.
    #[must_use]
    pub fn is_open_to_all(&self) -> bool {
        matches!(&self.source, Source::File(path) if source::is_open_to_all(path))
    }

    /// Reads the keyring again from where it came from.
    ///
    /// # Errors
    /// [`KeyringError`] as [`Keyring::load`], and when the curve key is another one: commands on the queue are sealed to
    /// the old one, so all workers have to be stopped for that.
    pub async fn read_again(&self) -> Result<Self, KeyringError> {
        let newer = Self::from(self.source.clone()).await?;
        self.is_of_same_curve(&newer)?;
        Ok(newer)
    }

    fn is_of_same_curve(&self, newer: &Self) -> Result<(), KeyringError> {
        if newer.seal_to() == self.seal_to() {
            return Ok(());
        }
        Err(self.source.invalid("curve_seed is another one than before: that needs a restart of all workers"))
    }

    /// Seals with the first key of the other keyring from here on, and opens with all of its keys.
    pub fn reload(&self, newer: &Self) {
        self.keys.store(newer.keys.load_full());
    }

    /// Ids of the keys, the sealing one first.
    #[must_use]
    pub fn key_ids(&self) -> Vec<String> {
        self.keys.load().iter().map(|key| key.id.clone()).collect()
    }

    /// Whether a sealed value is sealed with the key that seals now.
    #[must_use]
    pub fn is_current(&self, sealed: &str) -> bool {
        self.keys.load().first().is_some_and(|first| key_id(sealed) == Some(&first.id))
    }

    fn key(&self, id: &str) -> Option<SealingKey> {
        self.keys.load().iter().find(|key| key.id == id).cloned()
    }

    /// Looks into the file for a key that was added to it since. It opens from here on; which key seals stays as it is,
    /// because that is noted down before it is so.
    fn learn(&self, id: &str) -> Option<SealingKey> {
        let Source::File(path) = &self.source else { return None };
        // Small, and read when a key is missing, which no flow of requests brings about.
        let newer = Self::parse(&self.source, &source::read_file(path).ok()?).ok()?;
        self.is_of_same_curve(&newer).ok()?;
        let found = newer.key(id)?;
        self.keys.rcu(|keys| {
            let mut all = Vec::clone(keys);
            if all.iter().all(|key| key.id != id) {
                all.push(found.clone());
            }
            all
        });
        Some(found)
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
    pub fn seal(&self, context: SealContext<'_>, value: &Secret) -> Result<String, SealError> {
        let keys = self.keys.load();
        let SealingKey { id, cipher } = keys.first().ok_or(SealError::Form)?;
        let nonce = system::random::<NONCE>();
        let payload = Payload { msg: value.expose().as_bytes(), aad: &context.associated_data() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Form)?;
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed);
        Ok(format!("{VERSION}.{id}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens a value at its place.
    ///
    /// # Errors
    /// [`SealError`] saying whether the form, the key or the value is wrong.
    pub fn open(&self, context: SealContext<'_>, sealed: &str) -> Result<Secret, SealError> {
        let (id, text) = split(sealed).ok_or(SealError::Form)?;
        let key = self.key(id).or_else(|| self.learn(id)).ok_or_else(|| SealError::MissingKey(printable_key_id(id)))?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Form)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(SealError::Form)?;
        let payload = Payload { msg: sealed, aad: &context.associated_data() };
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Forged)?;
        String::from_utf8(opened).map(Secret::new).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            SealError::Forged
        })
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

/// Id of the key that a value was sealed with.
#[must_use]
pub(crate) fn key_id(sealed: &str) -> Option<&str> {
    split(sealed).map(|(id, _)| id)
}

fn split(sealed: &str) -> Option<(&str, &str)> {
    sealed.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')
}

fn is_key_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn printable_key_id(id: &str) -> String {
    if is_key_id(id) { id.to_owned() } else { "?".to_owned() }
}

#[cfg(test)]
mod tests;
