//! Secrets of a config: its whole JSON, which is sealed, and the JSON that every view shows.
//!
//! The constants are the one list of what may be secret. Every view uses it: the copy in clear for operators, the settings of
//! `GET …/oauth-config` and `tokenbus config get`, and profiles with fields of an operator's own.

use std::convert::Infallible;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{ConfigError, IntegrationOauthConfig};
use crate::secret::{self, Secret};

/// Shown in place of a secret.
const SET: &str = "set";

/// Fields that are a secret, or a list of secrets.
const SECRETS: [&str; 3] = ["client_secret", "client_secrets", "client_key"];
/// Objects of which only the provider receives the values.
const SENT: [&str; 3] = ["token_headers", "token_params", "refresh_params"];
/// URLs of which only the provider receives the query. Browsers receive the others.
const URLS: [&str; 3] = ["token_url", "refresh_url", "revocation_url"];
/// Requests to the provider's API, with such objects and a URL of their own.
const REQUESTS: [&str; 3] = ["upgrade", "identity", "metadata_request"];
const SENT_IN_REQUESTS: [&str; 3] = ["headers", "params", "body"];
const URL_OF_REQUESTS: &str = "url";
/// Headers that never hold a credential.
const PUBLIC_HEADERS: [&str; 2] = ["accept", "user-agent"];

/// Serializes a secret in clear.
#[derive(Serialize)]
#[serde(transparent)]
struct InClear(#[serde(serialize_with = "secret::in_clear")] Secret);

impl IntegrationOauthConfig {
    /// Returns the JSON of the whole config, secrets included.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub(crate) fn with_secrets(&self) -> serde_json::Result<Secret> {
        let Ok(config) = self.clone().map_secrets(|_, secret| Ok::<_, Infallible>(InClear(secret)));
        serde_json::to_string(&config).map(Secret::new)
    }

    /// Returns the JSON of the config as admins see it, with `set` in place of all that may be secret.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub(crate) fn shown(&self) -> serde_json::Result<Map<String, Value>> {
        let mut fields = self.fields()?;
        hide(&mut fields);
        Ok(fields)
    }

    /// Returns the copy of the config for operators. It lacks the fields in which something may be secret, because a copy is
    /// compared with its original.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub(crate) fn without_secrets(&self) -> serde_json::Result<Map<String, Value>> {
        let (mut copy, shown) = (self.fields()?, self.shown()?);
        copy.retain(|name, value| shown.get(name) == Some(value));
        Ok(copy)
    }

    fn fields(&self) -> serde_json::Result<Map<String, Value>> {
        let Ok(config) = self.clone().map_secrets(|_, secret| Ok::<_, Infallible>(InClear(secret)));
        Ok(if let Value::Object(fields) = serde_json::to_value(&config)? { fields } else { Map::new() })
    }
}

/// Replaces all that may be secret in the fields of a config or profile.
pub(crate) fn hide(fields: &mut Map<String, Value>) {
    visit(fields, &mut |_, value| *value = SET.into());
}

/// Refuses a secret whose value is the word `set`, which views show in place of secrets. A PUT of what a view shows would
/// replace the secret by that word.
pub(super) fn refuse_word_for_secrets(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    let mut hidden = None;
    visit(&mut fields.clone(), &mut |path, value| {
        if *value == SET {
            hidden.get_or_insert(path);
        }
    });
    let expected = "the secret itself: `set` stands for a secret where settings are shown";
    hidden.map_or(Ok(()), |path| Err(ConfigError::invalid(&path, expected)))
}

/// Calls `f` with each value that may be secret, and with its path. A value without content is none, and neither is a lone
/// placeholder (`${scope}`).
fn visit(fields: &mut Map<String, Value>, f: &mut impl FnMut(String, &mut Value)) {
    for (name, value) in fields {
        match name.as_str() {
            field if SECRETS.contains(&field) => visit_secrets(field, value, f),
            field if SENT.contains(&field) => visit_entries(field, field == "token_headers", value, f),
            field if URLS.contains(&field) => visit_query(field, value, f),
            field if REQUESTS.contains(&field) => {
                for (part, value) in value.as_object_mut().into_iter().flatten() {
                    let path = format!("{field}.{part}");
                    if SENT_IN_REQUESTS.contains(&part.as_str()) {
                        visit_entries(&path, part == "headers", value, f);
                    } else if part == URL_OF_REQUESTS {
                        visit_query(&path, value, f);
                    }
                }
            }
            _ => {}
        }
    }
}

