//! Converts a config's secrets, to seal or open them.

use super::IntegrationOauthConfig;

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
