//! The authorization request (RFC 6749 §4.1.1).

use std::collections::BTreeMap;

use url::Url;

use crate::integration::{
    ConfigError, IntegrationOauthConfig, Placeholders, RequestKind, encode, endpoint_url, split_route,
};
use crate::secret::Secret;

/// The part of an authorization request that differs from login to login.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizationRequest<'a> {
    /// 256 random bits.
    pub state: &'a Secret,
    /// The `S256` challenge; absent if the config has PKCE off.
    pub code_challenge: Option<String>,
    /// From [`IntegrationOauthConfig::scope_text`].
    pub scope: &'a str,
    /// Values of the config's variables.
    pub variables: &'a BTreeMap<String, String>,
    /// From [`crate::login::nonce_of`].
    pub nonce: &'a str,
}

/// Returns the URL to send the browser to. The query of the config's `auth_url` stays in it unchanged, except for its
/// `${…}`s. If its fragment is a route, the parameters are in the fragment.
///
/// # Errors
/// [`ConfigError::Variable`] if the variables don't fit the config.
pub(crate) fn request_url<T>(
    config: &IntegrationOauthConfig<T>,
    request: &AuthorizationRequest<'_>,
) -> Result<Url, ConfigError> {
    let AuthorizationRequest { state, code_challenge, scope, variables, nonce } = request;
    let placeholders = Placeholders { variables, scope, redirect_url: &config.redirect_url, nonce, more: &[] };
    let (template, route) = split_route(&config.auth_url);
    let mut url = endpoint_url(template, &config.variables, variables)?;
    placeholders.fill_query(&mut url);

    let name = |name| config.param_names.of(RequestKind::Authorize, name);
    let mut query = Query(route.map_or_else(|| url.query().unwrap_or_default(), query_of).to_owned());
    query.add(name("response_type").filter(|_| !config.response_type.is_empty()), &config.response_type);
    query.add(name("client_id"), &config.client_id);
    query.add(name("redirect_uri"), &config.redirect_url);
    query.add(name("scope").filter(|_| !scope.is_empty()), scope);
    query.add(Some("state"), state.expose());
    if let Some(challenge) = code_challenge {
        query.add(name("code_challenge"), challenge);
        query.add(name("code_challenge_method"), "S256");
    }
    let mode = config.response_mode.as_str();
    query.add(Some("response_mode").filter(|_| !mode.is_empty()), mode);
    for (name, value) in &config.auth_params {
        query.add(Some(name), &placeholders.fill(value));
    }
    let needs_nonce = config.id_token_issuer().is_some() && !config.auth_params.contains_key("nonce");
    query.add(Some("nonce").filter(|_| needs_nonce), nonce);
    match route {
        Some(route) => {
            let path = route.split('?').next().unwrap_or_default();
            url.set_fragment(Some(&format!("{path}?{}", query.0)));
        }
        None => url.set_query(Some(&query.0)),
    }
    Ok(url)
}

fn query_of(route: &str) -> &str {
    route.split_once('?').map_or("", |(_, query)| query)
}

/// An encoded query.
struct Query(String);

impl Query {
    /// Adds a parameter, unless it has no name.
    fn add(&mut self, name: Option<&str>, value: &str) {
        let Some(name) = name else { return };
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(&encode(name));
        self.0.push('=');
        self.0.push_str(&encode(value));
    }
}

#[cfg(test)]
mod tests;
