//! Verifies ordinary JWTs (RFC 7519): signed with a key of a JWKS URL or with a shared secret, for one issuer and one
//! audience.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::jwks::{Jwks, VerificationKeys};
use super::jwt::Jwt;
use super::rejection::{Reason, Rejection};
use super::{AuthError, Identity};
use crate::rights::Role;
use crate::subject::Account;
use crate::{config, provider};

/// Longest part of a subject that the audit log shows, in characters.
const MAX_SUBJECT_CHARS: usize = 64;
/// Accepted types, in lower case: JWTs without a purpose of their own (RFC 7519 §5.1), and access tokens (RFC 9068 §4). An
/// issuer signs other JWTs with the same keys, such as logout tokens, which must not be taken for access tokens (RFC 8725
/// §3.11).
const TYPES: [&str; 2] = ["jwt", "at+jwt"];
/// Shortest shared secret: as long as the hash of HS256 (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Expected claims.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`, or an element of it.
    pub audience: String,
    /// Claim with the account: a name, or a JSON pointer (`/realm_access/account`).
    pub account_claim: String,
    /// Claim with the role: likewise.
    pub role_claim: String,
    /// Largest difference between the issuer's clock and this one.
    pub leeway: Duration,
}

/// A verified JWT.
#[derive(Debug)]
pub struct Valid {
    pub(super) identity: Identity,
    /// When the JWT expires, leeway included.
    pub(super) until: Timestamp,
}

impl Rules {
    pub fn verify(&self, jwt: &Jwt<'_>, keys: &VerificationKeys, now: Timestamp) -> Result<Valid, Rejection> {
        if jwt.typ.as_deref().is_some_and(|typ| !is_for_access(typ)) {
            return Err(Reason::Type.into());
        }
        let algorithm: Algorithm =
            jwt.alg.parse().map_err(|error: jsonwebtoken::errors::Error| Reason::Algorithm.because(error))?;
        // A shared secret has no id.
        let id = if algorithm == Algorithm::HS256 { None } else { jwt.kid.as_deref() };
        keys.find(id, algorithm)?.verify(algorithm, jwt.signed.as_bytes(), jwt.signature)?;
        self.check_claims(&jwt.claims()?, now)
    }

    fn check_claims(&self, claims: &Value, now: Timestamp) -> Result<Valid, Rejection> {
        let leeway = i64::try_from(self.leeway.as_secs()).unwrap_or(i64::MAX);
        let end = seconds(claims, "exp")?.ok_or(Reason::Expired)?.saturating_add(leeway);
        if now.as_second() >= end {
            return Err(Reason::Expired.into());
        }
        if seconds(claims, "nbf")?.is_some_and(|from| now.as_second() < from.saturating_sub(leeway)) {
            return Err(Reason::NotYetValid.into());
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(Reason::Issuer.into());
        }
        if !names(claims.get("aud"), &self.audience) {
            return Err(Reason::Audience.into());
        }
        let account = claim(claims, &self.account_claim).and_then(Value::as_str).ok_or(Reason::Account)?;
        let account = Account::parse(account).map_err(|error| Reason::Account.because(error))?;
        let role = if names(claim(claims, &self.role_claim), "admin") { Role::Admin } else { Role::Member };
        let subject = claims.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty());
        let actor = format!("jwt:{}", printable(subject.ok_or(Reason::Subject)?));
        let until = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
        Ok(Valid { identity: Identity { account, role, actor }, until })
    }
}

/// Judges a JWT's type: a media type, whose prefix `application/` may be omitted (RFC 7515 §4.1.9).
fn is_for_access(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

/// Returns a time claim in whole seconds. Some issuers write fractions.
fn seconds(claims: &Value, name: &str) -> Result<Option<i64>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds)),
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
            (None, Some(seconds)) => Ok(Some(seconds as i64)),
            (None, None) => Err(Reason::Form),
        },
        Some(_) => Err(Reason::Form),
    }
}

fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

/// Returns true if a claim is the text, or a list that contains it.
fn names(claim: Option<&Value>, text: &str) -> bool {
    match claim {
        Some(Value::String(only)) => only == text,
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(text)),
        _ => false,
    }
}

fn printable(subject: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._@:|-".contains(c) { c } else { '_' };
    subject.chars().take(MAX_SUBJECT_CHARS).map(plain).collect()
}

pub(crate) struct Verifier {
    rules: Rules,
    secret: Option<VerificationKeys>,
    jwks: Option<Jwks>,
}

impl Verifier {
    /// Returns `None` if the settings name no issuer.
    ///
    /// # Errors
    /// Names the setting that is missing or wrong.
    pub(crate) fn new(settings: &config::Jwt, client: &provider::Client) -> Result<Option<Self>, &'static str> {
        let config::Jwt { issuer, audience, jwks_url, secret, account_claim, role_claim, leeway } = settings;
        if issuer.is_empty() {
            let is_off = audience.is_empty() && jwks_url.is_none() && secret.is_empty();
            return if is_off { Ok(None) } else { Err("auth.jwt needs `issuer`") };
        }
        if audience.is_empty() {
            return Err("auth.jwt needs `audience`");
        }
        if jwks_url.is_none() && secret.is_empty() {
            return Err("auth.jwt needs `jwks_url` or `secret`");
        }
        if !secret.is_empty() && secret.expose().len() < MIN_SECRET_BYTES {
            return Err("auth.jwt.secret must be at least 32 bytes long");
        }
        let rules = Rules {
            issuer: issuer.clone(),
            audience: audience.clone(),
            account_claim: account_claim.clone(),
            role_claim: role_claim.clone(),
            leeway: *leeway,
        };
        let secret = (!secret.is_empty()).then(|| VerificationKeys::secret(secret));
        let jwks = jwks_url.clone().map(|url| Jwks::new(url, client.clone()));
        Ok(Some(Self { rules, secret, jwks }))
    }

    /// The JWT's algorithm selects the shared secret or the JWKS URL. The key itself then decides whether it may be
    /// used with that algorithm.
    pub(crate) async fn verify(&self, jwt: &Jwt<'_>, now: Timestamp) -> Result<Valid, AuthError> {
        if jwt.alg.starts_with("HS") {
            let secret = self.secret.as_ref().ok_or(Reason::Algorithm)?;
            return Ok(self.rules.verify(jwt, secret, now)?);
        }
        match &self.jwks {
            Some(jwks) if jwt.alg.parse::<Algorithm>().is_ok() => {
                jwks.verify_with(now, |keys| self.rules.verify(jwt, keys, now)).await
            }
            Some(_) | None => Err(Reason::Algorithm.into()),
        }
    }
}

#[cfg(test)]
mod tests;
