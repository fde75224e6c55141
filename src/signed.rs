//! Signed requests: the text that a caller signs, and the text form in which the gateway passes a request on.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::secret::Secret;

/// Scheme in the header `Authorization`, before the user's JWT.
pub const SCHEME: &str = "NATS";
/// Header: time of the signature in Unix seconds.
pub const HEADER_TIMESTAMP: &str = "x-nats-timestamp";
/// Header: a value that no other request uses, 16 to 64 letters, digits, `_` or `-`. Prevents replay.
pub const HEADER_NONCE: &str = "x-nats-nonce";
/// Header: the signature, base64url without padding.
pub const HEADER_SIGNATURE: &str = "x-nats-signature";

/// First line of the signed text.
const VERSION: &str = "tokenbus-signed-v1";

/// A request, with all that its signature covers.
#[derive(Debug, Clone)]
pub struct SignedRequest {
    /// JWT of the NATS user.
    pub jwt: Secret,
    /// Time of the signature in Unix seconds.
    pub timestamp: i64,
    pub nonce: String,
    pub method: String,
    /// Path and query, not decoded.
    pub target: Secret,
    /// SHA-256 of the body, in lower-case hex.
    pub body_hash: String,
}

/// A request and its signature, not verified yet.
#[derive(Debug)]
pub struct WithSignature {
    pub request: SignedRequest,
    pub signature: Vec<u8>,
}

impl SignedRequest {
    /// The text to sign: seven lines joined by `\n`, without one at the end.
    #[must_use]
    pub fn text(&self) -> Secret {
        let Self { jwt, timestamp, nonce, method, target, body_hash } = self;
        let (jwt_hash, target) = (hash(jwt.expose().as_bytes()), target.expose());
        Secret::new(format!("{VERSION}\n{jwt_hash}\n{method}\n{target}\n{body_hash}\n{timestamp}\n{nonce}"))
    }

    #[must_use]
    pub fn path_and_query(&self) -> (&str, &str) {
        let target = self.target.expose();
        target.split_once('?').unwrap_or((target, ""))
    }

    /// Reads the text form that the gateway passes on after the scheme: JWT, timestamp, nonce, signature, method, path with
    /// query, hash of the body. Returns `None` if any part is not valid.
    #[must_use]
    pub fn parse(text: &str) -> Option<WithSignature> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [jwt, timestamp, nonce, signature, method, target, body_hash] = parts.try_into().ok()?;
        let is_digits = (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let is_method = (1..=10).contains(&method.len()) && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_hash = body_hash.len() == 64 && body_hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_target = target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic());
        if !(is_digits && is_nonce(nonce) && is_method && is_target && is_hash) {
            return None;
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let request = Self {
            jwt: Secret::new(jwt),
            timestamp: timestamp.parse().ok()?,
            nonce: nonce.to_owned(),
            method: method.to_owned(),
            target: Secret::new(target),
            body_hash: body_hash.to_owned(),
        };
        Some(WithSignature { request, signature })
    }
}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn is_nonce(text: &str) -> bool {
    (16..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_signed_text_is_as_documented() {
        let request = SignedRequest {
            jwt: Secret::new("a.b.c"),
            timestamp: 1_700_000_000,
            nonce: "nonce-of-16-char".to_owned(),
            method: "GET".to_owned(),
            target: Secret::new("/hub/integrations/oauth-connections?limit=2"),
            body_hash: hash(b""),
        };
        let expected = "tokenbus-signed-v1
4c6e70465d3037ab6cb52df6ae74f2c0d5ffbfdb79d33add04c0d1b78c969c7c
GET
/hub/integrations/oauth-connections?limit=2
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
1700000000
nonce-of-16-char";
        let text = request.text();
        let lines: Vec<&str> = text.expose().lines().collect();
        let wanted: Vec<&str> = expected.lines().collect();
        assert_eq!((lines.len(), lines[0], &lines[2..]), (7, wanted[0], &wanted[2..]));
        assert_eq!(lines[1], hash(b"a.b.c"));
        assert!(!text.expose().ends_with('\n'));
    }

    #[test]
    fn only_complete_requests_are_read() {
        #[track_caller]
        fn check(text: &str, expected: bool) {
            assert_eq!(SignedRequest::parse(text).is_some(), expected, "{text}");
        }
        let empty = hash(b"");
        check(&format!("j.w.t 1700000000 nonce-of-16-char AAAA GET /x?y={empty} {empty}"), true);
        check("j.w.t 1700000000 nonce-of-16-char AAAA GET /x", false);
        check(&format!("j.w.t +1 nonce-of-16-char AAAA GET /x {empty}"), false);
        check(&format!("j.w.t 1 short AAAA GET /x {empty}"), false);
        check(&format!("j.w.t 1 nonce-of-16-char A*AA GET /x {empty}"), false);
        check(&format!("j.w.t 1 nonce-of-16-char AAAA get /x {empty}"), false);
        check(&format!("j.w.t 1 nonce-of-16-char AAAA GET x {empty}"), false);
        check(&format!("j.w.t 1 nonce-of-16-char AAAA GET /x\ny {empty}"), false);
        check(&format!("j.w.t 1 nonce-of-16-char AAAA GET /x {}", empty.to_uppercase()), false);
        check(&format!("j.w.t 1 nonce-of-16-char AAAA GET /x {empty} more"), false);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_text_panics(text in "\\PC{0,200}", parts in proptest::collection::vec("[A-Za-z0-9_/.?-]{0,70}", 7)) {
            let _ = SignedRequest::parse(&text);
            let _ = SignedRequest::parse(&parts.join(" "));
        }
    }
}
