//! The authorization request (RFC 6749 §4.1.1).

use std::collections::BTreeMap;

use url::{Url, form_urlencoded};

use crate::integration::{ConfigError, IntegrationOauthConfig, endpoint_url};
use crate::secret::Secret;

/// What one login adds to its config.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizationParams<'a> {
    /// Opaque, 256 random bits.
    pub state: &'a Secret,
    /// The `S256` challenge; none when the config has PKCE off.
    pub code_challenge: Option<String>,
    /// Of [`IntegrationOauthConfig::narrow_scopes`].
    pub scopes: &'a [String],
    /// The values of the URL's variables.
    pub variables: &'a BTreeMap<String, String>,
}

/// Where to send the browser. A query of the config's own stays as it is.
///
/// # Errors
/// [`ConfigError::Variable`] when the variables do not fit.
pub(crate) fn url<T>(config: &IntegrationOauthConfig<T>, params: &AuthorizationParams<'_>) -> Result<Url, ConfigError> {
    let mut url = endpoint_url(&config.auth_url, &config.variables, params.variables)?;
    let mut query = url.query().map(str::to_owned).unwrap_or_default();
    let mut add = |name: &str, value: &str| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&encode(name));
        query.push('=');
        query.push_str(&encode(value));
    };
    let scope = params.scopes.join(config.scope_separator.as_str());
    add(config.param_name("response_type"), "code");
    add(config.param_name("client_id"), &config.client_id);
    add(config.param_name("redirect_uri"), &config.redirect_url);
    if !scope.is_empty() {
        add(config.param_name("scope"), &scope);
    }
    add("state", params.state.expose());
    if let Some(challenge) = &params.code_challenge {
        add(config.param_name("code_challenge"), challenge);
        add(config.param_name("code_challenge_method"), "S256");
    }
    for (name, value) in &config.auth_params {
        add(name, value);
    }
    url.set_query(Some(&query));
    Ok(url)
}

/// Form encoding with `%20` for the space: every server reads that, not every one reads `+`.
fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests;
