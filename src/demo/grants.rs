//! Grants of the demo authorization server: one-time codes and rotating refresh tokens (RFC 6749, 7636, 7009).

use std::collections::VecDeque;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::secret::Secret;

/// Most grants in memory. A new one evicts the oldest.
const MAX_GRANTS: usize = 256;
/// Spent refresh tokens to remember per grant, for replay detection.
const MAX_SPENT: usize = 32;
/// Lifetime of a code (RFC 6749 §4.1.2 recommends at most ten minutes).
const CODE_LIFETIME: SignedDuration = SignedDuration::from_secs(60);

/// The error `invalid_grant` (RFC 6749 §5.2) with its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidGrant(pub(super) &'static str);

/// The resource owner's consent.
pub(super) struct Allowed {
    /// Requested scope.
    pub(super) scope: String,
    /// S256 code challenge (RFC 7636 §4.2).
    pub(super) challenge: String,
    /// Redirect URI of the authorization request.
    pub(super) redirect_uri: String,
}

/// Newly generated tokens.
#[derive(Clone)]
pub(super) struct Tokens {
    pub(super) access: Secret,
    pub(super) refresh: Secret,
}

struct Grant {
    allowed: Allowed,
    code: Secret,
    code_issued: Timestamp,
    tokens: Option<Tokens>,
    spent: VecDeque<Secret>,
}

/// All grants, oldest first.
#[derive(Default)]
pub(super) struct Grants(VecDeque<Grant>);

impl Grants {
    /// Stores a consent under a new code.
    pub(super) fn allow(&mut self, allowed: Allowed, code: Secret, now: Timestamp) {
        if self.0.len() >= MAX_GRANTS {
            self.0.pop_front();
        }
        self.0.push_back(Grant { allowed, code, code_issued: now, tokens: None, spent: VecDeque::new() });
    }

    /// Redeems a code and returns the scope. Redeeming it again revokes the grant (RFC 6749 §4.1.2).
    pub(super) fn redeem(
        &mut self,
        code: &Secret,
        (verifier, redirect_uri): (&str, &str),
        fresh: Tokens,
        now: Timestamp,
    ) -> Result<String, InvalidGrant> {
        let place = self.0.iter().position(|grant| grant.code == *code).ok_or(InvalidGrant("unknown code"))?;
        let grant = self.0.get_mut(place).ok_or(InvalidGrant("unknown code"))?;
        if grant.tokens.is_some() {
            self.0.remove(place);
            return Err(InvalidGrant("code was used before: its grant is revoked"));
        }
        if now.duration_since(grant.code_issued) > CODE_LIFETIME {
            return Err(InvalidGrant("code is too old"));
        }
        if grant.allowed.redirect_uri != redirect_uri {
            return Err(InvalidGrant("redirect_uri differs from the authorization request"));
        }
        if !verifier_matches(verifier, &grant.allowed.challenge) {
            return Err(InvalidGrant("code_verifier does not match the code_challenge"));
        }
        grant.tokens = Some(fresh);
        Ok(grant.allowed.scope.clone())
    }

    /// Replaces a refresh token by a new pair and returns the scope. A spent one revokes the grant (RFC 9700 §4.14.2).
    pub(super) fn refresh(&mut self, refresh: &Secret, fresh: Tokens) -> Result<String, InvalidGrant> {
        if let Some(place) = self.0.iter().position(|grant| grant.spent.contains(refresh)) {
            self.0.remove(place);
            return Err(InvalidGrant("refresh token was used before: its grant is revoked"));
        }
        let grant = self
            .0
            .iter_mut()
            .find(|grant| grant.tokens.as_ref().is_some_and(|tokens| tokens.refresh == *refresh))
            .ok_or(InvalidGrant("unknown refresh token"))?;
        if grant.spent.len() >= MAX_SPENT {
            grant.spent.pop_front();
        }
        grant.spent.push_back(refresh.clone());
        grant.tokens = Some(fresh);
        Ok(grant.allowed.scope.clone())
    }

    /// Revokes the grant of an access or refresh token. An unknown token is not an error (RFC 7009 §2.2).
    pub(super) fn revoke(&mut self, token: &Secret) {
        let is_of = |tokens: &Tokens| tokens.refresh == *token || tokens.access == *token;
        self.0.retain(|grant| !grant.tokens.as_ref().is_some_and(is_of));
    }

