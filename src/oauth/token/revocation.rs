//! Revocation requests (RFC 7009 §2.1), and those of providers that take the token itself as the authorization (RFC 6750).

use super::request::Parts;
use super::{ClientAuthentication, RequestError};
use crate::integration::{IntegrationOauthConfig, IssuedAt, Placeholders, RequestKind, TokenKind};
use crate::oauth::HttpRequest;
use crate::secret::Secret;

/// A token to revoke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revocation<'a> {
    pub token: &'a Secret,
    pub hint: TokenKind,
    pub issued_at: &'a IssuedAt,
    /// Of the config; for the headers.
    pub scope: &'a str,
}

/// Builds a request to the revocation endpoint of the login.
///
/// # Errors
/// [`RequestError::IssuedElsewhere`] if the config has another origin, client or issuer than at the login.
pub(crate) fn revocation_request(
    config: &IntegrationOauthConfig,
    revocation: &Revocation<'_>,
    nonce: &str,
    authentication: &ClientAuthentication,
) -> Result<HttpRequest, RequestError> {
    let Revocation { token, hint, issued_at, scope } = *revocation;
    let url = config.revocation_endpoint(issued_at).ok_or(RequestError::IssuedElsewhere)?;
    let placeholders =
        Placeholders { variables: &issued_at.variables, scope, redirect_url: &config.redirect_url, nonce, more: &[] };
    let mut parts = Parts::new(config, RequestKind::Revoke, url, placeholders);
    parts.method = config.revocation_method;
    if *authentication == ClientAuthentication::Bearer {
        parts.add_bearer(token);
    }
    parts.add("token", token.expose());
    parts.add("token_type_hint", hint.as_str());
    Ok(parts.request(authentication))
}
