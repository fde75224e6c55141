//! A pending login: what is kept between the authorization request and the provider's answer.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;

use crate::command::Cookie;
use crate::integration::IssuedAt;
use crate::secret::Secret;
use crate::subject::{ConnectionName, Integration};

/// How the names of the cookies begin that bind logins to browsers (RFC 6265bis, §4.1.3.2: this host's alone).
pub(crate) const COOKIE_PREFIX: &str = "__Host-tokenbus-";

/// What whoever comes with a state is told that leads nowhere.
pub(crate) const UNKNOWN_STATE: &str = "this login is unknown, has expired or was used already; start it again";

/// What the bucket keeps of a login; its key holds the state's hash and the account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PendingLogin {
    /// At which provider.
    pub integration: Integration,
    /// Under which name the connection will be stored.
    pub name: ConnectionName,
    /// The PKCE verifier (RFC 7636 §4.1), sealed; none with `pkce = off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_verifier: Option<String>,
    /// Where the browser goes afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_to: Option<Url>,
    /// The redirect URI of the authorization request: the token request repeats it.
    pub redirect_url: String,
    /// The token endpoint and client the code is meant for: it is sent nowhere else.
    pub issued_at: IssuedAt,
    /// Hash of the cookie that the callback has to bring, when the login is bound to its browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_hash: Option<String>,
}

impl PendingLogin {
    /// Whether these are cookies of the browser that it is bound to, or it is bound to none.
    #[must_use]
    pub(crate) fn is_of_browser(&self, state_hash: &str, cookies: &[Cookie]) -> bool {
        let Some(expected) = &self.cookie_hash else { return true };
        let name = cookie_name(state_hash);
        cookies.iter().any(|cookie| {
            cookie.name == name && bool::from(hash_of(&cookie.value).as_bytes().ct_eq(expected.as_bytes()))
        })
    }
}

/// Name of the cookie that binds a login to its browser: one for each login.
#[must_use]
pub(crate) fn cookie_name(state_hash: &str) -> String {
    format!("{COOKIE_PREFIX}{}", state_hash.get(..22).unwrap_or(state_hash))
}

/// A new `state` of 256 random bits (RFC 6749 §10.12), base64url, 43 characters. So are tickets and cookies made.
#[must_use]
pub(crate) fn state_from(random: &[u8; 32]) -> Secret {
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// What stands for a state, a ticket or a cookie everywhere but in the browser: base64url(SHA-256(value)).
#[must_use]
pub(crate) fn hash_of(value: &Secret) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(value.expose().as_bytes()))
}

/// Where a login may return to: the URL, when its origin is exactly one of those allowed.
///
/// # Errors
/// [`ReturnError`] for anything else.
pub(crate) fn return_to(wanted: &str, allowed: &[Url]) -> Result<Url, ReturnError> {
    let url = Url::parse(wanted).map_err(|_| ReturnError)?;
    let is_plain = matches!(url.scheme(), "https" | "http") && url.username().is_empty() && url.password().is_none();
    // What a browser would read differently from us is refused: backslashes, control characters, a missing host.
    let behind_scheme = wanted.strip_prefix(&format!("{}://", url.scheme()));
    let is_clean = behind_scheme.is_some_and(|rest| !rest.starts_with('/'))
        && !wanted.contains(['\\', '@'])
        && !wanted.chars().any(char::is_control);
    let is_allowed = allowed.iter().any(|origin| origin.origin() == url.origin());
    if is_plain && is_clean && is_allowed { Ok(url) } else { Err(ReturnError) }
}

/// A return address that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("return_to must be a URL whose origin is listed in `oauth.return_to`")]
pub(crate) struct ReturnError;

/// Variables of a login, as they come with the call.
pub(crate) type Variables = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a1_state_is_opaque_and_never_the_same() {
        let states: std::collections::HashSet<String> =
            (0..10_000).map(|_| state_from(&crate::system::random()).expose().to_owned()).collect();
        assert_eq!(states.len(), 10_000);
        assert!(states.iter().all(|state| state.len() == 43));
        // No place in it is anybody's, or the clock's: each holds nearly all letters (the last one has four bits).
        for place in 0..43 {
            let letters: std::collections::HashSet<u8> = states.iter().map(|state| state.as_bytes()[place]).collect();
            assert!(letters.len() >= if place == 42 { 16 } else { 60 }, "{place}: {}", letters.len());
        }
    }

    #[test]
    fn b8_return_to_is_of_an_allowed_origin_to_the_letter() {
        #[track_caller]
        fn check(wanted: &str, allowed: &[Url], expected: bool) {
            assert_eq!(return_to(wanted, allowed).is_ok(), expected, "{wanted}");
        }
        let allowed = [Url::parse("https://app.example").unwrap()];
        check("https://app.example", &allowed, true);
        check("https://app.example/done?x=1", &allowed, true);
        for wanted in [
            "",
            "/done",
            "//app.example",
            "\\\\app.example",
            "https:\\\\app.example",
            "javascript:alert(1)",
            "https://app.example.evil.test",
            "https://app.example@evil.test",
            "https://evil.test/https://app.example",
            "https://app.example:8443/",
            "http://app.example",
            "https://user:pw@app.example/",
            "https:app.example",
            "https://app.example\t.evil.test",
            "data:text/html,x",
            "https://\\app.example",
            " https://app.example",
            "https://app.example%2eevil.test",
            "https://app.example%00.evil.test",
            "https://app.example;@evil.test",
            "https://app.example#@evil.test",
            "https://app.example?@evil.test",
            "https:///app.example",
            "https:/app.example",
            "HTTPS://app.example",
            "https://app.example:443@evil.test",
            "https://app.example\u{3002}evil.test",
            "https://xn--app.example",
            "https://*.example",
            "https://example",
            "javascript://app.example/%0Aalert(1)",
            "blob:https://app.example/x",
            "filesystem:https://app.example/x",
            "view-source:https://app.example",
        ] {
            check(wanted, &allowed, false);
        }
        check("https://app.example", &[], false);
    }
}
