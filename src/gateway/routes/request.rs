//! What a request holds: query, credential, ids, body. Read and bounded, never judged.

use std::collections::BTreeMap;
use std::fmt::Display;
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

/// Longest value of a query parameter. Providers' codes reach two KiB.
const MAX_VALUE: usize = 4096;
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request, taken apart.
pub(in crate::gateway) struct Asked {
    pub(in crate::gateway) operation: Operation,
    pub(in crate::gateway) names: PathNames,
    pub(in crate::gateway) query: Query,
    pub(in crate::gateway) raw_query: Secret,
    pub(in crate::gateway) headers: HeaderMap,
    pub(in crate::gateway) context: RequestContext,
}

/// What a signed request has to be about.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Seen<'a> {
    pub(in crate::gateway) method: &'a str,
    /// Path and query.
    pub(in crate::gateway) target: &'a str,
}

/// The query's parameters, each there once.
#[derive(Debug)]
pub(in crate::gateway) struct Query(BTreeMap<String, Secret>);

impl Query {
    pub(in crate::gateway) fn parse(raw: &str) -> Result<Self, HttpError> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(raw.as_bytes()) {
            if value.len() > MAX_VALUE {
                return Err(HttpError::bad(format!("parameter {} is longer than {MAX_VALUE} bytes", short(&name))));
            }
            let doubled = format!("parameter {} is given twice", short(&name));
            if parameters.insert(name.into_owned(), Secret::new(value)).is_some() {
                return Err(HttpError::bad(doubled));
            }
        }
        Ok(Self(parameters))
    }

    /// Takes a parameter out.
    pub(in crate::gateway) fn take(&mut self, name: &str) -> Option<Secret> {
        self.0.remove(name)
    }

    /// Takes a parameter out that has to be there.
    pub(in crate::gateway) fn need(&mut self, name: &str) -> Result<Secret, HttpError> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| HttpError::bad(format!("parameter {name} is missing")))
    }

    /// Moves a parameter into a call's body as it is.
    pub(in crate::gateway) fn pass(&mut self, name: &str, body: &mut Map<String, Value>) {
        if let Some(value) = self.take(name) {
            body.insert(name.to_owned(), value.expose().into());
        }
    }

    /// Takes a whole number out that lies between two bounds.
    pub(in crate::gateway) fn number<N>(&mut self, name: &str, least: N, most: N) -> Result<Option<N>, HttpError>
    where
        N: Copy + FromStr + PartialOrd + Display,
    {
        let Some(text) = self.take(name) else { return Ok(None) };
        let digits = text.expose().bytes().all(|byte| byte.is_ascii_digit());
        let number = text.expose().parse().ok().filter(|number| digits && (&least..=&most).contains(&number));
        let wrong = || HttpError::bad(format!("{name} must be a whole number from {least} to {most}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// Takes all parameters out whose names begin so, without that beginning.
    pub(in crate::gateway) fn take_all(&mut self, prefix: &str) -> Map<String, Value> {
        let (taken, left): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = left;
        let strip = |name: String| name.strip_prefix(prefix).unwrap_or_default().to_owned();
        taken.into_iter().map(|(name, value)| (strip(name), value.expose().into())).collect()
    }

    /// Refuses what is left.
    pub(in crate::gateway) fn end(&self) -> Result<(), HttpError> {
        let left: Vec<String> = self.0.keys().take(8).map(|name| short(name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(HttpError::bad(format!("unknown parameter {}", left.join(", "))))
    }
}

/// A name for an error's text, cut to a sane length.
fn short(name: &str) -> String {
    format!("`{}`", name.chars().take(64).collect::<String>())
}

/// The request's id: the one that came if it is sane, else a new one.
pub(in crate::gateway) fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let came = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(sane);
    came.map_or_else(system::random_id, str::to_owned)
}

/// A new trace (W3C Trace Context): version 00, 16 random bytes, 8 random bytes, sampled.
pub(in crate::gateway) fn new_traceparent() -> String {
    let (trace, parent) = (u128::from_be_bytes(system::random()), u64::from_be_bytes(system::random()));
    format!("00-{trace:032x}-{parent:016x}-01")
}

/// The W3C trace context when it has the form of version 00 or may be read as such.
pub(in crate::gateway) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &str| part.bytes().any(|byte| byte != b'0');
    let valid = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && nonzero(trace)
        && hex(parent, 16)
        && nonzero(parent)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    (valid && text.len() <= 128).then(|| text.to_owned())
}

/// The one credential that came.
pub(in crate::gateway) fn credential(headers: &HeaderMap, seen: Seen<'_>) -> Result<Credential, HttpError> {
    let (authorization, key) = (one(headers, &header::AUTHORIZATION)?, one(headers, &API_KEY)?);
    match (authorization, key) {
        (Some(_), Some(_)) => Err(HttpError::bad("both Authorization and X-Api-Key came; send one of them")),
        (Some(authorization), None) => {
            let wrong = HttpError::Unauthorized("Authorization must be `Bearer` followed by a token");
            proof(headers, authorization, seen)?.ok_or(wrong)
        }
        (None, Some(key)) => api_key(key).ok_or(HttpError::Unauthorized("X-Api-Key is empty")),
        (None, None) => Err(HttpError::Unauthorized("send Authorization: Bearer or X-Api-Key")),
    }
}

/// A credential that came beside the one in the link. A browser may add a scheme of its own for
/// whatever stands in front of us; such a one is no business of ours.
pub(in crate::gateway) fn credential_beside(
    headers: &HeaderMap,
    seen: Seen<'_>,
) -> Result<Option<Credential>, HttpError> {
    let (authorization, key) = (one(headers, &header::AUTHORIZATION)?, one(headers, &API_KEY)?);
    let proof = authorization.map(|authorization| proof(headers, authorization, seen)).transpose()?.flatten();
    Ok(proof.or_else(|| key.and_then(api_key)))
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, HttpError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HttpError::bad(format!("header {name} is given twice")));
    }
    value.to_str().map(Some).map_err(|_| HttpError::bad(format!("header {name} is not plain text")))
}

