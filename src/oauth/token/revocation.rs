//! Revocation requests (RFC 7009 §2.1).

use super::request::{Parts, issuer_endpoint};
use super::{ClientAuthentication, RequestError};
use crate::integration::{IntegrationOauthConfig, IssuedAt, Method, Placeholders, RequestKind};
use crate::oauth::HttpRequest;
use crate::secret::Secret;

/// A token to revoke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revocation<'a> {
    pub token: &'a Secret,
    pub hint: TokenTypeHint,
    pub issued_at: &'a IssuedAt,
    /// Of the config; for the headers.
    pub scope: &'a str,
}

/// `token_type_hint` (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenTypeHint {
    AccessToken,
    RefreshToken,
}

impl TokenTypeHint {
    fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }
}

/// Builds a request to the config's revocation endpoint `url` (RFC 7009 §2.1).
///
/// # Errors
/// [`RequestError::IssuedElsewhere`] if the token must not be sent to the config's revocation endpoint.
pub(crate) fn revocation_request(
    config: &IntegrationOauthConfig,
    url: &str,
    revocation: &Revocation<'_>,
    nonce: &str,
    authentication: &ClientAuthentication,
) -> Result<HttpRequest, RequestError> {
    let Revocation { token, hint, issued_at, scope } = *revocation;
    let url = issuer_endpoint(config, url, issued_at)?;
    let placeholders =
        Placeholders { variables: &issued_at.variables, scope, redirect_url: &config.redirect_url, nonce, more: &[] };
    let mut parts = Parts::new(config, RequestKind::Revoke, url, placeholders);
    parts.method = Method::Post;
    parts.add("token", token.expose());
    parts.add("token_type_hint", hint.as_str());
    Ok(parts.request(authentication))
}
