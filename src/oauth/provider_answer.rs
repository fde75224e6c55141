//! The part of a provider's error answer that operators see: in events, the log, and for the connection's own account.
//!
//! Providers repeat in their texts what they received, cut and encoded in any way. So the texts are cleaned of the
//! request's secrets, of the answer's own tokens, of everything that looks like a token, and of e-mail addresses. They
//! never reach a page.

mod clean;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::clean::Cleaner;
use super::{HttpRequest, json};
use crate::secret::Secret;

/// Longest error code, in characters.
const MAX_ERROR: usize = 100;
/// Longest description, in characters.
const MAX_DETAIL: usize = 300;
/// Fields that hold a description, by how common they are.
const DETAILS: [&str; 6] = ["error_description", "error_message", "message", "detail", "description", "reason"];
/// Fields of an `error` that is an object, or of an answer without `error`.
const CODES: [&str; 5] = ["code", "type", "error_code", "errorCode", "status"];
/// Fields of an answer whose values are secret in any form.
const SECRET_FIELDS: [&str; 3] = ["access_token", "refresh_token", "id_token"];

/// An answer without tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProviderAnswer {
    /// HTTP status; 0 without an answer, if only `detail` says why.
    #[serde(rename = "provider_status", default, skip_serializing_if = "is_zero")]
    pub status: u16,
    /// The provider's own error code.
    #[serde(rename = "provider_error", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The provider's description.
    #[serde(rename = "provider_detail", default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(status: &u16) -> bool {
    *status == 0
}

impl ProviderAnswer {
    /// The reason why there is no answer.
    pub(crate) fn missing(detail: String) -> Self {
        Self { detail: Some(detail), ..Self::default() }
    }

    /// Reads an answer to that request. `secrets` may be parts of the request's headers and texts.
    pub(crate) fn read<'a>(
        status: u16,
        body: &[u8],
        request: &HttpRequest,
        secrets: impl IntoIterator<Item = &'a Secret>,
    ) -> Self {
        let answer = parse(body);
        let mut cleaner = Cleaner::of(request);
        secrets.into_iter().for_each(|secret| cleaner.add(secret.expose()));
        for object in [Some(&answer), answer.get("data"), answer.get("authed_user")].into_iter().flatten() {
            SECRET_FIELDS.iter().filter_map(|name| object.get(*name)?.as_str()).for_each(|token| cleaner.add(token));
        }
        let clean = |text: String, most| Some(cleaner.clean(&text, most)).filter(|text| !text.is_empty());
        Self {
            status,
            error: error_of(&answer).and_then(|text| clean(text, MAX_ERROR)),
            detail: detail_of(&answer).and_then(|text| clean(text, MAX_DETAIL)),
        }
    }
}

/// Reads JSON, or a form. Any other text, such as a page, has no known fields.
fn parse(body: &[u8]) -> Value {
    let text = String::from_utf8_lossy(body);
    json::parse(&text).unwrap_or_else(|| {
        let pairs = url::form_urlencoded::parse(text.trim().as_bytes()).into_owned();
        Value::Object(pairs.map(|(name, value)| (name, Value::String(value))).collect())
    })
}

fn error_of(answer: &Value) -> Option<String> {
    match answer.get("error") {
        Some(error @ Value::Object(_)) => field(error, &CODES),
        Some(Value::String(code)) => Some(code.clone()),
        Some(Value::Number(code)) => Some(code.to_string()),
        Some(Value::Null | Value::Bool(_) | Value::Array(_)) | None => field(answer, &CODES),
    }
}

fn detail_of(answer: &Value) -> Option<String> {
    let first = answer.get("errors").and_then(|errors| errors.get(0));
    [Some(answer), answer.get("error"), first].into_iter().flatten().find_map(|object| field(object, &DETAILS))
}

fn field(object: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match object.get(*name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    })
}

#[cfg(test)]
mod tests;
