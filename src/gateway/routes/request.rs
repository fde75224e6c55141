//! Parses a request: query, credential, ids, body. Each part has a limit, and credentials are not verified.

mod base_path;
mod body;
mod credential;
mod form;
mod query;

use hyper::header::{self, HeaderMap, HeaderValue, InvalidHeaderValue};

pub(in crate::gateway) use self::base_path::remove_base_path;
pub(in crate::gateway) use self::body::{drain_body, read_body};
pub(in crate::gateway) use self::credential::{RequestLine, callback_credential, credential};
pub(in crate::gateway) use self::form::form;
pub(in crate::gateway) use self::query::Query;
use crate::call::Operation;
use crate::command::{Cookie, is_plain_request_id};
use crate::gateway::backend::RequestContext;
use crate::gateway::routes::reply::REQUEST_ID;
use crate::gateway::routes::table::PathNames;
use crate::login::COOKIE_PREFIX;
use crate::secret::Secret;
use crate::system;

/// Longest trace context. Version 00 has 55 bytes; later versions may add fields.
const MAX_TRACEPARENT_BYTES: usize = 128;

/// A request without its body.
pub(in crate::gateway) struct ParsedRequest {
    pub(in crate::gateway) operation: Operation,
    pub(in crate::gateway) names: PathNames,
    pub(in crate::gateway) query: Query,
    pub(in crate::gateway) raw_query: Secret,
    pub(in crate::gateway) headers: HeaderMap,
    pub(in crate::gateway) context: RequestContext,
}

/// Returns the client's request id if it is short plain text, else a new one.
pub(in crate::gateway) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_plain_request_id(id));
    given.map_or_else(system::random_id, str::to_owned)
}

/// Starts a trace (W3C Trace Context): version 00, 16 random bytes, 8 random bytes, sampled.
pub(in crate::gateway) fn new_traceparent() -> String {
    let (trace, parent) = (u128::from_be_bytes(system::random()), u64::from_be_bytes(system::random()));
    format!("00-{trace:032x}-{parent:016x}-01")
}

/// Returns the W3C trace context if it has the form of version 00, or of a later version that extends it.
pub(in crate::gateway) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &str| part.bytes().any(|byte| byte != b'0');
    let is_valid = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && nonzero(trace)
        && hex(parent, 16)
        && nonzero(parent)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    (is_valid && text.len() <= MAX_TRACEPARENT_BYTES).then(|| text.to_owned())
}

/// Returns the cookies that bind logins to this browser.
pub(in crate::gateway) fn login_cookies(headers: &HeaderMap) -> Vec<Cookie> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(|(name, _)| name.starts_with(COOKIE_PREFIX))
        .map(|(name, value)| Cookie { name: name.to_owned(), value: Secret::new(value) })
        .collect()
}

/// Builds a `Set-Cookie` header for a cookie that binds a login. `max_age` is in seconds; 0 clears the cookie.
pub(in crate::gateway) fn set_login_cookie(
    name: &str,
    value: &str,
    max_age: u64,
) -> Result<HeaderValue, InvalidHeaderValue> {
    // `Lax`, because the provider sends the browser to the callback from another site.
    HeaderValue::from_str(&format!("{name}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax"))
}

/// Returns true if name and value can be set as a cookie that binds a login.
pub(in crate::gateway) fn is_login_cookie(name: &str, value: &str) -> bool {
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    name.strip_prefix(COOKIE_PREFIX).is_some_and(|rest| !rest.is_empty() && is_plain(rest)) && is_plain(value)
}

/// Returns true if a browser prefetches the link before a person follows it.
pub(in crate::gateway) fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].into_iter().any(|name| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .map(str::to_ascii_lowercase)
            .any(|value| ["prefetch", "prerender", "preview"].into_iter().any(|purpose| value.contains(purpose)))
    })
}

/// Returns true if the client prefers HTML to JSON.
pub(in crate::gateway) fn prefers_html(headers: &HeaderMap) -> bool {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    quality(&accept, "text/html", &["text/html"]) > quality(&accept, "application/json", &["application/*", "*/*"])
}

/// Returns the weight of a media type in thousandths: from its exact entry, else from the first of the ranges that is listed.
fn quality(accept: &str, media_type: &str, ranges: &[&str]) -> u16 {
    let entries: Vec<(&str, u16)> = accept.split(',').map(entry).collect();
    let of = |wanted: &str| entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, q)| *q);
    of(media_type).or_else(|| ranges.iter().find_map(|range| of(range))).unwrap_or(0)
}

fn entry(text: &str) -> (&str, u16) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(1000, thousandths))
}

/// Parses a weight of RFC 9110 (`0.8`) into thousandths. An invalid weight is 0.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    match whole {
        "1" => 1000,
        "0" => format!("{fraction:0<3}").get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
