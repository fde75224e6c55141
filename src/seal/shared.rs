//! Keys that a gateway and the workers share: of a session for calls, and of one command for its answer.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Keyring, SealError, cipher, seal_order};
use crate::secret::Secret;
use crate::system;

/// Length of the key, in bytes.
const KEY_BYTES: usize = 32;

/// A random key of 256 bits. It is wiped when dropped, and never printed.
#[derive(Clone)]
pub struct SharedKey(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl SharedKey {
    #[must_use]
    pub fn random() -> Self {
        Self(Zeroizing::new(system::random()))
    }

    /// The key as text, for the sealed part of an order.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        Secret::new(BASE64_URL_SAFE_NO_PAD.encode(*self.0))
    }

    pub fn parse(text: &Secret) -> Result<Self, SealError> {
        Self::from_bytes(&Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(text.expose())?))
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let Ok(key) = bytes.try_into() else { return Err(SealError::Form) };
        Ok(Self(Zeroizing::new(key)))
    }

    /// Seals the key to the workers' public curve key. Only they can open it.
    pub(crate) fn for_workers(&self, seal_to: &str) -> Result<String, SealError> {
        let (sealed, sender) = seal_order(seal_to, &*self.0)?;
        Ok(format!("{sender}.{sealed}"))
    }

    /// Seals a message that opens only with the same associated data.
    pub fn seal(&self, associated_data: &[u8], message: &[u8]) -> Result<String, SealError> {
        cipher::seal(&self.cipher(), associated_data, message).map(|sealed| BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }

    pub fn open(&self, associated_data: &[u8], sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        cipher::open(&self.cipher(), associated_data, sealed)
    }

    /// Derives 256 bits that only holders of this key can compute, always the same for the same purpose.
    pub(crate) fn derive(&self, purpose: &str) -> Result<[u8; 32], SealError> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.0) else { return Err(SealError::Form) };
        mac.update(purpose.as_bytes());
        Ok(mac.finalize().into_bytes().into())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl Keyring {
    /// Opens a session key that a gateway sealed to these workers.
    pub(crate) fn open_session(&self, sealed: &str) -> Result<SharedKey, SealError> {
        let (sender, sealed) = sealed.split_once('.').ok_or(SealError::Form)?;
        SharedKey::from_bytes(&self.open_order(sender, sealed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h6_a_message_opens_only_with_its_key_and_its_data() {
        let key = SharedKey::random();
        let sealed = key.seal(b"call\0token", b"message").unwrap();
        assert_eq!(&*key.open(b"call\0token", &sealed).unwrap(), b"message");
        assert!(key.open(b"answer\0token", &sealed).is_err());
        assert!(SharedKey::random().open(b"call\0token", &sealed).is_err());
        assert!(key.open(b"call\0token", &sealed[..sealed.len() - 4]).is_err());
        assert_ne!(key.seal(b"call\0token", b"message").unwrap(), sealed);
        let same = SharedKey::parse(&key.to_text()).unwrap();
        assert_eq!(&*same.open(b"call\0token", &sealed).unwrap(), b"message");
        assert_eq!(same.derive("state").unwrap(), key.derive("state").unwrap());
        assert_ne!(key.derive("other").unwrap(), key.derive("state").unwrap());
        assert_eq!(format!("{key:?}"), "[redacted]");
    }
}
