//! The keyring. It seals values at rest, and opens commands that were sealed to the workers on the bus.
//!
//! Sealed form: `v1.<key id>.<base64url(nonce ‖ ciphertext)>`, XChaCha20-Poly1305 with a random nonce of 192 bits. The
//! [`SealContext`] is associated data: a sealed value that was moved to another key, field or config does not open.
//!
//! The first key seals, and every key opens. The keys can be reloaded while the keyring is in use. The curve key
//! cannot: commands on the queue are sealed to it.

pub(crate) mod backup;
mod cipher;
mod file;
mod mark;
mod own;
mod shared;
mod source;

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::XChaCha20Poly1305;
use fail::fail_point;
use zeroize::Zeroizing;

use self::backup::BackupSecret;
pub use self::file::generate;
use self::file::{InvalidKeyring, KeyFile};
pub(crate) use self::file::{add, promote};
use self::mark::MarkKey;
use self::own::OwnBox;
pub use self::shared::SharedKey;
pub(crate) use self::source::KeyringError;
use self::source::Source;
use crate::config;
use crate::secret::Secret;

const VERSION: &str = "v1";

/// What a sealed value is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealContext<'a> {
    /// Bucket or stream.
    pub bucket: &'a str,
    /// Key or subject.
    pub key: &'a str,
    pub field: &'a str,
    /// Stream sequence of the record; 0 if there is no record, or if its sequence is not known yet.
    pub sequence: u64,
    /// Anything else that the value must stay together with: a config's token endpoint and client id.
    pub bound_to: &'a str,
}

