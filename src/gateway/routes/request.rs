//! Takes a request apart: query, credential, ids, body. Everything is bounded, and credentials are not verified.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::call::Operation;
use crate::command::{Cookie, Credential};
use crate::gateway::backend::RequestContext;
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::REQUEST_ID;
use crate::gateway::routes::table::PathNames;
use crate::login::COOKIE_PREFIX;
use crate::secret::Secret;
use crate::signed::{HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP, SCHEME};
use crate::system;

/// Longest value of a query parameter. Authorization codes of some providers have two KiB.
const MAX_VALUE_BYTES: usize = 4096;
/// Longest parameter name that an error text repeats.
const MAX_SHOWN_NAME_CHARS: usize = 64;
/// Most unknown parameters that an error text names.
const MAX_SHOWN_NAMES: usize = 8;
/// Longest request id that is taken from the client. It is written into the log and into the answer.
const MAX_REQUEST_ID_BYTES: usize = 64;
/// Longest trace context. Version 00 has 55 bytes; later versions may add fields.
const MAX_TRACEPARENT_BYTES: usize = 128;
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request without its body.
pub(in crate::gateway) struct ParsedRequest {
    pub(in crate::gateway) operation: Operation,
    pub(in crate::gateway) names: PathNames,
    pub(in crate::gateway) query: Query,
    pub(in crate::gateway) raw_query: Secret,
    pub(in crate::gateway) headers: HeaderMap,
    pub(in crate::gateway) context: RequestContext,
}

/// The part of the request line that a signed request covers.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct RequestLine<'a> {
    pub(in crate::gateway) method: &'a str,
    /// Path and query.
    pub(in crate::gateway) target: &'a str,
}

/// The query's parameters. Each occurs once.
#[derive(Debug)]
pub(in crate::gateway) struct Query(BTreeMap<String, Secret>);

