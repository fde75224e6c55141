//! Revocation requests (RFC 7009 §2.1), and those of providers that take the token itself as the authorization (RFC 6750).

use super::request::{Parts, issuer_endpoint};
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

/// Builds a request to the config's revocation endpoint `url`.
///
/// # Errors
/// [`RequestError::IssuedElsewhere`] if the token must not be sent to the config's revocation endpoint. A bearer token may be
/// sent only to the URL of the login: any other API of the same origin would accept the request.
pub(crate) fn revocation_request(
    config: &IntegrationOauthConfig,
    url: &str,
    revocation: &Revocation<'_>,
    nonce: &str,
    authentication: &ClientAuthentication,
) -> Result<HttpRequest, RequestError> {
    let Revocation { token, hint, issued_at, scope } = *revocation;
    let url = issuer_endpoint(config, url, issued_at)?;
    let is_bearer = *authentication == ClientAuthentication::Bearer;
    if is_bearer && !issued_at.revokes_at(&url) {
        return Err(RequestError::IssuedElsewhere);
    }
    let placeholders =
        Placeholders { variables: &issued_at.variables, scope, redirect_url: &config.redirect_url, nonce, more: &[] };
    let mut parts = Parts::new(config, RequestKind::Revoke, url, placeholders);
    parts.method = config.revocation_method;
    if is_bearer {
        parts.add_bearer(token);
    }
    parts.add("token", token.expose());
    parts.add("token_type_hint", hint.as_str());
    Ok(parts.request(authentication))
}
