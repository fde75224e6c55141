//! A pending login: the data stored between the authorization request and the provider's answer.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;

use crate::command::Cookie;
use crate::integration::{IntegrationOauthConfig, IssuedAt};
use crate::secret::Secret;
use crate::subject::{ConnectionName, Integration};

/// Prefix of the cookies that bind logins to browsers. Browsers accept `__Host-` cookies only from the host itself
/// (RFC 6265bis, §4.1.3.2).
pub(crate) const COOKIE_PREFIX: &str = "__Host-tokenbus-";

/// Error for a bound login that comes from another browser.
pub(crate) const OTHER_BROWSER: &str = "this login was started in another browser, or with cookies off; start it again";

/// Error for an unknown, expired or used state.
pub(crate) const UNKNOWN_STATE: &str = "this login is unknown, has expired or was used already; start it again";

/// A login as stored in the bucket. The hash of its state and its account are in the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingLogin {
    pub integration: Integration,
    /// The integration's name for people, at the time of the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_name: Option<String>,
    /// Name of the connection that the login creates or replaces.
    pub name: ConnectionName,
    /// The PKCE verifier (RFC 7636 §4.1), sealed; `None` with `pkce = off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_verifier: Option<String>,
    /// The browser is sent there at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_to: Option<Url>,
    /// The redirect URI of the authorization request. The token request must repeat it.
    pub redirect_url: String,
    /// The token endpoint and client that the code is for. It is sent nowhere else.
    pub issued_at: IssuedAt,
    /// Hash of the config's variables, whose rules decide where a value of the callback may lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables_hash: Option<String>,
    /// The scope of the authorization request; `None` in a login of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Hash of the cookie that the callback must carry, if the login is bound to its browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_hash: Option<String>,
}

impl PendingLogin {
    /// Returns true if the cookies are those of the browser to which the login is bound, or if it is not bound.
    #[must_use]
    pub(crate) fn is_of_browser(&self, state_hash: &str, cookies: &[Cookie]) -> bool {
        are_of_browser(self.cookie_hash.as_deref(), state_hash, cookies)
    }

    /// Returns the part that stays stored after the login is consumed.
    #[must_use]
    pub(crate) fn consumed(&self) -> ConsumedLogin {
        let Self { integration, integration_name, name, return_to, cookie_hash, .. } = self.clone();
        ConsumedLogin { integration, integration_name, name, return_to, cookie_hash }
    }
}

/// A login whose code may have been sent. Tells a browser that comes again what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConsumedLogin {
    pub integration: Integration,
    /// The integration's name for people, at the time of the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_name: Option<String>,
    pub name: ConnectionName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_to: Option<Url>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_hash: Option<String>,
}

impl ConsumedLogin {
    /// As [`PendingLogin::is_of_browser`].
    #[must_use]
    pub(crate) fn is_of_browser(&self, state_hash: &str, cookies: &[Cookie]) -> bool {
        are_of_browser(self.cookie_hash.as_deref(), state_hash, cookies)
    }
}

fn are_of_browser(cookie_hash: Option<&str>, state_hash: &str, cookies: &[Cookie]) -> bool {
    let Some(expected) = cookie_hash else { return true };
    let name = cookie_name(state_hash);
    cookies
        .iter()
        .any(|cookie| cookie.name == name && bool::from(hash_of(&cookie.value).as_bytes().ct_eq(expected.as_bytes())))
}

/// Name of the cookie that binds a login to its browser. Each login has its own, so that two logins in one browser work.
#[must_use]
pub(crate) fn cookie_name(state_hash: &str) -> String {
    format!("{COOKIE_PREFIX}{}", state_hash.get(..22).unwrap_or(state_hash))
}

/// Makes a `state` (RFC 6749 §10.12), start ticket or cookie of 256 random bits: 43 characters of base64url.
#[must_use]
pub(crate) fn state_from(random: &[u8; 32]) -> Secret {
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// Hash of a state, start ticket or cookie: base64url(SHA-256(value)). Only the browser has the value; we store the hash.
#[must_use]
pub(crate) fn hash_of(value: &Secret) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(value.expose().as_bytes()))
}

/// Hash of the rules of a config's variables.
#[must_use]
pub(crate) fn hash_of_variables(config: &IntegrationOauthConfig) -> String {
    hash_of(&Secret::new(serde_json::json!(config.variables).to_string()))
}

/// Returns the login's `nonce` (OpenID Connect Core §3.1.2.1), which follows from its state, so that it need not be stored.
#[must_use]
pub(crate) fn nonce_of(state: &Secret) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(format!("nonce {}", state.expose())))
}

/// Parses a `return_to` address. Accepts it only if its origin is exactly one of the allowed ones.
pub(crate) fn return_to(wanted: &str, allowed: &[Url]) -> Result<Url, ReturnError> {
    let url = Url::parse(wanted)?;
    let is_plain = matches!(url.scheme(), "https" | "http") && url.username().is_empty() && url.password().is_none();
    // Reject URLs that a browser may read differently: with backslashes, control characters, or without a host.
    let after_scheme = wanted.strip_prefix(&format!("{}://", url.scheme()));
    let is_clean = after_scheme.is_some_and(|rest| !rest.starts_with('/'))
        && !wanted.contains(['\\', '@'])
        && !wanted.chars().any(char::is_control);
    let is_allowed = allowed.iter().any(|origin| origin.origin() == url.origin());
    if is_plain && is_clean && is_allowed { Ok(url) } else { Err(ReturnError::NotAllowed) }
}

/// Both variants have the same text: callers need not learn which check failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReturnError {
    #[error("return_to must be a URL whose origin is listed in `oauth.return_to`")]
    NotAllowed,
    #[error("return_to must be a URL whose origin is listed in `oauth.return_to`")]
    NotAUrl(#[from] url::ParseError),
}

/// Values for the variables in an integration's URLs, by name.
pub(crate) type Variables = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a1_states_are_opaque_and_unique() {
        let states: std::collections::HashSet<String> =
            (0..10_000).map(|_| state_from(&crate::system::random()).expose().to_owned()).collect();
        assert_eq!(states.len(), 10_000);
        assert!(states.iter().all(|state| state.len() == 43));
        // No position depends on a user or the clock: each has nearly all letters over time (the last one has four bits).
        for position in 0..43 {
            let letters: std::collections::HashSet<u8> =
                states.iter().map(|state| state.as_bytes()[position]).collect();
            assert!(letters.len() >= if position == 42 { 16 } else { 60 }, "{position}: {}", letters.len());
        }
    }

    #[test]
    fn b8_return_to_must_have_exactly_an_allowed_origin() {
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
