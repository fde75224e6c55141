//! Keys that a gateway and the workers share: of a session for calls, and of one command for its answer.
//!
//! XChaCha20-Poly1305 with a random nonce of 192 bits each, so one key seals any number of messages.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Keyring, NONCE_BYTES, SealError, seal_order};
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
        let nonce = system::random::<NONCE_BYTES>();
        let payload = Payload { msg: message, aad: associated_data };
        // The cipher's errors say nothing, so that they help no attacker.
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::TooLarge)?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    pub fn open(&self, associated_data: &[u8], sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Form)?;
        let payload = Payload { msg: sealed, aad: associated_data };
        // The same holds for an error of opening.
        let opened = self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Forged)?;
        Ok(Zeroizing::new(opened))
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
