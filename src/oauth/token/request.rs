//! Token requests: for an authorization code (RFC 6749 §4.1.3) and for a refresh token (§6).

mod http;

use std::collections::BTreeMap;

pub(super) use self::http::Parts;
use super::ClientAuthentication;
use crate::integration::{ConfigError, IntegrationOauthConfig, IssuedAt, Placeholders, RequestKind, TokenKind};
use crate::oauth::HttpRequest;
use crate::secret::Secret;

/// The config allows no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// The stored variables don't fit the config any more.
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("client_key is missing: private_key_jwt signs client assertions with it")]
    NoClientKey,
    #[error("client_key cannot sign a client assertion")]
    ClientKey(#[from] jsonwebtoken::errors::Error),
    /// The origin of the config's endpoint, its client or its issuer has changed since the login.
    #[error("the token was issued at another token endpoint or to another client")]
    IssuedElsewhere,
}

/// An authorization code to exchange for tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeGrant<'a> {
    pub code: &'a Secret,
    /// Absent if the config has PKCE off.
    pub verifier: Option<&'a Secret>,
    pub variables: &'a BTreeMap<String, String>,
    /// As requested.
    pub scope: &'a str,
    /// Unique for each request.
    pub nonce: &'a str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct RefreshGrant<'a> {
    pub refresh_token: &'a Secret,
    pub issued_at: &'a IssuedAt,
    /// As granted.
    pub scope: &'a str,
    /// Unique for each request.
    pub nonce: &'a str,
}

/// Builds the token request for an authorization code (RFC 6749 §4.1.3).
pub(crate) fn exchange_request(
    config: &IntegrationOauthConfig,
    grant: &CodeGrant<'_>,
    authentication: &ClientAuthentication,
) -> Result<HttpRequest, RequestError> {
    let CodeGrant { code, verifier, variables, scope, nonce } = *grant;
    let url = config.token_endpoint(variables)?;
    let placeholders = Placeholders { variables, scope, redirect_url: &config.redirect_url, nonce, more: &[] };
    let mut parts = Parts::new(config, RequestKind::Token, url, placeholders);
    parts.add("grant_type", "authorization_code");
    parts.add("code", code.expose());
    parts.add("redirect_uri", &config.redirect_url);
    if let Some(verifier) = verifier {
        parts.add("code_verifier", verifier.expose());
    }
    parts.add_own(&config.token_params);
    Ok(parts.request(authentication))
}

/// Builds the token request for a refresh token (RFC 6749 §6).
///
/// # Errors
/// [`RequestError::IssuedElsewhere`] if the config has another origin, client or issuer than at the login.
pub(crate) fn refresh_request(
    config: &IntegrationOauthConfig,
    grant: &RefreshGrant<'_>,
    authentication: &ClientAuthentication,
) -> Result<HttpRequest, RequestError> {
    let RefreshGrant { refresh_token, issued_at, scope, nonce } = *grant;
    let url = config.refresh_endpoint(issued_at).ok_or(RequestError::IssuedElsewhere)?;
    let variables = &issued_at.variables;
    let placeholders = Placeholders { variables, scope, redirect_url: &config.redirect_url, nonce, more: &[] };
    let mut parts = Parts::new(config, RequestKind::Refresh, url, placeholders);
    parts.method = config.refresh_method.unwrap_or(config.token_method);
    parts.add("grant_type", config.refresh_grant_type.as_deref().unwrap_or("refresh_token"));
    let is_renamed = config.param_names.given(RequestKind::Refresh, "refresh_token").is_some();
    let with_access_token = config.refresh_with == TokenKind::AccessToken;
    // The name without a config's own.
    let name = if with_access_token && !is_renamed { "access_token" } else { "refresh_token" };
    parts.add(name, refresh_token.expose());
    parts.add_own(&config.refresh_params);
    Ok(parts.request(authentication))
}

#[cfg(test)]
mod tests;
