//! The choices of a login: scopes, as a comma-separated list, and parameters.

use std::collections::BTreeMap;

use super::error::printable;
use super::{ConfigError, IntegrationOauthConfig};

/// Value of a login's parameter.
const MAX_PARAM_BYTES: usize = 1024;

impl<T> IntegrationOauthConfig<T> {
    /// Returns the scopes in order, without duplicates.
    #[must_use]
    pub(crate) fn scopes(&self) -> Vec<&str> {
        scope_list(&self.scopes)
    }

    /// Returns scopes as the provider expects them in one text.
    #[must_use]
    pub(crate) fn scope_text<S: AsRef<str>>(&self, scopes: &[S]) -> String {
        scopes.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(self.scope_separator.as_str())
    }

    /// Returns the config with the parameters of one login, which replace the config's own of the same name.
    ///
    /// # Errors
    /// [`ConfigError::UnknownParam`] if the config doesn't list a parameter, [`ConfigError::Param`] if a value has the wrong
    /// form.
    pub(crate) fn with_login_params(mut self, params: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        for (name, value) in &params {
            if !self.login_params.contains(name) {
                return Err(ConfigError::UnknownParam { name: printable(name), known: self.login_params });
            }
            if value.len() > MAX_PARAM_BYTES || value.contains(char::is_control) || value.contains("${") {
                return Err(ConfigError::Param(name.clone()));
            }
        }
        self.auth_params.extend(params);
        Ok(self)
    }

    /// Returns the scopes of one login: those in `wanted` (comma-separated), or all if it names no scope.
    ///
    /// # Errors
    /// [`ConfigError::Scopes`] if the config doesn't list a wanted scope.
    pub(crate) fn narrow_scopes(&self, wanted: Option<&str>) -> Result<Vec<String>, ConfigError> {
        let all = self.scopes();
        let wanted = scope_list(wanted.unwrap_or_default());
        if wanted.iter().any(|scope| !all.contains(scope)) {
            return Err(ConfigError::Scopes);
        }
        let chosen = if wanted.is_empty() { all } else { wanted };
        Ok(chosen.into_iter().map(str::to_owned).collect())
    }
}

pub(super) fn scope_list(text: &str) -> Vec<&str> {
    let mut scopes = Vec::new();
    for scope in text.split(',').map(str::trim).filter(|scope| !scope.is_empty()) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}
