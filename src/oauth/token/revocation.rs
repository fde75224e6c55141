//! Revocation requests (RFC 7009 §2.1).

use super::request::{issuer_endpoint, post_request};
use super::{ClientAuthentication, RequestError};
use crate::integration::{IntegrationOauthConfig, IssuedAt};
use crate::oauth::PostRequest;
use crate::secret::Secret;

/// A token to revoke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revocation<'a> {
    pub token: &'a Secret,
    pub hint: TokenTypeHint,
    pub issued_at: &'a IssuedAt,
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
    authentication: &ClientAuthentication,
) -> Result<PostRequest, RequestError> {
    let url = issuer_endpoint(config, url, revocation.issued_at)?;
    let params = vec![("token", revocation.token.expose()), ("token_type_hint", revocation.hint.as_str())];
    Ok(post_request(config, url, params, authentication))
}
