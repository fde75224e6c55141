//! The body of a token response: JSON or a form.

use serde_json::{Map, Value};
use url::form_urlencoded;

pub(super) fn parse_body(content_type: Option<&str>, body: &[u8]) -> Option<Value> {
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
