//! Token responses (RFC 6749 §5). Tolerates the known deviations of real providers.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::integration::{ExpiresInUnit, IntegrationOauthConfig};
use crate::oauth::error::{ErrorCode, ErrorKind};
use crate::secret::Secret;

const MAX_BODY_BYTES: usize = 256 * 1024;
const MAX_ACCESS_TOKEN_BYTES: usize = 128 * 1024;
const MAX_REFRESH_TOKEN_BYTES: usize = 16 * 1024;
const MAX_TOKEN_TYPE_BYTES: usize = 64;
const MAX_SCOPE_BYTES: usize = 16 * 1024;
/// Of one value.
const MAX_METADATA_BYTES: usize = 4 * 1024;
/// Ten years. A longer lifetime is a mistake and counts as absent.
const MAX_LIFETIME_SECONDS: i64 = 10 * 366 * 86400;

/// A successful token response (RFC 6749 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// Never empty.
    pub access_token: Secret,
    /// As in the response; `Bearer` when absent.
    pub token_type: String,
    /// Never empty.
    pub refresh_token: Option<Secret>,
    /// Seconds, from 1 to ten years; absent if neither the response nor the config has a valid lifetime.
    pub expires_in: Option<i64>,
    /// Time of the response plus `expires_in`.
    pub expiry: Option<Timestamp>,
    /// The granted scopes, if the response has them.
    pub scope: Option<String>,
    /// The values at the config's `metadata_paths`, by path.
    pub metadata: Map<String, Value>,
}

/// A token response without tokens. Contains no text of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// An error response (RFC 6749 §5.2).
    #[error("{0}")]
    Oauth(ErrorCode),
    /// Status 429. The response's `Retry-After` may say when to try again.
    #[error("rate limited by the provider")]
    RateLimited,
    /// Status 5xx, with any body.
    #[error("the provider failed with status {0}")]
    ServerError(u16),
    /// The body has neither tokens nor an error code, or the status is not 2xx.
    #[error("the provider's response is not a valid token response")]
    Unreadable,
    /// The body or a token is over its limit.
    #[error("the provider's response is too large")]
    TooLarge,
}

impl TokenError {
    /// Returns the reason in events.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Oauth(code) => code.as_str(),
            Self::RateLimited => "rate_limited",
            Self::ServerError(_) => "provider_error",
            Self::Unreadable => "unreadable_answer",
            Self::TooLarge => "answer_too_large",
        }
    }

    /// Returns true if the request may be sent again with the next client secret. The provider rejected the client
    /// before it looked at the grant, so neither the authorization code nor the refresh token is used up.
    #[must_use]
    pub(crate) fn allows_next_secret(&self) -> bool {
        matches!(self, Self::Oauth(code) if code.kind() == ErrorKind::InvalidClient)
    }
}

/// Parses a token response. Success is a 2xx with a non-empty `access_token`, no `error` and no `"ok": false`. The
/// content type is only a hint: providers often mislabel bodies.
pub(crate) fn parse_response<T>(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
    config: &IntegrationOauthConfig<T>,
    now: Timestamp,
) -> Result<TokenSet, TokenError> {
    match status {
        429 => return Err(TokenError::RateLimited),
        500.. => return Err(TokenError::ServerError(status)),
        _ if body.len() > MAX_BODY_BYTES => return Err(TokenError::TooLarge),
        _ => {}
    }
    let response = parse_body(content_type, body).ok_or(TokenError::Unreadable)?;
    let token = config.token_response_path.as_deref().map_or(Some(&response), |path| value_at(&response, path));
    if let Some(code) = error_code(&response).or_else(|| token.and_then(error_code)) {
        return Err(TokenError::Oauth(code));
    }
    if !(200..300).contains(&status) {
        return Err(TokenError::Unreadable);
    }
    token_set(&response, token.ok_or(TokenError::Unreadable)?, config, now)
}

