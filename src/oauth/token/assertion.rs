//! Client authentication with a signed assertion (RFC 7523 §2.2 and §3).

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;

use super::RequestError;
use crate::integration::{IntegrationOauthConfig, KeyAlgorithm, signing_key};
use crate::secret::Secret;

/// Covers the request's timeout and a small difference between the clocks. Short, because a stolen assertion is valid
/// until it expires.
const LIFETIME_SECONDS: i64 = 60;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: i64,
    exp: i64,
}

/// Signs an assertion for one request. `jti` must be unique: providers reject a repeated one. `audience`
/// counts unless the config sets another.
///
/// # Errors
/// [`RequestError::NoClientKey`] or [`RequestError::ClientKey`] if the config has no key or an unusable one.
pub(super) fn client_assertion(
    config: &IntegrationOauthConfig,
    audience: &str,
    now: Timestamp,
    jti: &str,
) -> Result<Secret, RequestError> {
    let pem = config.client_key.as_ref().ok_or(RequestError::NoClientKey)?;
    let key = signing_key(config.client_key_alg, pem)?;
    let mut header = Header::new(match config.client_key_alg {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
    });
    header.kid.clone_from(&config.client_key_id);
    let iat = now.as_second();
    let claims = Claims {
        iss: config.client_assertion_iss.as_ref().unwrap_or(&config.client_id),
        sub: &config.client_id,
        aud: config.client_assertion_aud.as_deref().unwrap_or(audience),
        jti,
        iat,
        exp: iat.saturating_add(LIFETIME_SECONDS),
    };
    Ok(Secret::new(jsonwebtoken::encode(&header, &claims, &key)?))
}
