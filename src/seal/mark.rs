//! Marks: keyed hashes by which workers see that two values are equal, without storing the values.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Separates the key of marks from the key that seals.
const PURPOSE: &[u8] = b"tokenbus mark";

#[derive(Clone)]
pub(super) struct MarkKey(Zeroizing<Vec<u8>>);

impl MarkKey {
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Zeroizing::new(hmac_sha256(secret, PURPOSE)))
    }

    pub(super) fn mark(&self, text: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(hmac_sha256(&self.0, text.as_bytes()))
    }
}

pub(super) fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    // Never fails: HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}
