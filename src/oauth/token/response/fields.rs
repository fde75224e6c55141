//! Fields of a token response.

use jiff::Timestamp;
use serde_json::Value;

use super::TokenError;
use crate::foreign_text::has_hidden;
use crate::integration::{ExpiresInUnit, IntegrationOauthConfig, value_at};
use crate::secret::Secret;

pub(super) const MAX_SCOPE_BYTES: usize = 16 * 1024;
/// Of one value.
pub(super) const MAX_METADATA_BYTES: usize = 4 * 1024;
/// Ten years. A longer lifetime is a mistake and counts as absent.
pub(super) const MAX_LIFETIME_SECONDS: i64 = 10 * 366 * 86400;
/// A Unix time from this number on is in milliseconds: as seconds it is the year 5138, as milliseconds 1973.
const FIRST_MILLISECONDS: f64 = 1e11;
/// Stands for bytes that are no UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// Finds fields in a response.
pub(super) struct Fields<'a, T> {
    config: &'a IntegrationOauthConfig<T>,
    root: &'a Value,
    /// The object at `token_response_path`.
    nested: Option<&'a Value>,
    /// True if both have an access token: the root's fields then belong to another grant.
    has_two_grants: bool,
}

impl<'a, T> Fields<'a, T> {
    pub(super) fn of(root: &'a Value, config: &'a IntegrationOauthConfig<T>) -> Self {
        let nested = config.token_response_path.as_deref().and_then(|path| value_at(root, path));
        let mut fields = Self { config, root, nested, has_two_grants: false };
        let tokens = fields.values("access_token").filter(|value| value.as_str().is_some_and(|text| !text.is_empty()));
        fields.has_two_grants = tokens.count() > 1 && fields.config.answer_paths("access_token").is_none();
        fields
    }

    /// Returns the values of a field, in the object at `token_response_path` first. If the response has two
    /// grants, the config's own paths lead everywhere, but the names of the RFC only into that object.
    fn values(&self, field: &'a str) -> impl Iterator<Item = &'a Value> {
        let (own, config) = ([field], self.config);
        let named = config.answer_paths(field);
        let root = (named.is_some() || !self.has_two_grants).then_some(self.root);
        let places: Vec<&Value> = self.nested.into_iter().chain(root).collect();
        let paths: Vec<&str> = named.map_or_else(|| own.to_vec(), |paths| paths.iter().map(String::as_str).collect());
        places.into_iter().flat_map(move |place| paths.clone().into_iter().filter_map(|path| value_at(place, path)))
    }

    /// Returns a token. A blank token, or one that is no string, counts as absent: some providers send
    /// `"refresh_token": false` beside the access token, and an error would lose the grant. A token must be exact, so bytes
    /// that are no UTF-8 are an error. So are control characters, which would break the header of the requests that use the
    /// token.
    pub(super) fn secret(&self, field: &'static str, max: usize) -> Result<Option<Secret>, TokenError> {
        match self.values(field).filter_map(Value::as_str).find(|text| !text.trim().is_empty()) {
            None => Ok(None),
            Some(text) if text.len() > max => Err(TokenError::TooLarge { part: field, most: max }),
            Some(text) if text.contains(|char: char| char.is_control() || char == REPLACEMENT) => {
                Err(TokenError::Unreadable)
            }
            Some(text) => Ok(Some(Secret::new(text))),
        }
    }

    pub(super) fn text(&self, field: &'static str, max: usize) -> Option<String> {
        self.values(field).find_map(|value| text(value, max))
    }

    /// Returns the scope: a string (RFC 6749 §3.3) or a list of strings.
    pub(super) fn scope(&self) -> Option<String> {
        self.values("scope").find_map(|value| {
            let Value::Array(scopes) = value else { return text(value, MAX_SCOPE_BYTES) };
            let joined = scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
            text(&Value::from(joined), MAX_SCOPE_BYTES)
        })
    }

    /// Returns true if the response has a scope, of any size.
    pub(super) fn has_scope(&self) -> bool {
        self.values("scope").any(|value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(scopes) => scopes.iter().any(Value::is_string),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        })
    }

    /// Returns the seconds of a lifetime: from the field that has it, or from the one with the time at which it ends.
    pub(super) fn lifetime(&self, seconds: &'static str, end: &'static str, now: Timestamp) -> Option<i64> {
        let unit = self.config.expires_in_unit;
        let lifetime = self.values(seconds).find_map(|value| lifetime(value, unit));
        lifetime.or_else(|| self.values(end).find_map(|value| time_until(value, now)))
    }
}

fn text(value: &Value, max: usize) -> Option<String> {
    let text = value.as_str()?;
    (!text.is_empty() && text.len() <= max && !has_hidden(text)).then(|| text.to_owned())
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

/// Returns true if only its size keeps the value from becoming metadata.
pub(super) fn is_large(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        Value::String(_) | Value::Array(_) => value.to_string().len() > MAX_METADATA_BYTES && !is_plain(value),
    }
}

/// Returns whole seconds, at least 1. Returns `None` for a value that is not a number or is out of range.
fn lifetime(value: &Value, unit: ExpiresInUnit) -> Option<i64> {
    let number = number(value)?;
    whole_seconds(match unit {
        ExpiresInUnit::Seconds => number,
        ExpiresInUnit::Milliseconds => number / 1000.0,
    })
}

/// Returns the seconds until a time: a Unix time in seconds or milliseconds, or RFC 3339.
#[expect(clippy::cast_precision_loss, reason = "times of this millennium in milliseconds are exact")]
fn time_until(value: &Value, now: Timestamp) -> Option<i64> {
    let written = || value.as_str()?.trim().parse::<Timestamp>().ok().map(|time| time.as_millisecond() as f64 / 1000.0);
    let unix = |number: f64| if number < FIRST_MILLISECONDS { number } else { number / 1000.0 };
    let end = number(value).map(unix).or_else(written)?;
    whole_seconds(end - now.as_millisecond() as f64 / 1000.0)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn whole_seconds(seconds: f64) -> Option<i64> {
    #[expect(clippy::cast_precision_loss, reason = "ten years in seconds are exact")]
    let is_in_range = seconds > 0.0 && seconds <= MAX_LIFETIME_SECONDS as f64;
    #[expect(clippy::cast_possible_truncation, reason = "between zero and ten years; drops the fraction")]
    is_in_range.then_some((seconds as i64).max(1))
}
