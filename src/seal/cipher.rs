//! The cipher of values at rest, of calls and of answers: XChaCha20-Poly1305.
//!
//! The sealed bytes are `nonce ‖ ciphertext ‖ tag`. They are made and opened in one buffer, to spare copies. The cipher's
//! errors say nothing, so that they help no attacker.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::{AeadInOut as _, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::SealError;
use crate::system;

/// Length of the nonce, in bytes: long enough to be random, so one key seals any number of messages.
pub(super) const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Seals a message that opens only with the same associated data.
pub(super) fn seal(cipher: &XChaCha20Poly1305, associated_data: &[u8], message: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = system::random::<NONCE_BYTES>();
    let mut sealed = Vec::with_capacity(NONCE_BYTES + message.len() + TAG_BYTES);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(message);
    let (_, message) = sealed.split_at_mut(NONCE_BYTES);
    let tag = cipher.encrypt_inout_detached(&XNonce::from(nonce), associated_data, message.into());
    sealed.extend_from_slice(&tag.map_err(|_| SealError::TooLarge)?);
    Ok(sealed)
}

/// Opens sealed bytes in base64url.
pub(super) fn open(
    cipher: &XChaCha20Poly1305,
    associated_data: &[u8],
    sealed: &str,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(sealed)?);
    let (nonce, rest) = bytes.split_first_chunk_mut::<NONCE_BYTES>().ok_or(SealError::Form)?;
    let (message, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or(SealError::Forged)?;
    let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
    let opened = cipher.decrypt_inout_detached(&nonce, associated_data, message.into(), &tag);
    opened.map_err(|_| SealError::Forged)?;
    let end = bytes.len() - TAG_BYTES;
    bytes.truncate(end);
    bytes.drain(..NONCE_BYTES);
    Ok(bytes)
}
