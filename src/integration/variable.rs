//! Variables: `${name}`s that get their values at each login.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::all_urls;
use super::{ConfigError, IntegrationOauthConfig, IssuedAt, template};
use crate::secret::Secret;

/// Values of variables by name.
type Values = BTreeMap<String, String>;

/// Start of a source that is a parameter of the callback.
const CALLBACK: &str = "callback:";
/// Rule for values in a header, after the variable's name.
const HEADER_VALUE: &str = "must be printable ASCII: a header holds it";

/// A placeholder that gets its value at each login, or from the callback. It has a pattern, a list of values, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variable {
    /// Regular expression that must match the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The only values. The admin names every host that they lead to, so the variable may be any part of a host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// The value for a login that sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// `login`, or `callback:` and the parameter of the callback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The variable may name a host directly under a suffix of the public suffix list's private part: one owner runs all
    /// hosts under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_suffix: bool,
    /// The value becomes metadata of the connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metadata: bool,
}

impl Variable {
    /// Returns the callback's parameter that has the value.
    pub(crate) fn callback_param(&self) -> Option<&str> {
        self.from.as_deref()?.strip_prefix(CALLBACK)
    }
}

impl<T> IntegrationOauthConfig<T> {
    /// Returns the variables that the callback sets, each with its parameter.
    pub(crate) fn callback_variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().filter_map(|(name, variable)| Some((name.as_str(), variable.callback_param()?)))
    }

    /// Returns each variable's value, given or default, after checking it. With `is_login` a variable that the callback will
    /// set has a value only if it is given.
    pub(super) fn resolve(&self, given: &Values, is_login: bool) -> Result<Values, ConfigError> {
        if let Some(name) = given.keys().find(|name| !self.variables.contains_key(*name)) {
            return Err(ConfigError::unknown_variable(name, self.variables.keys()));
        }
        let mut values = Values::new();
        for (name, variable) in &self.variables {
            let wrong = |problem: Cow<'static, str>| ConfigError::Variable { name: name.clone(), problem };
            let value = match given.get(name) {
                Some(value) => value,
                None if is_login && variable.callback_param().is_some() => continue,
                None => variable.default.as_ref().ok_or_else(|| wrong("is missing".into()))?,
            };
            template::check_value(variable, value, self.is_in_url(name)).map_err(wrong)?;
            values.insert(name.clone(), value.clone());
        }
        Ok(values)
    }

    pub(super) fn is_in_url(&self, name: &str) -> bool {
        all_urls(self).any(|(_, url)| template::variable_names(url).contains(name))
    }

    /// Returns the values for the authorization request: those of the login, and defaults.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if the request needs a variable that has neither.
    pub(crate) fn authorization_values(&self, login: &Values) -> Result<Values, ConfigError> {
        let texts = || self.auth_params.values().map(String::as_str).chain([self.auth_url.as_str()]);
        let mut values = login.clone();
        for (name, variable) in self.variables.iter().filter(|(name, _)| !login.contains_key(*name)) {
            if let Some(default) = &variable.default {
                values.insert(name.clone(), default.clone());
            } else if texts().any(|text| template::variable_names(text).contains(name.as_str())) {
                return Err(ConfigError::Variable { name: name.clone(), problem: "is missing".into() });
            }
        }
        Ok(values)
    }

    /// Returns the values that become the connection's metadata.
    pub(crate) fn metadata_of_variables(&self, values: &Values) -> Map<String, Value> {
        let is_metadata = |name: &String| self.variables.get(name).is_some_and(|variable| variable.metadata);
        let kept = values.iter().filter(|(name, _)| is_metadata(name));
        kept.map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
    }
}

impl IntegrationOauthConfig {
    /// Returns where a login's grant is issued, with the values of its callback by the variables' names.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if a value is missing or not allowed, or if the login has another one.
    pub(crate) fn issued_at_callback(&self, login: &IssuedAt, callback: &Values) -> Result<IssuedAt, ConfigError> {
        let mut values = login.variables.clone();
        for (name, value) in callback {
            if values.insert(name.clone(), value.clone()).is_some_and(|of_login| of_login != *value) {
                return Err(ConfigError::Variable { name: name.clone(), problem: "differs from the login's".into() });
            }
        }
        let issued_at = self.issued_at(&values)?;
        self.check_new_values(&issued_at.variables)?;
        // The config may have another revocation endpoint or issuer than at the login. Tokens of the login do not go there.
        let is_unchanged = self.issued_at_login(&login.variables)?.revocation_url == login.revocation_url;
        let of_login = login.revocation_url.clone().filter(|url| !url.contains("${"));
        let revocation_url = if is_unchanged { issued_at.revocation_url } else { of_login };
        Ok(IssuedAt { revocation_url, issuer: login.issuer.clone(), ..issued_at })
    }

    /// Checks what the variables of a new login choose: hosts, and texts of headers. A grant that exists keeps its values,
    /// also when a later release knows more public suffixes.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if a variable chooses a name directly under a public suffix, or a text that no header can
    /// have.
    pub(crate) fn check_new_values(&self, values: &Values) -> Result<(), ConfigError> {
        self.check_hosts(values)?;
        match values.iter().find(|(name, value)| self.is_in_header(name) && !is_header_text(value)) {
            Some((name, _)) => Err(ConfigError::Variable { name: name.clone(), problem: HEADER_VALUE.into() }),
            None => Ok(()),
        }
    }

    /// Returns true if a header of a request to the provider has the variable.
    pub(super) fn is_in_header(&self, name: &str) -> bool {
        let of_requests = self.api_requests().flat_map(|(_, request)| request.headers.values().map(String::as_str));
        let mut texts = of_requests.chain(self.token_headers.values().map(Secret::expose));
        texts.any(|text| template::variable_names(text).contains(name))
    }
}

/// Returns true if a header can have this text.
pub(super) fn is_header_text(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}
