//! A config's secrets: the JSON with them, which is sealed, and the JSON without them, which operators may read.

use std::convert::Infallible;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{ApiRequest, IntegrationOauthConfig};
use crate::secret::{self, Secret};

/// Shown in place of a secret.
pub(crate) const SET: &str = "set";

/// Serializes a secret in clear.
#[derive(Serialize)]
#[serde(transparent)]
struct InClear(#[serde(serialize_with = "secret::in_clear")] Secret);

impl IntegrationOauthConfig {
    /// Returns the JSON of the whole config, secrets included.
    ///
    /// # Errors
    /// If a field has no JSON form. No field is such.
    pub(crate) fn with_secrets(&self) -> serde_json::Result<Secret> {
        let Ok(config) = self.clone().map_secrets(|_, secret| Ok::<_, Infallible>(InClear(secret)));
        serde_json::to_string(&config).map(Secret::new)
    }

    /// Returns the JSON of the config without the fields that hold secrets.
    ///
    /// # Errors
    /// If a field has no JSON form. No field is such.
    pub(crate) fn without_secrets(&self) -> serde_json::Result<Map<String, Value>> {
        let mut secrets = Vec::new();
        let Ok(config) = self.clone().map_secrets(|field, _| {
            secrets.push(field.split('.').next().unwrap_or(field).to_owned());
            Ok::<_, Infallible>(())
        });
        let Value::Object(mut fields) = serde_json::to_value(&config)? else { return Ok(Map::new()) };
        // Headers and parameters of these may hold credentials.
        let is_request = |name: &str| ["upgrade", "identity", "metadata_request"].contains(&name);
        fields.retain(|name, _| !secrets.contains(name) && !is_request(name));
        Ok(fields)
    }
}

impl IntegrationOauthConfig {
    /// Returns the JSON of the config for admins. Each secret, and each text of an API request that may hold one, is [`SET`].
    ///
    /// # Errors
    /// If a field has no JSON form. No field is such.
    pub(crate) fn shown(&self) -> serde_json::Result<Map<String, Value>> {
        let hidden = |secret: Secret| if secret.is_empty() { "" } else { SET };
        let Ok(mut config) = self.clone().map_secrets(|_, secret| Ok::<_, Infallible>(hidden(secret)));
        let identity = config.identity.as_mut().and_then(|rule| rule.request.as_mut());
        let metadata = config.metadata_request.as_mut().and_then(|rule| rule.request.as_mut());
        config.upgrade.as_deref_mut().into_iter().chain(identity).chain(metadata).for_each(hide);
        let Value::Object(fields) = serde_json::to_value(&config)? else { return Ok(Map::new()) };
        Ok(fields)
    }
}

fn hide(request: &mut ApiRequest) {
    let ApiRequest { url: _, method: _, headers, params, body, token_param: _ } = request;
    headers.values_mut().chain(params.values_mut()).for_each(|value| SET.clone_into(value));
    body.iter_mut().flat_map(Map::values_mut).for_each(|value| *value = SET.into());
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
