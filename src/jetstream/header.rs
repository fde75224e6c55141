//! Message headers.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue, NATS_MESSAGE_ID};

use crate::system;

/// Returns headers with the given message id, or with a random one.
#[must_use]
pub(crate) fn headers(message_id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match message_id {
        Some(id) => headers.insert(NATS_MESSAGE_ID, id),
        None => headers.insert(NATS_MESSAGE_ID, system::random_id()),
    }
    headers
}

/// Returns a header's value, empty if the header is missing.
#[must_use]
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.as_str())
}

/// Parses a block of headers that a client library would write: none, or a version without a status, then names and
/// values.
#[must_use]
pub(super) fn parse_headers(block: &[u8]) -> Option<HeaderMap> {
    if block.is_empty() {
        return Some(HeaderMap::new());
    }
    let lines = std::str::from_utf8(block).ok()?.strip_prefix("NATS/1.0\r\n")?.strip_suffix("\r\n")?;
    let mut headers = HeaderMap::new();
    if lines.is_empty() {
        return Some(headers);
    }
    for line in lines.strip_suffix("\r\n")?.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        headers.append(name.parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e9_headers_are_those_that_libraries_write() {
        #[track_caller]
        fn check(block: &[u8], expected: Option<&[(&str, &str)]>) {
            let parsed = parse_headers(block);
            let found = parsed.as_ref().map(|headers| {
                let all = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
                let mut all: Vec<_> = all.map(|(name, value)| (name.as_ref(), value.as_str())).collect();
                all.sort_unstable();
                all
            });
            assert_eq!(found.as_deref(), expected, "{}", String::from_utf8_lossy(block));
        }
        check(b"", Some(&[]));
        check(b"NATS/1.0\r\n\r\n", Some(&[]));
        check(b"NATS/1.0\r\nOauth-Sender: X\r\n\r\n", Some(&[("Oauth-Sender", "X")]));
        check(b"NATS/1.0\r\na: b:c\r\nd:\r\na:e\r\n\r\n", Some(&[("a", "b:c"), ("a", "e"), ("d", "")]));
        check("NATS/1.0\r\na: \u{e4}\r\n\r\n".as_bytes(), Some(&[("a", "\u{e4}")]));
        for block in [
            &b"NATS/1.0\r\na: b\rc\r\n\r\n"[..],
            b"NATS/1.0\r\na: b\nc\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\n: no name\r\n\r\n",
            "NATS/1.0\r\nbl\u{e4}h: x\r\n\r\n".as_bytes(),
            b"NATS/1.0\r\na b: x\r\n\r\n",
            b"NATS/1.0\r\nx: \xff\r\n\r\n",
            b"NATS/1.0\r\na: x\r\n",
            b"NATS/1.0\r\na: x\r\n\r\nb: y\r\n\r\n",
            b"NATS/1.0 404 No Messages\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"\r\n",
        ] {
            check(block, None);
        }
    }
}
