//! An integration's OAuth settings: what an admin puts, checked, and what may be shown of it.

mod check;
mod choice;
mod template;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

pub(crate) use self::check::{parse_value, read_json};
pub(crate) use self::choice::{BodyFormat, ExpiresInUnit, KeyAlgorithm, Pkce, ScopeSeparator, TokenAuthMethod};
pub(crate) use self::template::{endpoint_url, expand};
use crate::secret::Secret;
use crate::subject::{self, Integration};

/// Which URLs a config may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct UrlRules {
    /// Lets `http` through for loopback hosts.
    pub allow_insecure_urls: bool,
}

/// What is wrong with a config, or with what a login asks of it. Names fields, never values: a
/// value could be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Not a JSON object, or too large for one.
    #[error("the config must be a JSON object of at most 64 KiB")]
    NotAnObject,
    /// Not JSON, or with a field twice; and where.
    #[error("the body cannot be read: {what} (line {line}, column {column})")]
    Json {
        /// What is wrong.
        what: &'static str,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Fields that no config has.
    #[error("unknown field: {}", .0.join(", "))]
    Unknown(Vec<String>),
    /// A field that every config has.
    #[error("missing field: {0}")]
    Missing(&'static str),
    /// A value of the wrong type or form.
    #[error("{field} must be {expected}")]
    Invalid {
        /// The field, with the key inside where it is an object.
        field: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A login wants more than the config has.
    #[error("scopes must be among those of the config")]
    Scopes,
    /// A login's URL variable that is unknown, missing, or has another form than asked.
    #[error("variable {name} {problem}")]
    Variable {
        /// Its name as in the config, or `?` for one the config does not have.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl ConfigError {
    fn invalid(field: impl Into<String>, expected: &'static str) -> Self {
        Self::Invalid { field: field.into(), expected }
    }
}

/// An integration's settings. `T` is the form of its secrets: [`Secret`] in memory, `String` for
/// the sealed form that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
pub(crate) struct IntegrationOauthConfig<T = Secret> {
    /// The integration, as in the path.
    pub integration_id: Integration,
    /// The name shown to people.
    pub name: String,
    /// Comma-separated.
    pub scopes: String,
    /// The client identifier (RFC 6749 §2.2).
    pub client_id: String,
    /// The client's password (RFC 6749 §2.3.1); empty for a public client.
    pub client_secret: T,
    /// Authorization endpoint (RFC 6749 §3.1); may hold `${variable}`s.
    pub auth_url: String,
    /// Token endpoint (RFC 6749 §3.2); may hold `${variable}`s.
    pub token_url: String,
    /// Redirection endpoint (RFC 6749 §3.1.2), sent byte for byte.
    pub redirect_url: String,
    /// The profile it was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What the provider wants between scopes.
    #[serde(default)]
    pub scope_separator: ScopeSeparator,
    /// Proof key for the code (RFC 7636).
    #[serde(default)]
    pub pkce: Pkce,
    /// How the client authenticates at the token endpoint.
    #[serde(default)]
    pub token_auth_method: TokenAuthMethod,
    /// How the token request's body is written.
    #[serde(default)]
    pub token_body_format: BodyFormat,
    /// Extra parameters of the authorization request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub auth_params: BTreeMap<String, String>,
    /// Extra parameters of the code's exchange.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub token_params: BTreeMap<String, String>,
    /// Extra parameters of a refresh.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refresh_params: BTreeMap<String, String>,
    /// What this provider calls the protocol's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub param_names: BTreeMap<String, String>,
    /// Where to refresh, when not at `token_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_url: Option<String>,
    /// Revocation endpoint (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_url: Option<String>,
    /// Dot path of the token object in the answer; the root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_response_path: Option<String>,
    /// Dot paths to keep of the token answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata_paths: Vec<String>,
    /// Parameters to keep of the callback's query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callback_metadata: Vec<String>,
    /// What the callback calls the code.
    #[serde(default = "default_code_param")]
    pub code_param: String,
    /// Lifetime in seconds where the provider names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_expires_in: Option<u32>,
    /// What `expires_in` counts.
    #[serde(default)]
    pub expires_in_unit: ExpiresInUnit,
    /// Demanded as the callback's `iss` (RFC 9207).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Private key in PEM for `private_key_jwt`.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub client_key: Option<T>,
    /// The key's `kid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_id: Option<String>,
    /// The key's algorithm.
    #[serde(default)]
    pub client_key_alg: KeyAlgorithm,
    /// Audience of the client assertion; the token endpoint when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_assertion_aud: Option<String>,
    /// The `${variable}`s of the URLs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
    /// Further secrets, tried in turn after an explicit `invalid_client`.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub client_secrets: Vec<T>,
}

fn default_code_param() -> String {
    "code".to_owned()
}

fn none<T>() -> Option<T> {
    None
}

/// A hole in the URLs that each login fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    /// Regular expression that the whole value has to match.
    pub pattern: String,
    /// The value when a login gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What any account may see of a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OauthConfigBasic {
    /// The integration.
    pub integration_id: Integration,
    /// The name shown to people.
    pub name: String,
    /// Comma-separated, as put.
    pub scopes: String,
    /// Where the config's record is stored.
    pub subject: String,
}

/// Where a grant came from: its tokens go nowhere else, whatever becomes of the config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedAt {
    /// The token endpoint, variables filled in.
    pub token_url: String,
    /// Where its tokens are refreshed, when not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_url: Option<String>,
    /// Where its tokens are revoked, when the config said so then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_url: Option<String>,
    /// The client that asked.
    pub client_id: String,
    /// What the login filled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

impl<T> IntegrationOauthConfig<T> {
    /// The scopes one by one, without doubles.
    #[must_use]
    pub(crate) fn scopes(&self) -> Vec<&str> {
        scope_list(&self.scopes)
    }

    /// The scopes of one login: those wanted (a comma list), or all when none are named.
    ///
    /// # Errors
    /// [`ConfigError::Scopes`] when one is not the config's.
    pub(crate) fn narrow_scopes(&self, wanted: Option<&str>) -> Result<Vec<String>, ConfigError> {
        let all = self.scopes();
        let wanted = scope_list(wanted.unwrap_or_default());
        if wanted.iter().any(|scope| !all.contains(scope)) {
            return Err(ConfigError::Scopes);
        }
        let chosen = if wanted.is_empty() { all } else { wanted };
        Ok(chosen.into_iter().map(str::to_owned).collect())
    }

    /// What this provider calls a parameter of the protocol.
    #[must_use]
    pub(crate) fn param_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.param_names.get(name).map_or(name, String::as_str)
    }

    /// The token endpoint with its variables filled in.
    ///
    /// # Errors
    /// As [`endpoint_url`].
    pub(crate) fn token_endpoint(&self, values: &BTreeMap<String, String>) -> Result<Url, ConfigError> {
        endpoint_url(&self.token_url, &self.variables, values)
    }

    /// What a connection made by this config remembers of where it was issued; the values of its variables are those
    /// given, or the defaults.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] when one is unknown, missing or of another form than its pattern's.
    pub(crate) fn issued_at(&self, values: &BTreeMap<String, String>) -> Result<IssuedAt, ConfigError> {
        let variables = template::fill(&self.variables, values)?;
        let filled = |url: &String| expand(url, &self.variables, &variables);
        Ok(IssuedAt {
            token_url: filled(&self.token_url)?,
            refresh_url: self.refresh_url.as_ref().map(filled).transpose()?,
            revocation_url: self.revocation_url.as_ref().map(filled).transpose()?,
            client_id: self.client_id.clone(),
            variables,
        })
    }

    /// Whether a grant came from this config's endpoints and client, so that it may be refreshed there.
    #[must_use]
    pub(crate) fn issued(&self, grant: &IssuedAt) -> bool {
        self.issued_at(&grant.variables)
            .is_ok_and(|ours| ours == IssuedAt { revocation_url: ours.revocation_url.clone(), ..grant.clone() })
    }

    /// Whether a grant's tokens may be sent to this config's revocation endpoint, too: it is the one of then, or at the
    /// origin of the endpoint that issued them.
    #[must_use]
    pub(crate) fn may_revoke(&self, grant: &IssuedAt) -> bool {
        let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin());
        let Ok(IssuedAt { revocation_url: Some(url), .. }) = self.issued_at(&grant.variables) else { return false };
        self.issued(grant) && (grant.revocation_url.as_ref() == Some(&url) || origin(&url) == origin(&grant.token_url))
    }

    /// What any account may see.
    #[must_use]
    pub(crate) fn basic(&self) -> OauthConfigBasic {
        OauthConfigBasic {
            integration_id: self.integration_id.clone(),
            name: self.name.clone(),
            scopes: self.scopes.clone(),
            subject: subject::config_subject(&self.integration_id),
        }
    }

    /// Turns every secret into another form. `f` gets the field's name: `client_secret`,
    /// `client_key`, `client_secrets.0` and so on.
    ///
    /// # Errors
    /// The first error of `f`.
    pub(crate) fn map_secrets<U, E>(
        self,
        mut f: impl FnMut(&str, T) -> Result<U, E>,
    ) -> Result<IntegrationOauthConfig<U>, E> {
        Ok(IntegrationOauthConfig {
            client_secret: f("client_secret", self.client_secret)?,
            client_key: self.client_key.map(|key| f("client_key", key)).transpose()?,
            client_secrets: self
                .client_secrets
                .into_iter()
                .enumerate()
                .map(|(index, secret)| f(&format!("client_secrets.{index}"), secret))
                .collect::<Result<_, E>>()?,
            integration_id: self.integration_id,
            name: self.name,
            scopes: self.scopes,
            client_id: self.client_id,
            auth_url: self.auth_url,
            token_url: self.token_url,
            redirect_url: self.redirect_url,
            provider: self.provider,
            scope_separator: self.scope_separator,
            pkce: self.pkce,
            token_auth_method: self.token_auth_method,
            token_body_format: self.token_body_format,
            auth_params: self.auth_params,
            token_params: self.token_params,
            refresh_params: self.refresh_params,
            param_names: self.param_names,
            refresh_url: self.refresh_url,
            revocation_url: self.revocation_url,
            token_response_path: self.token_response_path,
            metadata_paths: self.metadata_paths,
            callback_metadata: self.callback_metadata,
            code_param: self.code_param,
            default_expires_in: self.default_expires_in,
            expires_in_unit: self.expires_in_unit,
            issuer: self.issuer,
            client_key_id: self.client_key_id,
            client_key_alg: self.client_key_alg,
            client_assertion_aud: self.client_assertion_aud,
            variables: self.variables,
        })
    }
}

/// Fills in a provider profile's fields where the body gives none (given fields win, whole).
#[must_use]
pub(crate) fn with_profile(body: Value, profile: &Value) -> Value {
    match (body, profile) {
        (Value::Object(given), Value::Object(profile)) => {
            let mut merged = profile.clone();
            merged.extend(given);
            Value::Object(merged)
        }
        (body, _) => body,
    }
}

fn scope_list(text: &str) -> Vec<&str> {
    let mut scopes = Vec::new();
    for scope in text.split(',').map(str::trim).filter(|scope| !scope.is_empty()) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

#[cfg(test)]
pub(crate) mod tests;