impl Query {
    pub(in crate::gateway) fn parse(raw: &str) -> Result<Self, HttpError> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(raw.as_bytes()) {
            let shown = shown(&name);
            if value.len() > MAX_VALUE_BYTES {
                return Err(HttpError::bad_request(format!(
                    "parameter {shown} is longer than {MAX_VALUE_BYTES} bytes"
                )));
            }
            if parameters.insert(name.into_owned(), Secret::new(value)).is_some() {
                return Err(HttpError::bad_request(format!("parameter {shown} is given twice")));
            }
        }
        Ok(Self(parameters))
    }

    pub(in crate::gateway) fn take(&mut self, name: &str) -> Option<Secret> {
        self.0.remove(name)
    }

    /// Takes a parameter that must not be missing or empty.
    pub(in crate::gateway) fn require(&mut self, name: &str) -> Result<Secret, HttpError> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| HttpError::bad_request(format!("parameter {name} is missing")))
    }

    /// Moves a parameter unchanged into a call's body.
    pub(in crate::gateway) fn move_to(&mut self, name: &str, body: &mut Map<String, Value>) {
        if let Some(value) = self.take(name) {
            body.insert(name.to_owned(), value.expose().into());
        }
    }

    pub(in crate::gateway) fn number<N>(&mut self, name: &str, range: RangeInclusive<N>) -> Result<Option<N>, HttpError>
    where
        N: Copy + FromStr + PartialOrd + Display,
    {
        let Some(text) = self.take(name) else { return Ok(None) };
        let has_only_digits = text.expose().bytes().all(|byte| byte.is_ascii_digit());
        let number = text.expose().parse().ok().filter(|number| has_only_digits && range.contains(number));
        let (least, most) = (range.start(), range.end());
        let wrong = || HttpError::bad_request(format!("{name} must be a whole number from {least} to {most}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// Takes all parameters with this prefix, and returns them without it.
    pub(in crate::gateway) fn take_prefixed(&mut self, prefix: &str) -> Map<String, Value> {
        let (taken, left): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = left;
        let strip = |name: String| name.strip_prefix(prefix).unwrap_or_default().to_owned();
        taken.into_iter().map(|(name, value)| (strip(name), value.expose().into())).collect()
    }

    /// Rejects parameters that were not taken.
    pub(in crate::gateway) fn expect_empty(&self) -> Result<(), HttpError> {
        let left: Vec<String> = self.0.keys().take(MAX_SHOWN_NAMES).map(|name| shown(name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(HttpError::bad_request(format!("unknown parameter {}", left.join(", "))))
    }
}

/// A parameter's name as error texts show it.
fn shown(name: &str) -> String {
    format!("`{}`", name.chars().take(MAX_SHOWN_NAME_CHARS).collect::<String>())
}

/// Returns the client's request id if it is short plain text, else a new one.
pub(in crate::gateway) fn request_id(headers: &HeaderMap) -> String {
    let is_plain = |id: &&str| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_plain);
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

/// Returns the request's only credential.
pub(in crate::gateway) fn credential(headers: &HeaderMap, line: RequestLine<'_>) -> Result<Credential, HttpError> {
    let (authorization, key) = (single(headers, &header::AUTHORIZATION)?, single(headers, &API_KEY)?);
    match (authorization, key) {
        (Some(_), Some(_)) => Err(HttpError::bad_request("both Authorization and X-Api-Key came; send one of them")),
        (Some(authorization), None) => {
            let wrong = HttpError::Unauthorized("Authorization must be `Bearer` followed by a token");
            from_authorization(headers, authorization, line)?.ok_or(wrong)
        }
        (None, Some(key)) => api_key(key).ok_or(HttpError::Unauthorized("X-Api-Key is empty")),
        (None, None) => Err(HttpError::Unauthorized("send Authorization: Bearer or X-Api-Key")),
    }
}

/// Returns the credential of a callback, which needs none. Other schemes are ignored: a browser may send `Basic` for a
/// proxy before the gateway.
pub(in crate::gateway) fn callback_credential(
    headers: &HeaderMap,
    line: RequestLine<'_>,
) -> Result<Option<Credential>, HttpError> {
    let (authorization, key) = (single(headers, &header::AUTHORIZATION)?, single(headers, &API_KEY)?);
    let found = authorization.map(|text| from_authorization(headers, text, line)).transpose()?.flatten();
    Ok(found.or_else(|| key.and_then(api_key)))
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, HttpError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HttpError::bad_request(format!("header {name} is given twice")));
    }
    value.to_str().map(Some).map_err(|source| HttpError::HeaderNotText { name: name.clone(), source })
}

/// Returns the credential in `Authorization`, with the other headers of a signed request. `None` for other schemes.
fn from_authorization(
    headers: &HeaderMap,
    authorization: &str,
    line: RequestLine<'_>,
) -> Result<Option<Credential>, HttpError> {
    let Some((scheme, jwt)) = authorization.trim().split_once(' ') else { return Ok(None) };
    let jwt = jwt.trim();
    if jwt.is_empty() {
        return Ok(None);
    }
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Ok(Some(Credential::new(Secret::new(format!("Bearer {jwt}")))));
    }
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Ok(None);
    }
    let mut parts = vec![SCHEME, jwt];
    for name in [HEADER_TIMESTAMP, HEADER_NONCE, HEADER_SIGNATURE] {
        let value = single(headers, &HeaderName::from_static(name))?.unwrap_or_default();
        if value.is_empty() || value.contains(' ') {
            return Err(HttpError::Unauthorized(
                "Authorization: NATS needs X-Nats-Timestamp, X-Nats-Nonce and X-Nats-Signature",
            ));
        }
        parts.push(value);
    }
    let RequestLine { method, target } = line;
    parts.extend([method, target]);
    Ok(Some(Credential::new(Secret::new(parts.join(" ")))))
}

fn api_key(key: &str) -> Option<Credential> {
    let key = key.trim();
    (!key.is_empty()).then(|| Credential::new(Secret::new(format!("X-Api-Key {key}"))))
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

/// Reads a body of at most `most` bytes.
pub(in crate::gateway) async fn read_body<B>(body: &mut B, most: usize, deadline: Instant) -> Result<Bytes, HttpError>
where
    B: Body + Unpin,
    B::Data: Buf,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > most as u64 {
        return Err(HttpError::BodyTooLarge(most));
    }
    match tokio::time::timeout_at(deadline, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(HttpError::BodyTooLarge(most)),
        Ok(Err(error)) => Err(HttpError::BodyUnreadable(error)),
        Err(_elapsed) => Err(HttpError::bad_request("the body did not come in time")),
    }
}

/// Reads and discards the rest of a body, at most `most` bytes. A client whose connection is closed while it sends may
/// never see the answer.
pub(in crate::gateway) async fn drain_body<B: Body + Unpin>(body: &mut B, most: usize, deadline: Instant) {
    if body.is_end_stream() || body.size_hint().lower() > most as u64 {
        return;
    }
    let reading = async {
        let mut left = most;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Buf::remaining)) else { return };
            left = rest;
        }
    };
    // A client that is slower than this loses the answer.
    let _ = tokio::time::timeout_at(deadline, reading).await;
}

#[cfg(test)]
mod tests;
