//! Headers that a config adds to requests.

use std::collections::BTreeMap;

use super::form::below;
use super::{MAX_TEXT, printable, require};
use crate::integration::ConfigError;
use crate::secret::Secret;

/// Headers that the HTTP client sets, or that belong to one connection (RFC 9110 §7.6.1).
const RESERVED: [&str; 8] =
    ["cookie", "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
/// Starts of such headers: the body's own, and those for a proxy.
const RESERVED_STARTS: [&str; 2] = ["content-", "proxy-"];
/// Headers by which some servers and proxies choose another path, host or method than the request's, so that a token would
/// reach another API than that of the URL.
const REROUTING: [&str; 10] = [
    "forwarded",
    "destination",
    "x-host",
    "x-path",
    "x-uri",
    "x-url",
    "request-uri",
    "base-url",
    "http-url",
    "x-proxy-url",
];
/// Starts of such headers.
const REROUTING_STARTS: [&str; 9] = [
    "x-forwarded-",
    "x-forward-",
    "x-original-",
    "x-rewrite-",
    "x-override-",
    "x-http-",
    "x-method-",
    "x-envoy-",
    "x-accel-",
];
pub(super) const AUTHORIZATION: &str = "authorization";

/// A header's value: plain in requests to the provider's API, a secret in `token_headers`.
pub(super) trait HeaderValue {
    fn text(&self) -> &str;
}

impl HeaderValue for String {
    fn text(&self) -> &str {
        self
    }
}

impl HeaderValue for Secret {
    fn text(&self) -> &str {
        self.expose()
    }
}

/// Checks each header. A name in two spellings is one header, of which only one value would be sent.
pub(super) fn check(set: &str, headers: &BTreeMap<String, impl HeaderValue>) -> Result<(), ConfigError> {
    for (name, value) in headers {
        let field = below(set, &printable(name));
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        require(is_name, &field, "a header's name of at most 64 letters, digits or `_-.`")?;
        // Servers that hand headers on as variables (CGI, WSGI) take `_` and `-` for the same.
        let dashed = name.to_ascii_lowercase().replace('_', "-");
        let is_in = |names: &[&str], starts: &[&str]| {
            names.contains(&&*dashed) || starts.iter().any(|start| dashed.starts_with(start))
        };
        let is_reserved = is_in(&RESERVED, &RESERVED_STARTS);
        require(!is_reserved, &field, "absent: tokenbus, HTTP itself or a proxy sets this header")?;
        let expected = "absent: some servers choose another path, host or method by this header";
        require(!is_in(&REROUTING, &REROUTING_STARTS), &field, expected)?;
        let text = value.text();
        let is_value = (1..=MAX_TEXT).contains(&text.len())
            && text.trim() == text
            && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        require(is_value, &field, "1 to 1024 printable ASCII characters without a blank at either end")?;
        let first = headers.keys().find(|other| other.eq_ignore_ascii_case(name));
        require(first == Some(name), &field, "absent: the same header is there in another spelling")?;
    }
    Ok(())
}
