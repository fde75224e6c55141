//! Client authentication by a signed assertion (RFC 7523 §2.2 and §3).

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::RequestError;
use crate::integration::{IntegrationOauthConfig, KeyAlgorithm};
use crate::secret::Secret;

/// Seconds that an assertion is good for.
const LIFETIME: i64 = 60;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: i64,
    exp: i64,
}

/// The key in PEM, of the algorithm's kind.
pub(crate) fn signing_key(algorithm: KeyAlgorithm, pem: &Secret) -> Result<EncodingKey, RequestError> {
    let pem = pem.expose().as_bytes();
    let key = match algorithm {
        KeyAlgorithm::RS256 => EncodingKey::from_rsa_pem(pem),
        KeyAlgorithm::ES256 => EncodingKey::from_ec_pem(pem),
        KeyAlgorithm::EdDSA => EncodingKey::from_ed_pem(pem),
    };
    key.map_err(|_| RequestError::ClientKey)
}

/// An assertion for one request: `jti` must be new each time. `token_url` is the audience unless
/// the config names one.
///
/// # Errors
/// [`RequestError::ClientKey`] when there is no key, or it cannot sign.
pub(crate) fn client_assertion(
    config: &IntegrationOauthConfig,
    token_url: &str,
    now: Timestamp,
    jti: &str,
) -> Result<Secret, RequestError> {
    let pem = config.client_key.as_ref().ok_or(RequestError::ClientKey)?;
    let key = signing_key(config.client_key_alg, pem)?;
    let mut header = Header::new(match config.client_key_alg {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
    });
    header.kid.clone_from(&config.client_key_id);
    let iat = now.as_second();
    let claims = Claims {
        iss: &config.client_id,
        sub: &config.client_id,
        aud: config.client_assertion_aud.as_deref().unwrap_or(token_url),
        jti,
        iat,
        exp: iat.saturating_add(LIFETIME),
    };
    jsonwebtoken::encode(&header, &claims, &key).map(Secret::new).map_err(|_| RequestError::ClientKey)
}
