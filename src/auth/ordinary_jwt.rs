//! Ordinary JWTs (RFC 7519): signed with keys of a JWKS URL or a shared secret, for one issuer and audience.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::jwks::{Jwks, NoKeys, VerificationKeys};
use super::jwt::{Jwt, Rejection};
use super::{Role, VerifiedCaller};
use crate::subject::Account;
use crate::{config, provider};

/// Longest part of a subject that the audit log shows.
const SUBJECT: usize = 64;
/// Shortest shared secret, as long as HS256's hash (RFC 7518 §3.2).
const SECRET: usize = 32;

/// What a JWT must say.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`, or one of them.
    pub audience: String,
    /// The claim with the account.
    pub account_claim: String,
    /// The claim with the role.
    pub role_claim: String,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// A valid JWT: who calls, and when that ends.
pub(crate) type Valid = (VerifiedCaller, Timestamp);

impl Rules {
    /// Judges a JWT by these keys.
    ///
    /// # Errors
    /// [`Rejection`].
    pub fn verify(&self, jwt: &Jwt<'_>, keys: &VerificationKeys, now: Timestamp) -> Result<Valid, Rejection> {
        let algorithm: Algorithm = jwt.alg.parse().map_err(|_| Rejection::Algorithm)?;
        // A shared secret has no id.
        let id = if algorithm == Algorithm::HS256 { None } else { jwt.kid.as_deref() };
        keys.find(id, algorithm)?.verify(algorithm, jwt.signed.as_bytes(), jwt.signature)?;
        self.judge(&jwt.claims()?, now)
    }

    fn judge(&self, claims: &Value, now: Timestamp) -> Result<Valid, Rejection> {
        let leeway = i64::try_from(self.leeway.as_secs()).unwrap_or(i64::MAX);
        let end = seconds(claims, "exp")?.ok_or(Rejection::Expired)?.saturating_add(leeway);
        if now.as_second() >= end {
            return Err(Rejection::Expired);
        }
        if seconds(claims, "nbf")?.is_some_and(|from| now.as_second() < from.saturating_sub(leeway)) {
            return Err(Rejection::NotYetValid);
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(Rejection::Issuer);
        }
        if !names(claims.get("aud"), &self.audience) {
            return Err(Rejection::Audience);
        }
        let account = claim(claims, &self.account_claim).and_then(Value::as_str).ok_or(Rejection::Account)?;
        let account = Account::parse(account).map_err(|_| Rejection::Account)?;
        let role = if names(claim(claims, &self.role_claim), "admin") { Role::Admin } else { Role::Member };
        let subject = claims.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty());
        let actor = format!("jwt:{}", printable(subject.ok_or(Rejection::Subject)?));
        Ok((VerifiedCaller { account, role, actor }, Timestamp::from_second(end).unwrap_or(Timestamp::MAX)))
    }
}

/// A time claim in whole seconds; some issuers write fractions.
fn seconds(claims: &Value, name: &str) -> Result<Option<i64>, Rejection> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds)),
            #[expect(clippy::cast_possible_truncation, reason = "the cast ends at the largest number")]
            (None, Some(seconds)) => Ok(Some(seconds as i64)),
            (None, None) => Err(Rejection::Form),
        },
        Some(_) => Err(Rejection::Form),
    }
}

/// A claim by its name, or by a JSON pointer (`/realm_access/account`).
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

/// Whether a claim is that text, or a list with it.
fn names(claim: Option<&Value>, text: &str) -> bool {
    match claim {
        Some(Value::String(only)) => only == text,
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(text)),
        _ => false,
    }
}

fn printable(subject: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._@:|-".contains(c) { c } else { '_' };
    subject.chars().take(SUBJECT).map(plain).collect()
}

/// Judges ordinary JWTs as the settings say.
pub(crate) struct Verifier {
    rules: Rules,
    secret: Option<VerificationKeys>,
    jwks: Option<Jwks>,
}

impl Verifier {
    /// The verifier that the settings ask for; none when they name no issuer.
    ///
    /// # Errors
    /// Which setting is missing or does not fit.
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
        if !secret.is_empty() && secret.expose().len() < SECRET {
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

    /// Judges a JWT. Its algorithm says where its key is kept; the key says whether it may be used so.
    ///
    /// # Errors
    /// [`NoKeys`] when the keys are away; [`Rejection`] within.
    pub(crate) async fn verify(&self, jwt: &Jwt<'_>, now: Timestamp) -> Result<Result<Valid, Rejection>, NoKeys> {
        if jwt.alg.starts_with("HS") {
            let keys = self.secret.as_ref().ok_or(Rejection::Algorithm);
            return Ok(keys.and_then(|keys| self.rules.verify(jwt, keys, now)));
        }
        match &self.jwks {
            Some(jwks) if jwt.alg.parse::<Algorithm>().is_ok() => {
                jwks.with(now, |keys| self.rules.verify(jwt, keys, now)).await
            }
            Some(_) | None => Ok(Err(Rejection::Algorithm)),
        }
    }
}

#[cfg(test)]
mod tests;