/// What `Authorization` holds, with what else a signed request brings; none when the scheme is none of ours.
fn proof(headers: &HeaderMap, authorization: &str, seen: Seen<'_>) -> Result<Option<Credential>, HttpError> {
    let Some((scheme, token)) = authorization.trim().split_once(' ') else { return Ok(None) };
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Ok(Some(Credential::new(Secret::new(format!("Bearer {token}")))));
    }
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Ok(None);
    }
    let mut parts = vec![SCHEME, token];
    for name in [HEADER_TIMESTAMP, HEADER_NONCE, HEADER_SIGNATURE] {
        let value = one(headers, &HeaderName::from_static(name))?.unwrap_or_default();
        if value.is_empty() || value.contains(' ') {
            return Err(HttpError::Unauthorized(
                "Authorization: NATS needs X-Nats-Timestamp, X-Nats-Nonce and X-Nats-Signature",
            ));
        }
        parts.push(value);
    }
    let Seen { method, target } = seen;
    parts.extend([method, target]);
    Ok(Some(Credential::new(Secret::new(parts.join(" ")))))
}

fn api_key(key: &str) -> Option<Credential> {
    let key = key.trim();
    (!key.is_empty()).then(|| Credential::new(Secret::new(format!("X-Api-Key {key}"))))
}

/// The cookies that bind logins to this browser.
pub(in crate::gateway) fn login_cookies(headers: &HeaderMap) -> Vec<Cookie> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(|(name, _)| name.starts_with(COOKIE_PREFIX))
        .map(|(name, value)| Cookie { name: name.to_owned(), value: Secret::new(value) })
        .collect()
}

/// Whether a name and value make a cookie of ours.
pub(in crate::gateway) fn is_login_cookie(name: &str, value: &str) -> bool {
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    name.strip_prefix(COOKIE_PREFIX).is_some_and(|rest| !rest.is_empty() && plain(rest)) && plain(value)
}

/// Whether a browser only guesses that somebody will want to come here.
pub(in crate::gateway) fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].into_iter().any(|name| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .map(str::to_ascii_lowercase)
            .any(|value| ["prefetch", "prerender", "preview"].into_iter().any(|purpose| value.contains(purpose)))
    })
}

/// Whether the caller would rather have HTML than JSON.
pub(in crate::gateway) fn prefers_html(headers: &HeaderMap) -> bool {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    quality(&accept, "text/html", &["text/html"]) > quality(&accept, "application/json", &["application/*", "*/*"])
}

/// How much a media type is wanted, in thousandths: its own entry counts, else the first of the ranges.
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

/// A weight of RFC 9110 (`0.8`) in thousandths; anything else is no wish at all.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    match whole {
        "1" => 1000,
        "0" => format!("{fraction:0<3}").get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

/// Reads a body that is small and comes in time.
pub(in crate::gateway) async fn body<B>(body: &mut B, most: usize, deadline: Instant) -> Result<Bytes, HttpError>
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
        Ok(Err(_)) => Err(HttpError::bad("the body could not be read")),
        Err(_) => Err(HttpError::bad("the body did not come in time")),
    }
}

/// Reads on behind what was refused, up to a bound and within the body's time: a client that is cut off while it still
/// sends may never see the answer.
pub(in crate::gateway) async fn drain<B: Body + Unpin>(body: &mut B, most: usize, deadline: Instant) {
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
    // Whatever is not there by then is not waited for.
    let _ = tokio::time::timeout_at(deadline, reading).await;
}

#[cfg(test)]
mod tests;
