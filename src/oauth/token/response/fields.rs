//! Fields of a token response.

use serde_json::Value;

use super::TokenError;
use crate::integration::ExpiresInUnit;
use crate::secret::Secret;

pub(super) const MAX_SCOPE_BYTES: usize = 16 * 1024;
/// Of one value.
pub(super) const MAX_METADATA_BYTES: usize = 4 * 1024;
/// Ten years. A longer lifetime is a mistake and counts as absent.
pub(super) const MAX_LIFETIME_SECONDS: i64 = 10 * 366 * 86400;

/// Returns a token. An empty token, or one that is no string, counts as absent: some providers send
/// `"refresh_token": false` beside the access token, and an error would lose the grant. Control characters are an error,
/// because they would break the header of the requests that use the token.
pub(super) fn secret(token: &Value, name: &str, max: usize) -> Result<Option<Secret>, TokenError> {
    match token.get(name).and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some(text) if text.len() > max => Err(TokenError::TooLarge),
        Some(text) if text.contains(char::is_control) => Err(TokenError::Unreadable),
        Some(text) => Ok(Some(Secret::new(text))),
    }
}

pub(super) fn text(token: &Value, name: &str, max: usize) -> Option<String> {
    let text = token.get(name)?.as_str()?;
    (!text.is_empty() && text.len() <= max && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// Returns the scope: a string (RFC 6749 §3.3) or a list of strings.
pub(super) fn scope(token: &Value) -> Option<String> {
    let Some(Value::Array(scopes)) = token.get("scope") else { return text(token, "scope", MAX_SCOPE_BYTES) };
    let joined = scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    (!joined.is_empty() && joined.len() <= MAX_SCOPE_BYTES).then_some(joined)
}

/// Returns true if the value may become metadata. Objects may not: they could contain a token.
pub(super) fn is_plain(value: &Value) -> bool {
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
pub(super) fn lifetime(value: &Value, unit: ExpiresInUnit) -> Option<i64> {
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