impl SealContext<'_> {
    fn associated_data(&self) -> Vec<u8> {
        let Self { bucket, key, field, sequence, bound_to } = *self;
        [bucket, key, field, &sequence.to_string(), bound_to].join("\0").into_bytes()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("not a sealed value of a known version")]
    Form,
    #[error("not a sealed value: {0}")]
    Encoding(#[from] base64::DecodeError),
    #[error("sealed with key `{0}`, which is not in the keyring; put it back there after the others")]
    MissingKey(String),
    /// Changed, or moved to another context.
    #[error("sealed value does not open: it was changed or moved")]
    Forged,
    #[error("the value is too large to be sealed")]
    TooLarge,
    #[error("the order was not sealed by its sender to these workers: {0}")]
    Order(#[source] nkeys::error::Error),
    /// Not a public curve key, or not able to seal.
    #[error("curve key: {0}")]
    CurveKey(#[from] nkeys::error::Error),
}

pub struct Keyring {
    source: Source,
    keys: ArcSwap<Vec<SealingKey>>,
    curve: nkeys::XKey,
    own: OwnBox,
    seal_to: String,
}

#[derive(Clone)]
struct SealingKey {
    id: String,
    cipher: Arc<XChaCha20Poly1305>,
    marks: MarkKey,
    backups: BackupSecret,
}

impl Keyring {
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
            let (marks, backups) = (entry.mark_key()?, entry.backup_secret()?);
            Ok(SealingKey { id: entry.id.clone(), cipher, marks, backups })
        });
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|reason| source.invalid(reason))?;
        let curve = nkeys::XKey::from_seed(curve_seed.expose())
            .map_err(|error| source.invalid(InvalidKeyring::CurveSeed(error)))?;
        let own = OwnBox::of(&curve_seed).map_err(|error| source.invalid(InvalidKeyring::CurveSeed(error)))?;
        let seal_to = curve.public_key();
        Ok(Self { source: source.clone(), keys: ArcSwap::from_pointee(keys), curve, own, seal_to })
    }

    /// Returns true if the keyring comes from a file. Only a file is looked at again without a signal.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Returns true if the keyring comes from a file that all users of this machine can read.
    #[must_use]
    pub fn is_open_to_all(&self) -> bool {
        matches!(&self.source, Source::File(path) if source::is_open_to_all(path))
    }

    /// Reads the keyring again from its source.
    ///
    /// # Errors
    /// Also if the curve key has changed: commands on the queue are sealed to the old one, so a change needs a restart
    /// of all workers.
    pub(crate) async fn read_again(&self) -> Result<Self, KeyringError> {
        let newer = Self::from(self.source.clone()).await?;
        self.check_curve(&newer)?;
        Ok(newer)
    }

    fn check_curve(&self, newer: &Self) -> Result<(), KeyringError> {
        if newer.seal_to() == self.seal_to() {
            return Ok(());
        }
        Err(self.source.invalid(InvalidKeyring::OtherCurveSeed))
    }

    /// Replaces the sealing keys by those of the newer keyring.
    pub fn reload(&self, newer: &Self) {
        self.keys.store(newer.keys.load_full());
    }

    /// Returns the ids of the keys, the sealing one first.
    #[must_use]
    pub fn key_ids(&self) -> Vec<String> {
        self.keys.load().iter().map(|key| key.id.clone()).collect()
    }

    /// Returns true if a value is sealed with the sealing key.
    #[must_use]
    pub fn is_current(&self, sealed: &str) -> bool {
        self.keys.load().first().is_some_and(|first| key_id(sealed) == Some(&first.id))
    }

    fn cipher(&self, id: &str) -> Option<Arc<XChaCha20Poly1305>> {
        self.keys.load().iter().find(|key| key.id == id).map(|key| Arc::clone(&key.cipher))
    }

    fn key(&self, id: &str) -> Option<SealingKey> {
        self.keys.load().iter().find(|key| key.id == id).cloned()
    }

    /// Looks for a key that was added to the file since. Such a key only opens: a key must be listed as in use before
    /// it seals.
    fn learn(&self, id: &str) -> Option<SealingKey> {
        let Source::File(path) = &self.source else { return None };
        // Reads in place: the file is small, and callers cannot cause a missing key.
        let newer = Self::parse(&self.source, &source::read_file(path).ok()?).ok()?;
        self.check_curve(&newer).ok()?;
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

    /// Returns the public curve key that commands are sealed to.
    #[must_use]
    pub fn seal_to(&self) -> &str {
        &self.seal_to
    }

    /// # Errors
    /// [`SealError::TooLarge`] if the value is too large for the cipher. All values are limited to far less.
    pub fn seal(&self, context: SealContext<'_>, value: &Secret) -> Result<String, SealError> {
        fail_point!("later_release", |_| self.seal_text(context, &crate::failpoint::of_later_release(value)));
        self.seal_text(context, value)
    }

    fn seal_text(&self, context: SealContext<'_>, value: &Secret) -> Result<String, SealError> {
        let keys = self.keys.load();
        let SealingKey { id, cipher, .. } = keys.first().ok_or(SealError::Form)?;
        let sealed = cipher::seal(cipher, &context.associated_data(), value.expose().as_bytes())?;
        Ok(format!("{VERSION}.{id}.{}", BASE64_URL_SAFE_NO_PAD.encode(sealed)))
    }

    pub fn open(&self, context: SealContext<'_>, sealed: &str) -> Result<Secret, SealError> {
        let (id, text) = split(sealed).ok_or(SealError::Form)?;
        let cipher = self.cipher(id).or_else(|| self.learn(id).map(|key| key.cipher));
        let cipher = cipher.ok_or_else(|| SealError::MissingKey(printable_key_id(id)))?;
        let mut opened = cipher::open(&cipher, &context.associated_data(), text)?;
        String::from_utf8(std::mem::take(&mut *opened)).map(Secret::new).map_err(|error| {
            // The error holds the opened value: wipe it.
            drop(Zeroizing::new(error.into_bytes()));
            SealError::Forged
        })
    }

    /// Returns the marks of a text, by each key, that of the sealing key first. Two texts are equal if they share a mark.
    #[must_use]
    pub(crate) fn marks(&self, text: &str) -> Vec<String> {
        self.keys.load().iter().map(|key| format!("{}.{}", key.id, key.marks.mark(text))).collect()
    }

    /// Seals a worker's own order to the workers. Returns the sealed order and the sender's public key.
    pub(crate) fn seal_own_order(&self, order: &[u8]) -> Result<(String, String), SealError> {
        Ok((BASE64_URL_SAFE_NO_PAD.encode(self.own.seal(order)?), self.seal_to.clone()))
    }

    /// Opens an order, and proves that this sender sealed it to these workers.
    pub(crate) fn open_order(&self, sender: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed)?;
        if sender == self.seal_to {
            return self.own.open(&bytes).map(Zeroizing::new);
        }
        let sender = nkeys::XKey::from_public_key(sender)?;
        self.curve.open(&bytes, &sender).map(Zeroizing::new).map_err(SealError::Order)
    }
}

/// Seals an order to the workers' public curve key. Uses a new sender key and drops it, so that the sender itself
/// cannot open the order. Returns the sealed order and the sender's public key.
pub fn seal_order(seal_to: &str, order: &[u8]) -> Result<(String, String), SealError> {
    let workers = nkeys::XKey::from_public_key(seal_to)?;
    let sender = nkeys::XKey::new();
    let sealed = sender.seal(order, &workers)?;
    Ok((BASE64_URL_SAFE_NO_PAD.encode(sealed), sender.public_key()))
}

/// Returns the id of the key that a value is sealed with.
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
