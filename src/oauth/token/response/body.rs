//! The body of a token response: JSON or a form.

use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::oauth::json;

/// Parses a JSON object, or a form that has one of the fields.
pub(super) fn parse_body(content_type: Option<&str>, text: &str, fields: &[&str]) -> Option<Value> {
    let body = text.trim_start_matches('\u{feff}').trim();
    let object = || json::parse(body).filter(Value::is_object);
    if content_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("urlencoded")) {
        form(body, fields).or_else(object)
    } else {
        object().or_else(|| form(body, fields))
    }
}

/// Parses a form with one of the fields. Rejects repeated parameters, and characters that a form doesn't have: an HTML page
/// may contain a link to `?a=1&access_token=x`.
fn form(body: &str, fields: &[&str]) -> Option<Value> {
    let is_foreign = |char: char| char.is_control() || char.is_whitespace() || matches!(char, '<' | '>' | '"');
    if body.contains(is_foreign) {
        return None;
    }
    let mut found = Map::new();
    for (name, value) in form_urlencoded::parse(body.as_bytes()) {
        if found.insert(name.into_owned(), Value::from(value.into_owned())).is_some() {
            return None;
        }
    }
    fields.iter().any(|field| found.contains_key(*field)).then_some(Value::Object(found))
}
