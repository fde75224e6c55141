//! The authorization response (RFC 6749 §4.1.2), with its issuer (RFC 9207).

use serde_json::{Map, Value};
use url::form_urlencoded;

use super::error::ErrorCode;
use crate::integration::IntegrationOauthConfig;
use crate::secret::Secret;

const MAX_QUERY: usize = 8 * 1024;
const MAX_STATE: usize = 64;
const MAX_CODE: usize = 4096;
const MAX_OTHER: usize = 2048;

/// A callback that is no answer to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallbackError {
    /// The whole query.
    #[error("the query is longer than 8 KiB")]
    QueryTooLong,
    /// No `state`.
    #[error("state is missing")]
    StateMissing,
    /// More than 64 characters.
    #[error("state is longer than 64 characters")]
    StateTooLong,
    /// A parameter that may come once came again (RFC 6749 §3.1).
    #[error("a parameter of the callback is doubled")]
    Doubled,
    /// More than 4096 bytes.
    #[error("the code is longer than 4096 characters")]
    CodeTooLong,
    /// Another parameter is too long.
    #[error("a parameter of the callback is too long")]
    TooLong,
    /// Code and error in one answer.
    #[error("the callback has both a code and an error")]
    CodeAndError,
    /// Neither of the two.
    #[error("the callback has neither a code nor an error")]
    NeitherCodeNorError,
    /// RFC 9207 §2.4: absent or different.
    #[error("the callback's issuer is not the one configured")]
    Issuer,
}

/// The state of a callback, which says whose it is.
///
/// # Errors
/// [`CallbackError`] when it is missing, doubled or over-long, or the query is.
pub(crate) fn state(raw_query: &str) -> Result<Secret, CallbackError> {
    let state = single(raw_query, "state")?.ok_or(CallbackError::StateMissing)?;
    if state.len() > MAX_STATE { Err(CallbackError::StateTooLong) } else { Ok(Secret::new(state)) }
}

/// What the provider sent back through the browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The code, or why there is none.
    pub result: Result<Secret, ErrorCode>,
    /// The issuer that says it sent this (RFC 9207).
    pub iss: Option<String>,
    /// What the config wants kept.
    pub kept: Map<String, Value>,
}

impl Answer {
    /// Reads the query by the config.
    ///
    /// # Errors
    /// [`CallbackError`] when a parameter is doubled or over-long, or it is no answer at all.
    pub(crate) fn parse<T>(raw_query: &str, config: &IntegrationOauthConfig<T>) -> Result<Self, CallbackError> {
        state(raw_query)?;
        for name in ["error", "error_description", "error_uri", "iss"] {
            if single(raw_query, name)?.is_some_and(|value| value.len() > MAX_OTHER) {
                return Err(CallbackError::TooLong);
            }
        }
        let code = single(raw_query, &config.code_param)?.map(Secret::new);
        let error = single(raw_query, "error")?;
        let result = match (code, error) {
            (Some(_), Some(_)) => return Err(CallbackError::CodeAndError),
            (None, None) => return Err(CallbackError::NeitherCodeNorError),
            (Some(code), None) if code.expose().len() > MAX_CODE => return Err(CallbackError::CodeTooLong),
            (Some(code), None) => Ok(code),
            (None, Some(error)) => Err(ErrorCode::parse(&error)),
        };
        let iss = single(raw_query, "iss")?;
        let mut kept = Map::new();
        for name in &config.callback_metadata {
            if let Some(value) = single(raw_query, name)? {
                if value.len() > MAX_OTHER {
                    return Err(CallbackError::TooLong);
                }
                kept.insert(name.clone(), Value::String(value));
            }
        }
        Ok(Self { result, iss, kept })
    }

    /// Judges the issuer (RFC 9207 §2.4), of error answers too. Nothing configured, nothing judged.
    ///
    /// # Errors
    /// [`CallbackError::Issuer`] when the configured one is absent or different.
    pub(crate) fn check_issuer<T>(&self, config: &IntegrationOauthConfig<T>) -> Result<(), CallbackError> {
        if config.issuer.is_none() || config.issuer == self.iss { Ok(()) } else { Err(CallbackError::Issuer) }
    }
}

/// A parameter's value; empty counts as absent (RFC 6749 §3.1).
fn single(raw_query: &str, name: &str) -> Result<Option<String>, CallbackError> {
    if raw_query.len() > MAX_QUERY {
        return Err(CallbackError::QueryTooLong);
    }
    let mut values = form_urlencoded::parse(raw_query.as_bytes()).filter(|(key, _)| key == name);
    let value = values.next().map(|(_, value)| value.into_owned());
    if values.next().is_some() { Err(CallbackError::Doubled) } else { Ok(value.filter(|value| !value.is_empty())) }
}

#[cfg(test)]
mod tests;
