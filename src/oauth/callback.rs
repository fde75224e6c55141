//! The authorization response (RFC 6749 §4.1.2), with its issuer (RFC 9207).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use url::form_urlencoded;

use super::error::{Cause, ErrorCode};
use crate::integration::IntegrationOauthConfig;
use crate::secret::Secret;

// RFC 6749 sets no limits. These leave room for codes that hold encrypted data, and keep the command below the 256 KiB that
// its stream takes. The query is as long as the gateway's limit for a URI.
const MAX_QUERY_BYTES: usize = 56 * 1024;
/// tokenbus's own states have 43 bytes. The gateway looks up longer ones (`gateway/routes/callback.rs`), so that an unknown
/// state of any usual length gets the same 401; a queued callback has no reason to hold one.
const MAX_STATE_BYTES: usize = 64;
const MAX_CODE_BYTES: usize = 16 * 1024;
const MAX_OTHER_BYTES: usize = 2048;

/// The parameters that any callback may have (RFC 6749 §4.1.2, RFC 9207). A config may add to them. Others are ignored.
pub(crate) const PARAMETERS: [&str; 6] = ["code", "state", "error", "error_description", "error_uri", "iss"];

/// An error in the callback's query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallbackError {
    #[error("the query is longer than 56 KiB")]
    QueryTooLong,
    #[error("state is missing")]
    StateMissing,
    #[error("state is longer than 64 characters")]
    StateTooLong,
    /// RFC 6749 §3.1 allows each parameter once.
    #[error("a parameter of the callback is repeated")]
    Repeated,
    #[error("the code is longer than 16 KiB")]
    CodeTooLong,
    #[error("a parameter of the callback is too long")]
    TooLong,
    #[error("the callback has both a code and an error")]
    CodeAndError,
    #[error("the callback has neither a code nor an error")]
    NeitherCodeNorError,
    /// RFC 9207 §2.4.
    #[error("the callback's issuer is missing or differs from the config's")]
    Issuer,
}

/// Returns the `state`, which identifies the login. Needs no config: the config is known only after the login is.
pub(crate) fn state(raw_query: &str) -> Result<Secret, CallbackError> {
    let state = single(raw_query, "state")?.ok_or(CallbackError::StateMissing)?;
    if state.len() > MAX_STATE_BYTES { Err(CallbackError::StateTooLong) } else { Ok(Secret::new(state)) }
}

/// Returns the names of the parameters that are read, as owned text.
pub(crate) fn parameters<T>(config: &IntegrationOauthConfig<T>) -> Vec<String> {
    let own = PARAMETERS.into_iter().map(str::to_owned).chain([config.code_param.clone()]);
    let variables = config.callback_variables().map(|(_, param)| param.to_owned());
    own.chain(config.callback_metadata.iter().cloned()).chain(variables).collect()
}

/// An error response (RFC 6749 §4.1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginError {
    pub code: ErrorCode,
    pub cause: Option<Cause>,
}

/// An authorization response: the provider's parameters in the callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorizationResponse {
    /// The authorization code, or the error of an error response.
    pub code: Result<Secret, LoginError>,
    /// The issuer that claims to have sent the response (RFC 9207).
    pub iss: Option<String>,
    /// The parameters in `callback_metadata`.
    pub metadata: Map<String, Value>,
    /// Values of variables that the callback sets, by the variables' names. Not checked yet.
    pub variables: BTreeMap<String, String>,
}

impl AuthorizationResponse {
    pub(crate) fn parse<T>(raw_query: &str, config: &IntegrationOauthConfig<T>) -> Result<Self, CallbackError> {
        state(raw_query)?;
        for name in ["error", "error_description", "error_uri", "iss"] {
            if single(raw_query, name)?.is_some_and(|value| value.len() > MAX_OTHER_BYTES) {
                return Err(CallbackError::TooLong);
            }
        }
        let code = single(raw_query, &config.code_param)?.map(Secret::new);
        let error = single(raw_query, "error")?;
        let code = match (code, error) {
            (Some(_), Some(_)) => return Err(CallbackError::CodeAndError),
            (None, None) => return Err(CallbackError::NeitherCodeNorError),
            (Some(code), None) if code.expose().len() > MAX_CODE_BYTES => return Err(CallbackError::CodeTooLong),
            (Some(code), None) => Ok(code),
            (None, Some(error)) => {
                let code = ErrorCode::of_callback(config, &error);
                let description = single(raw_query, "error_description")?;
                Err(LoginError { code, cause: Cause::of_callback(code, &error, description.as_deref()) })
            }
        };
        let iss = single(raw_query, "iss")?;
        let mut metadata = Map::new();
        for name in &config.callback_metadata {
            if let Some(value) = single(raw_query, name)? {
                if value.len() > MAX_OTHER_BYTES {
                    return Err(CallbackError::TooLong);
                }
                metadata.insert(name.clone(), Value::String(value));
            }
        }
        let mut variables = BTreeMap::new();
        for (name, param) in config.callback_variables() {
            if let Some(value) = single(raw_query, param)? {
                variables.insert(name.to_owned(), value);
            }
        }
        Ok(Self { code, iss, metadata, variables })
    }

    /// Checks the issuer of a response with a code or an error (RFC 9207 §2.4). Accepts any issuer if none is expected.
    pub(crate) fn check_issuer(&self, expected: Option<&str>) -> Result<(), CallbackError> {
        if expected.is_none() || expected == self.iss.as_deref() { Ok(()) } else { Err(CallbackError::Issuer) }
    }
}

/// Returns a parameter's value. An empty value counts as absent (RFC 6749 §3.1).
fn single(raw_query: &str, name: &str) -> Result<Option<String>, CallbackError> {
    if raw_query.len() > MAX_QUERY_BYTES {
        return Err(CallbackError::QueryTooLong);
    }
    let mut values = form_urlencoded::parse(raw_query.as_bytes()).filter(|(key, _)| key == name);
    let value = values.next().map(|(_, value)| value.into_owned());
    if values.next().is_some() { Err(CallbackError::Repeated) } else { Ok(value.filter(|value| !value.is_empty())) }
}

#[cfg(test)]
mod tests;
