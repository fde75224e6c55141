//! Orders that workers send to workers: sealed by the workers' curve key to itself, in the form of nkeys (`xkv1`).
//!
//! Sealing and opening begin with a curve operation, which takes ten times as long as the rest. Here its result is always the
//! same, so it is kept.

use crypto_box::aead::Aead as _;
use crypto_box::{SalsaBox, SecretKey};
use zeroize::Zeroizing;

use super::SealError;
use super::cipher::NONCE_BYTES;
use crate::secret::Secret;
use crate::system;

/// First bytes of a sealed order.
const VERSION: &[u8; 4] = b"xkv1";

/// The secret that the curve key shares with itself. Wiped when dropped.
pub(super) struct OwnBox(SalsaBox);

impl OwnBox {
    pub(super) fn of(curve_seed: &Secret) -> Result<Self, nkeys::error::Error> {
        let seed = Zeroizing::new(nkeys::decode_seed(curve_seed.expose())?.1);
        let key = SecretKey::from_bytes(*seed);
        Ok(Self(SalsaBox::new(&key.public_key(), &key)))
    }

    pub(super) fn seal(&self, order: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = system::random::<NONCE_BYTES>();
        // The cipher's errors say nothing, so that they help no attacker.
        let sealed = self.0.encrypt(&nonce.into(), order).map_err(|_| SealError::TooLarge)?;
        Ok([&VERSION[..], &nonce, &sealed].concat())
    }

    pub(super) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealed = sealed.strip_prefix(VERSION).ok_or(SealError::Form)?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Form)?;
        self.0.decrypt(nonce.into(), sealed).map_err(|_| SealError::Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_orders_are_those_of_the_curve_key() {
        let key = nkeys::XKey::new();
        let own = OwnBox::of(&Secret::new(key.seed().unwrap())).unwrap();
        assert_eq!(own.open(&key.seal(b"order", &key).unwrap()).unwrap(), b"order");
        let sealed = own.seal(b"order").unwrap();
        assert_eq!(key.open(&sealed, &key).unwrap(), b"order");
        assert!(own.open(&nkeys::XKey::new().seal(b"order", &key).unwrap()).is_err());
        assert!(own.open(&sealed[1..]).is_err() && own.open(&sealed[..20]).is_err() && own.open(b"").is_err());
    }
}
