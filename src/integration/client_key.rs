//! The private key that signs client assertions (`private_key_jwt`).

use jsonwebtoken::EncodingKey;
use jsonwebtoken::errors::Error;

use super::KeyAlgorithm;
use crate::secret::Secret;

/// Reads a private key in PEM. The key must be of the algorithm's kind.
pub(crate) fn signing_key(algorithm: KeyAlgorithm, pem: &Secret) -> Result<EncodingKey, Error> {
    let pem = pem.expose().as_bytes();
    match algorithm {
        KeyAlgorithm::RS256 => EncodingKey::from_rsa_pem(pem),
        KeyAlgorithm::ES256 => EncodingKey::from_ec_pem(pem),
        KeyAlgorithm::EdDSA => EncodingKey::from_ed_pem(pem),
    }
}