fn visit_secrets(path: &str, value: &mut Value, f: &mut impl FnMut(String, &mut Value)) {
    // `${…}` has no meaning in a secret, so it is a part of it.
    let mut visit = |path: String, value: &mut Value| {
        if !value.is_null() && value != "" {
            f(path, value);
        }
    };
    if let Value::Array(secrets) = value {
        for (index, secret) in secrets.iter_mut().enumerate() {
            visit(format!("{path}.{index}"), secret);
        }
    } else {
        visit(path.to_owned(), value);
    }
}

fn visit_entries(path: &str, are_headers: bool, value: &mut Value, f: &mut impl FnMut(String, &mut Value)) {
    for (name, value) in value.as_object_mut().into_iter().flatten() {
        let is_public = are_headers && PUBLIC_HEADERS.iter().any(|public| name.eq_ignore_ascii_case(public));
        if !is_public {
            visit_value(format!("{path}.{name}"), value, f);
        }
    }
}

/// Visits the values of a URL's query. The URL may have placeholders, so that it need not be a valid one.
fn visit_query(path: &str, value: &mut Value, f: &mut impl FnMut(String, &mut Value)) {
    let Some((start, query)) = value.as_str().and_then(|url| url.split_once('?')) else { return };
    let mut pairs = Vec::new();
    for pair in query.split('&') {
        // A lone text may be a key (`?k3y`).
        let (name, text) = pair.split_once('=').map_or((None, pair), |(name, text)| (Some(name), text));
        let mut shown = Value::from(text);
        visit_value(format!("{path}.{}", name.unwrap_or("?")), &mut shown, f);
        let shown = shown.as_str().unwrap_or_default();
        pairs.push(name.map_or_else(|| shown.to_owned(), |name| format!("{name}={shown}")));
    }
    *value = format!("{start}?{}", pairs.join("&")).into();
}

fn visit_value(path: String, value: &mut Value, f: &mut impl FnMut(String, &mut Value)) {
    let is_public = match &*value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || is_placeholder(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    };
    if !is_public {
        f(path, value);
    }
}

fn is_placeholder(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| !name.contains(['$', '{', '}']))
}

impl<T> IntegrationOauthConfig<T> {
    /// Converts every secret with `f`, which gets the field's name too: `client_secret`, `client_key`,
    /// `client_secrets.0` and so on. All fields are listed, so that a new secret field can't be forgotten here.
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
            token_headers: self
                .token_headers
                .into_iter()
                .map(|(name, value)| Ok((name.clone(), f(&format!("token_headers.{name}"), value)?)))
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
            refresh_auth_method: self.refresh_auth_method,
            revocation_auth_method: self.revocation_auth_method,
            token_method: self.token_method,
            token_body_format: self.token_body_format,
            revocation_body_format: self.revocation_body_format,
            revocation_method: self.revocation_method,
            revoke_with: self.revoke_with,
            basic_encoding: self.basic_encoding,
            response_type: self.response_type,
            response_mode: self.response_mode,
            auth_params: self.auth_params,
            token_params: self.token_params,
            refresh_params: self.refresh_params,
            param_names: self.param_names,
            refresh_url: self.refresh_url,
            revocation_url: self.revocation_url,
            token_response_path: self.token_response_path,
            token_answer: self.token_answer,
            error_codes: self.error_codes,
            metadata_paths: self.metadata_paths,
            callback_metadata: self.callback_metadata,
            code_param: self.code_param,
            default_expires_in: self.default_expires_in,
            refresh_token_lifetime: self.refresh_token_lifetime,
            timeout: self.timeout,
            expires_in_unit: self.expires_in_unit,
            issuer: self.issuer,
            client_key_id: self.client_key_id,
            client_key_alg: self.client_key_alg,
            client_assertion_aud: self.client_assertion_aud,
            client_assertion_iss: self.client_assertion_iss,
            refresh_with: self.refresh_with,
            refresh_grant_type: self.refresh_grant_type,
            refresh_method: self.refresh_method,
            login_params: self.login_params,
            variables: self.variables,
            upgrade: self.upgrade,
            identity: self.identity,
            metadata_request: self.metadata_request,
            reconnect: self.reconnect,
            revoke_replaced: self.revoke_replaced,
        })
    }
}