fn token_set<T>(
    response: &Value,
    token: &Value,
    config: &IntegrationOauthConfig<T>,
    now: Timestamp,
) -> Result<TokenSet, TokenError> {
    let access_token = secret(token, "access_token", MAX_ACCESS_TOKEN_BYTES)?.ok_or(TokenError::Unreadable)?;
    let refresh_token = secret(token, "refresh_token", MAX_REFRESH_TOKEN_BYTES)?;
    let expires_in = token.get("expires_in").and_then(|value| lifetime(value, config.expires_in_unit));
    let expires_in = expires_in.or(config.default_expires_in.map(i64::from));
    let expiry = expires_in.and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok());
    let token_type = text(token, "token_type", MAX_TOKEN_TYPE_BYTES).unwrap_or_else(|| "Bearer".to_owned());
    let metadata = |path: &String| {
        value_at(response, path).filter(|value| is_plain(value)).map(|value| (path.clone(), value.clone()))
    };
    Ok(TokenSet {
        access_token,
        token_type,
        refresh_token,
        expires_in: expires_in.filter(|_| expiry.is_some()),
        expiry,
        scope: scope(token),
        metadata: config.metadata_paths.iter().filter_map(metadata).collect(),
    })
}

fn parse_body(content_type: Option<&str>, body: &[u8]) -> Option<Value> {
    let body = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}').trim();
    let json = || serde_json::from_str::<Value>(body).ok().filter(Value::is_object);
    if content_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("urlencoded")) {
        form(body).or_else(json)
    } else {
        json().or_else(|| form(body))
    }
}

/// Parses a form with an `access_token` or an `error`. Rejects repeated parameters, and characters that a form doesn't
/// have: an HTML page may contain a link to `?a=1&access_token=x`.
fn form(body: &str) -> Option<Value> {
    if !body.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"')) {
        return None;
    }
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(body.as_bytes()) {
        if fields.insert(name.into_owned(), Value::from(value.into_owned())).is_some() {
            return None;
        }
    }
    let is_response = fields.contains_key("access_token") || fields.contains_key("error");
    is_response.then_some(Value::Object(fields))
}

fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

fn error_code(value: &Value) -> Option<ErrorCode> {
    let is_refused = value.get("ok") == Some(&Value::Bool(false));
    match value.get("error") {
        None | Some(Value::Null) => is_refused.then_some(ErrorCode::Unknown),
        Some(Value::String(code)) if code.is_empty() => is_refused.then_some(ErrorCode::Unknown),
        Some(Value::String(code)) => Some(ErrorCode::parse(code)),
        Some(other) => {
            let code = other.get("code").or_else(|| other.get("type")).and_then(Value::as_str);
            Some(code.map_or(ErrorCode::Unknown, ErrorCode::parse))
        }
    }
}

/// Returns a token. An empty token, or one that is no string, counts as absent: some providers send
/// `"refresh_token": false` beside the access token, and an error would lose the grant. Control characters are an error,
/// because they would break the header of the requests that use the token.
fn secret(token: &Value, name: &str, max: usize) -> Result<Option<Secret>, TokenError> {
    match token.get(name).and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some(text) if text.len() > max => Err(TokenError::TooLarge),
        Some(text) if text.contains(char::is_control) => Err(TokenError::Unreadable),
        Some(text) => Ok(Some(Secret::new(text))),
    }
}

fn text(token: &Value, name: &str, max: usize) -> Option<String> {
    let text = token.get(name)?.as_str()?;
    (!text.is_empty() && text.len() <= max && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// Returns the scope: a string (RFC 6749 §3.3) or a list of strings.
fn scope(token: &Value) -> Option<String> {
    let Some(Value::Array(scopes)) = token.get("scope") else { return text(token, "scope", MAX_SCOPE_BYTES) };
    let joined = scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    (!joined.is_empty() && joined.len() <= MAX_SCOPE_BYTES).then_some(joined)
}

/// Returns true if the value may become metadata. Objects may not: they could contain a token.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Object(_) => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= MAX_METADATA_BYTES,
        Value::Array(values) => {
            values.iter().all(|value| !value.is_array() && is_plain(value))
                && value.to_string().len() <= MAX_METADATA_BYTES
        }
    }
}

/// Returns whole seconds, at least 1. Returns `None` for a value that is not a number or is out of range.
fn lifetime(value: &Value, unit: ExpiresInUnit) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let seconds = match unit {
        ExpiresInUnit::Seconds => number,
        ExpiresInUnit::Milliseconds => number / 1000.0,
    };
    #[expect(clippy::cast_precision_loss, reason = "ten years in seconds are exact")]
    let is_in_range = seconds > 0.0 && seconds <= MAX_LIFETIME_SECONDS as f64;
    #[expect(clippy::cast_possible_truncation, reason = "between zero and ten years; drops the fraction")]
    is_in_range.then_some((seconds as i64).max(1))
}

#[cfg(test)]
mod tests;