    /// Returns the current access token of the newest redeemed grant.
    pub(super) fn newest_access_token(&self) -> Option<Secret> {
        self.0.iter().rev().find_map(|grant| grant.tokens.as_ref()).map(|tokens| tokens.access.clone())
    }
}

/// Returns true for the form of an S256 challenge: 32 bytes in base64url (RFC 7636 §4.2).
pub(super) fn is_challenge(text: &str) -> bool {
    BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// Verifies a verifier of the form of RFC 7636 §4.1 as §4.6 says.
fn verifier_matches(verifier: &str, challenge: &str) -> bool {
    let is_verifier = (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    is_verifier && BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) == challenge
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const REDIRECT: &str = "http://127.0.0.1:1/cb";

    fn tokens(name: &str) -> Tokens {
        Tokens { access: Secret::new(format!("at-{name}")), refresh: Secret::new(format!("rt-{name}")) }
    }

    fn with_code() -> Grants {
        let mut grants = Grants::default();
        let allowed =
            Allowed { scope: "read".to_owned(), challenge: CHALLENGE.to_owned(), redirect_uri: REDIRECT.to_owned() };
        grants.allow(allowed, Secret::new("code"), Timestamp::UNIX_EPOCH);
        grants
    }

    fn redeem(grants: &mut Grants, proof: (&str, &str), seconds: i64) -> Result<String, InvalidGrant> {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        grants.redeem(&Secret::new("code"), proof, tokens("1"), now)
    }

    #[test]
    fn a_code_needs_its_verifier_its_redirect_uri_and_its_time() {
        #[track_caller]
        fn check(proof: (&str, &str), seconds: i64, expected: bool) {
            assert_eq!(redeem(&mut with_code(), proof, seconds).is_ok(), expected);
        }
        check((VERIFIER, REDIRECT), 60, true);
        check((VERIFIER, REDIRECT), 61, false);
        check((&VERIFIER.replace('d', "e"), REDIRECT), 0, false);
        check((CHALLENGE, REDIRECT), 0, false);
        check(("", REDIRECT), 0, false);
        check((VERIFIER, "http://127.0.0.1:1/cb/"), 0, false);
    }

    #[test]
    fn a_replayed_code_revokes_the_grant() {
        let mut grants = with_code();
        assert_eq!(redeem(&mut grants, (VERIFIER, REDIRECT), 0), Ok("read".to_owned()));
        assert_eq!(grants.newest_access_token(), Some(Secret::new("at-1")));
        assert!(redeem(&mut grants, (VERIFIER, REDIRECT), 0).is_err());
        assert_eq!(grants.newest_access_token(), None);
        assert!(grants.refresh(&Secret::new("rt-1"), tokens("2")).is_err());
    }

    #[test]
    fn a_refresh_token_works_once() {
        let mut grants = with_code();
        redeem(&mut grants, (VERIFIER, REDIRECT), 0).unwrap();
        assert!(grants.refresh(&Secret::new("rt-1"), tokens("2")).is_ok());
        assert!(grants.refresh(&Secret::new("rt-2"), tokens("3")).is_ok());
        assert!(grants.refresh(&Secret::new("rt-1"), tokens("4")).is_err());
        assert!(grants.refresh(&Secret::new("rt-3"), tokens("5")).is_err(), "the replay ended the grant");
    }

    #[test]
    fn revoking_either_token_ends_the_grant() {
        for token in ["at-1", "rt-1"] {
            let mut grants = with_code();
            redeem(&mut grants, (VERIFIER, REDIRECT), 0).unwrap();
            grants.revoke(&Secret::new("other"));
            assert!(grants.newest_access_token().is_some());
            grants.revoke(&Secret::new(token));
            assert!(grants.newest_access_token().is_none(), "{token}");
        }
    }

    #[test]
    fn grants_are_bounded() {
        let mut grants = with_code();
        for number in 0..MAX_GRANTS {
            let allowed =
                Allowed { scope: String::new(), challenge: CHALLENGE.to_owned(), redirect_uri: REDIRECT.to_owned() };
            grants.allow(allowed, Secret::new(format!("c{number}")), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(grants.0.len(), MAX_GRANTS);
        assert_eq!(redeem(&mut grants, (VERIFIER, REDIRECT), 0), Err(InvalidGrant("unknown code")));
    }
}
