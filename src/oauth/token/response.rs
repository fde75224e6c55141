//! What a token endpoint answers (RFC 6749 §5), as far as real ones keep to it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::integration::{ExpiresInUnit, IntegrationOauthConfig};
use crate::oauth::error::{ErrorCode, ErrorKind};
use crate::secret::Secret;

const MAX_BODY: usize = 256 * 1024;
const MAX_ACCESS_TOKEN: usize = 128 * 1024;
const MAX_REFRESH_TOKEN: usize = 16 * 1024;
const MAX_TOKEN_TYPE: usize = 64;
const MAX_SCOPE: usize = 16 * 1024;
const MAX_METADATA: usize = 4 * 1024;
/// Ten years: what calls itself longer is no lifetime.
const MAX_LIFETIME: i64 = 10 * 366 * 86400;

/// A successful answer (RFC 6749 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// Never empty.
    pub access_token: Secret,
    /// As the provider wrote it; `Bearer` when absent.
    pub token_type: String,
    /// Absent when the provider sends none or an empty one.
    pub refresh_token: Option<Secret>,
    /// Seconds; absent when no sane lifetime is known.
    pub expires_in: Option<i64>,
    /// The answer's time plus `expires_in`.
    pub expiry: Option<Timestamp>,
    /// What was granted, when the provider says so.
    pub scope: Option<String>,
    /// What the config wants kept, by dot path.
    pub metadata: Map<String, Value>,
}

/// Why there are no tokens. Nothing of the answer's text is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The provider says why (RFC 6749 §5.2).
    #[error("{0}")]
    Oauth(ErrorCode),
    /// Too many requests; the answer's `Retry-After` says when.
    #[error("the provider asks for fewer requests")]
    RateLimited,
    /// 5xx, whatever the body says.
    #[error("the provider failed with status {0}")]
    ServerError(u16),
    /// Neither tokens nor an error.
    #[error("the provider's answer is unreadable")]
    Unreadable,
    /// Body or token over its limit.
    #[error("the provider's answer is too large")]
    TooLarge,
}

impl TokenError {
    /// Its name in events, from a fixed list.
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

    /// Whether the next of the client's secrets may be tried: the provider refused the client
    /// itself, so it has not looked at the grant.
    #[must_use]
    pub(crate) fn retry_with_next_secret(&self) -> bool {
        matches!(self, Self::Oauth(code) if code.kind() == ErrorKind::InvalidClient)
    }
}

/// Judges an answer: success is 2xx with a non-empty `access_token`, no `error` and no
/// `"ok": false`. The content type is a hint only: bodies are often mislabelled.
///
/// # Errors
/// [`TokenError`] otherwise.
pub(crate) fn parse_answer<T>(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
    config: &IntegrationOauthConfig<T>,
    now: Timestamp,
) -> Result<TokenSet, TokenError> {
    match status {
        429 => return Err(TokenError::RateLimited),
        500.. => return Err(TokenError::ServerError(status)),
        _ if body.len() > MAX_BODY => return Err(TokenError::TooLarge),
        _ => {}
    }
    let answer = read(content_type, body).ok_or(TokenError::Unreadable)?;
    let token = config.token_response_path.as_deref().map_or(Some(&answer), |path| at(&answer, path));
    if let Some(code) = error_of(&answer).or_else(|| token.and_then(error_of)) {
        return Err(TokenError::Oauth(code));
    }
    if !(200..300).contains(&status) {
        return Err(TokenError::Unreadable);
    }
    token_set(&answer, token.ok_or(TokenError::Unreadable)?, config, now)
}

fn token_set<T>(
    answer: &Value,
    token: &Value,
    config: &IntegrationOauthConfig<T>,
    now: Timestamp,
) -> Result<TokenSet, TokenError> {
    let access_token = secret(token, "access_token", MAX_ACCESS_TOKEN)?.ok_or(TokenError::Unreadable)?;
    let refresh_token = secret(token, "refresh_token", MAX_REFRESH_TOKEN)?;
    let expires_in = token.get("expires_in").and_then(|value| lifetime(value, config.expires_in_unit));
    let expires_in = expires_in.or(config.default_expires_in.map(i64::from));
    let expiry = expires_in.and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok());
    let token_type = text(token, "token_type", MAX_TOKEN_TYPE).unwrap_or_else(|| "Bearer".to_owned());
    let kept =
        |path: &String| at(answer, path).filter(|value| is_plain(value)).map(|value| (path.clone(), value.clone()));
    Ok(TokenSet {
        access_token,
        token_type,
        refresh_token,
        expires_in: expires_in.filter(|_| expiry.is_some()),
        expiry,
        scope: scope(token),
        metadata: config.metadata_paths.iter().filter_map(kept).collect(),
    })
}

fn read(content_type: Option<&str>, body: &[u8]) -> Option<Value> {
    let body = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}').trim();
    let json = || serde_json::from_str::<Value>(body).ok().filter(Value::is_object);
    if content_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("urlencoded")) {
        form(body).or_else(json)
    } else {
        json().or_else(|| form(body))
    }
}

/// A form, if it has what makes it an answer. A parameter that comes twice makes it none, and so
/// does a character that no form has: a page may well link to `?a=1&access_token=x`.
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
    let is_answer = fields.contains_key("access_token") || fields.contains_key("error");
    is_answer.then_some(Value::Object(fields))
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

fn error_of(value: &Value) -> Option<ErrorCode> {
    let refused = value.get("ok") == Some(&Value::Bool(false));
    match value.get("error") {
        None | Some(Value::Null) => refused.then_some(ErrorCode::Unknown),
        Some(Value::String(code)) if code.is_empty() => refused.then_some(ErrorCode::Unknown),
        Some(Value::String(code)) => Some(ErrorCode::parse(code)),
        Some(other) => {
            let code = other.get("code").or_else(|| other.get("type")).and_then(Value::as_str);
            Some(code.map_or(ErrorCode::Unknown, ErrorCode::parse))
        }
    }
}

/// A token: absent when empty or no text, for an access token lost over a `false` beside it would cost the grant.
/// Control characters would break the header it will travel in.
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

/// A string (RFC 6749 §3.3), or a list of them.
fn scope(token: &Value) -> Option<String> {
    let Some(Value::Array(scopes)) = token.get("scope") else { return text(token, "scope", MAX_SCOPE) };
    let joined = scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    (!joined.is_empty() && joined.len() <= MAX_SCOPE).then_some(joined)
}

/// Objects are not kept: a token could sit in them.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Object(_) => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= MAX_METADATA,
        Value::Array(values) => {
            values.iter().all(|value| !value.is_array() && is_plain(value)) && value.to_string().len() <= MAX_METADATA
        }
    }
}

/// Whole seconds, at least one; `None` for zero, negative, endless and senseless ones.
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
    let sane = seconds > 0.0 && seconds <= MAX_LIFETIME as f64;
    #[expect(clippy::cast_possible_truncation, reason = "between zero and ten years; the fraction goes")]
    sane.then_some((seconds as i64).max(1))
}

#[cfg(test)]
mod tests;
