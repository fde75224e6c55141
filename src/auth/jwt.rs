//! Splits a JWT into its parts (RFC 7519, compact form). Checks nothing: [`super::nats_jwt`] and
//! [`super::ordinary_jwt`] verify the parts.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rejection::{Reason, Rejection};

/// Longest JWT of a caller, in bytes. All headers of an HTTP request together may have as many.
pub const MAX_JWT_BYTES: usize = 16 * 1024;
/// Longest JWT of an account, in bytes: room for hundreds of exports and imports.
pub(crate) const MAX_ACCOUNT_JWT_BYTES: usize = 256 * 1024;

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that the reader must understand (RFC 7515 §4.1.11). This program understands no extension, so it
    /// rejects every JWT that has this field.
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

/// The parts of a JWT, not verified. Has no `Debug`, which would show the credential.
pub struct Jwt<'a> {
    pub alg: String,
    /// The media type, as it came.
    pub typ: Option<String>,
    pub kid: Option<String>,
    /// JSON.
    pub claims: Vec<u8>,
    /// The signed text: header and claims as they came.
    pub signed: &'a str,
    /// base64url.
    pub signature: &'a str,
}

impl<'a> Jwt<'a> {
    pub fn parse(text: &'a str, max_bytes: usize) -> Result<Self, Rejection> {
        if text.len() > max_bytes {
            return Err(Reason::Form.into());
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Reason::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(Reason::Form)?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|error| Reason::Form.because(error));
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|error| Reason::Form.because(error))?;
        if header.crit.is_some() {
            return Err(Reason::Form.into());
        }
        let Header { alg, typ, kid, crit: _ } = header;
        Ok(Self { alg, typ, kid, claims: decode(claims)?, signed, signature })
    }

    pub fn claims<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Rejection> {
        serde_json::from_slice(&self.claims).map_err(|error| Reason::Form.because(error))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(json: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn a_jwt_has_three_parts_of_base64url_and_a_known_header() {
        #[track_caller]
        fn check(text: &str, expected: bool) {
            assert_eq!(Jwt::parse(text, MAX_JWT_BYTES).is_ok(), expected, "{text}");
        }
        let (header, claims) = (part(r#"{"alg":"ES256","kid":"k"}"#), part("{}"));
        check(&format!("{header}.{claims}.AAAA"), true);
        check(&format!("{header}.{claims}"), false);
        check(&format!("{header}.{claims}.AA.AA"), false);
        check(&format!("{header}=.{claims}.AAAA"), false);
        check(&format!("{}.{claims}.AAAA", part("{}")), false);
        check(&format!("{}.{claims}.AAAA", part(r#"{"alg":7}"#)), false);
        check(&format!("{}.{claims}.AAAA", part(r#"{"alg":"ES256","alg":"none"}"#)), false);
        check(&format!("{}.{claims}.AAAA", part(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#)), false);
        check(&format!("{header}.{}.AAAA", "A".repeat(MAX_JWT_BYTES)), false);
        check("", false);
        check("..", false);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,300}", header in ".{0,60}", claims in ".{0,60}", signature in "[ -~]{0,90}") {
            let _ = Jwt::parse(&text, MAX_JWT_BYTES);
            let made = format!("{}.{}.{signature}", part(&header), part(&claims));
            if let Ok(jwt) = Jwt::parse(&made, MAX_JWT_BYTES) {
                let _ = jwt.claims::<serde_json::Value>();
            }
        }
    }
}
