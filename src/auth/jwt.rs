//! A JWT taken apart (RFC 7519, compact form), and why one is refused.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Longest JWT of a caller. All headers of a request together are no longer.
pub const MAX_JWT_BYTES: usize = 16 * 1024;
/// Longest JWT of an account: hundreds of exports and imports.
pub(crate) const MAX_ACCOUNT_JWT_BYTES: usize = 256 * 1024;

/// Why a JWT or a signed request is refused. For the worker's log alone: a caller hears of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not a JWT, or too long for one.
    #[error("not a JWT of a known form")]
    Form,
    /// JWTs of this kind are not set up.
    #[error("JWTs of this kind are not configured")]
    NotConfigured,
    /// The algorithm is none that its key may be used with.
    #[error("its algorithm does not fit the key")]
    Algorithm,
    /// No such key.
    #[error("its key is not known")]
    Key,
    /// Not signed by that key.
    #[error("its signature does not fit")]
    Signature,
    /// `exp` has passed, or is missing where it must be there.
    #[error("it has expired, or does not say when it does")]
    Expired,
    /// `nbf` lies ahead.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Another issuer.
    #[error("it is from another issuer")]
    Issuer,
    /// Meant for somebody else.
    #[error("it is meant for another audience")]
    Audience,
    /// No subject, or one that is no user's key.
    #[error("its subject is missing or no user")]
    Subject,
    /// No account in it.
    #[error("it names no valid account")]
    Account,
    /// The account's JWT is not there, or not valid.
    #[error("no valid JWT of its account is known")]
    UnknownAccount,
    /// Signed by no operator that is trusted.
    #[error("the account is of no trusted operator")]
    Operator,
    /// Revoked in the account's JWT.
    #[error("the user is revoked")]
    Revoked,
    /// Not a bearer token: the user has to sign.
    #[error("the user is no bearer and has to sign its requests")]
    NotBearer,
    /// The account lets nobody be a bearer.
    #[error("the account allows no bearers")]
    BearersDisallowed,
    /// Limited in a way that cannot be judged here.
    #[error("the user is limited to sources, times or kinds of connections that cannot be judged here")]
    Restricted,
    /// A user of a scoped key with rights of its own.
    #[error("the user has rights of its own beside those of its scoped signing key")]
    Scope,
    /// The user may not make this call on the bus either.
    #[error("the user's permissions do not cover this call")]
    Permission,
    /// Signed at another time than now.
    #[error("the request was signed too long ago, or in the future")]
    Timestamp,
    /// Signed for another request than this one.
    #[error("the request was signed for something else")]
    Misused,
    /// The nonce was used before.
    #[error("the request was used before")]
    Replayed,
}

/// A JWT's header, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515 §4.1.11): none is.
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

/// A JWT taken apart; nothing in it is believed yet. No `Debug`: it would show the credential.
pub struct Jwt<'a> {
    /// `alg` of its header.
    pub alg: String,
    /// `kid` of its header.
    pub kid: Option<String>,
    /// The claims' JSON.
    pub claims: Vec<u8>,
    /// What is signed.
    pub signed: &'a str,
    /// The signature in base64url.
    pub signature: &'a str,
}

impl<'a> Jwt<'a> {
    /// Takes a JWT of at most that many bytes apart.
    ///
    /// # Errors
    /// [`Rejection::Form`].
    pub fn parse(text: &'a str, most: usize) -> Result<Self, Rejection> {
        if text.len() > most {
            return Err(Rejection::Form);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Rejection::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(Rejection::Form)?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejection::Form);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Rejection::Form)?;
        if header.crit.is_some() {
            return Err(Rejection::Form);
        }
        Ok(Self { alg: header.alg, kid: header.kid, claims: decode(claims)?, signed, signature })
    }

    /// The claims as this type.
    ///
    /// # Errors
    /// [`Rejection::Form`].
    pub fn claims<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Rejection> {
        serde_json::from_slice(&self.claims).map_err(|_| Rejection::Form)
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
    fn only_three_parts_of_base64url_with_a_known_header_are_a_jwt() {
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
        fn no_text_makes_it_panic(text in "\\PC{0,300}", header in ".{0,60}", claims in ".{0,60}", signature in "[ -~]{0,90}") {
            let _ = Jwt::parse(&text, MAX_JWT_BYTES);
            let made = format!("{}.{}.{signature}", part(&header), part(&claims));
            if let Ok(jwt) = Jwt::parse(&made, MAX_JWT_BYTES) {
                let _ = jwt.claims::<serde_json::Value>();
            }
        }
    }
}
