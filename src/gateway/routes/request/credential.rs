//! Extracts the credential from a request's headers. Only its form is checked: workers verify it.

use hyper::header::{self, HeaderMap, HeaderName};

use crate::command::Credential;
use crate::gateway::routes::error::HttpError;
use crate::secret::Secret;
use crate::signed::{HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP, SCHEME};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The part of the request line that a signed request covers.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct RequestLine<'a> {
    pub(in crate::gateway) method: &'a str,
    /// Path and query.
    pub(in crate::gateway) target: &'a str,
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

pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, HttpError> {
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
