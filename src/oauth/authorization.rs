//! The authorization request (RFC 6749 §4.1.1).

use std::collections::BTreeMap;

use url::{Url, form_urlencoded};

use crate::integration::{ConfigError, IntegrationOauthConfig, endpoint_url};
use crate::secret::Secret;

/// The part of an authorization request that differs from login to login.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizationRequest<'a> {
    /// 256 random bits.
    pub state: &'a Secret,
    /// The `S256` challenge; absent if the config has PKCE off.
    pub code_challenge: Option<String>,
    /// From [`IntegrationOauthConfig::narrow_scopes`].
    pub scopes: &'a [String],
    /// Values of the variables in the authorization endpoint.
    pub variables: &'a BTreeMap<String, String>,
}

/// Returns the URL to send the browser to. The query of the config's `auth_url` stays in it unchanged.
///
/// # Errors
/// [`ConfigError::Variable`] if the variables don't fit the config.
pub(crate) fn request_url<T>(
    config: &IntegrationOauthConfig<T>,
    request: &AuthorizationRequest<'_>,
) -> Result<Url, ConfigError> {
    let mut url = endpoint_url(&config.auth_url, &config.variables, request.variables)?;
    let mut query = url.query().map(str::to_owned).unwrap_or_default();
    let mut add = |name: &str, value: &str| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&encode(name));
        query.push('=');
        query.push_str(&encode(value));
    };
    let scope = request.scopes.join(config.scope_separator.as_str());
    add(config.param_name("response_type"), "code");
    add(config.param_name("client_id"), &config.client_id);
    add(config.param_name("redirect_uri"), &config.redirect_url);
    if !scope.is_empty() {
        add(config.param_name("scope"), &scope);
    }
    add("state", request.state.expose());
    if let Some(challenge) = &request.code_challenge {
        add(config.param_name("code_challenge"), challenge);
        add(config.param_name("code_challenge_method"), "S256");
    }
    for (name, value) in &config.auth_params {
        add(name, value);
    }
    url.set_query(Some(&query));
    Ok(url)
}

/// Form-encodes, with `%20` for a space: every server decodes that, but not every server decodes `+`.
fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests;
