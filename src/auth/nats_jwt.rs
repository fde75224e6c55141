//! JWTs of NATS users and of their accounts: judged as nats-server judges them, and a little stricter.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use nkeys::{KeyPair, KeyPairType};
use serde::Deserialize;
use serde_json::Value;

use super::jwt::{Jwt, MAX_ACCOUNT_JWT_BYTES, Rejection};
use crate::subject::Account;

/// The one algorithm of NATS JWTs; by it they are told apart from others.
pub(crate) const ALGORITHM: &str = "ed25519-nkey";
/// The version of the claims that is known here.
const VERSION: u64 = 2;

/// A user whose JWT is valid.
#[derive(Debug, Clone)]
pub struct NatsUser {
    /// Its account.
    pub account: Account,
    /// Its public key (`U…`).
    pub key: String,
    /// Whether its JWT alone is proof enough.
    pub is_bearer: bool,
    /// When its JWT or its account's ends.
    pub expires: Option<Timestamp>,
    publish: Permission,
}

impl NatsUser {
    /// Whether it may publish on that subject.
    #[must_use]
    pub fn may_publish(&self, subject: &str) -> bool {
        self.publish.allows(subject)
    }

    /// Whether it signed that text.
    ///
    /// # Errors
    /// [`Rejection::Signature`].
    pub fn signed(&self, text: &[u8], signature: &[u8]) -> Result<(), Rejection> {
        key(&self.key, &KeyPairType::User).and_then(|key| key.verify(text, signature).ok()).ok_or(Rejection::Signature)
    }
}

/// An account whose JWT is signed by a trusted operator.
#[derive(Debug, Clone)]
pub struct AccountJwt {
    account: Account,
    signing_keys: HashMap<String, Option<Limits>>,
    revocations: HashMap<String, i64>,
    disallow_bearer: bool,
    default_publish: Permission,
    lifetime: Lifetime,
}

#[derive(Deserialize)]
struct Claims<T> {
    iss: String,
    sub: String,
    #[serde(default)]
    iat: i64,
    #[serde(flatten)]
    lifetime: Lifetime,
    nats: T,
}

/// Zero is as good as absent, as at nats-server.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Lifetime {
    #[serde(default)]
    exp: i64,
    #[serde(default)]
    nbf: i64,
}

impl Lifetime {
    fn check(self, now: Timestamp) -> Result<(), Rejection> {
        if self.exp != 0 && now.as_second() >= self.exp {
            return Err(Rejection::Expired);
        }
        if now.as_second() < self.nbf { Err(Rejection::NotYetValid) } else { Ok(()) }
    }

    fn end(self) -> Option<Timestamp> {
        if self.exp == 0 { None } else { Timestamp::from_second(self.exp).ok() }
    }
}

#[derive(Deserialize)]
struct UserPart {
    #[serde(rename = "type")]
    kind: String,
    version: u64,
    #[serde(default)]
    issuer_account: String,
    #[serde(flatten)]
    limits: Limits,
}

#[derive(Deserialize)]
struct AccountPart {
    #[serde(rename = "type")]
    kind: String,
    version: u64,
    #[serde(default)]
    limits: AccountLimits,
    #[serde(default)]
    signing_keys: Vec<Value>,
    #[serde(default)]
    revocations: HashMap<String, i64>,
    #[serde(default)]
    default_permissions: Limits,
}

#[derive(Default, Deserialize)]
struct AccountLimits {
    #[serde(default)]
    disallow_bearer: bool,
}

#[derive(Deserialize)]
struct ScopedKey {
    kind: String,
    key: String,
    #[serde(default)]
    template: Limits,
}

/// What a user may do, in its own JWT or in the template of a scoped signing key.
#[derive(Debug, Clone, Default, Deserialize)]
struct Limits {
    #[serde(default, rename = "pub")]
    publish: Permission,
    #[serde(default, rename = "sub")]
    subscribe: Permission,
    #[serde(default)]
    bearer_token: bool,
    #[serde(default)]
    src: Value,
    #[serde(default)]
    times: Value,
    #[serde(default)]
    allowed_connection_types: Value,
}

impl Limits {
    fn is_restricted(&self) -> bool {
        [&self.src, &self.times, &self.allowed_connection_types].into_iter().any(|limit| match limit {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
        })
    }

    fn has_permissions(&self) -> bool {
        !self.publish.is_empty() || !self.subscribe.is_empty()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Permission {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

impl Permission {
    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// What a template's variables stand for is not known here, so they allow nothing and deny everything.
    fn allows(&self, subject: &str) -> bool {
        let is_open = self.allow.is_empty() || self.allow.iter().any(|pattern| covers(pattern, subject));
        is_open && !self.deny.iter().any(|pattern| pattern.contains("{{") || covers(pattern, subject))
    }
}

/// Whether a subject without wildcards matches a pattern.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// A public key of that kind: the library itself takes every kind.
fn key(text: &str, kind: &KeyPairType) -> Option<KeyPair> {
    KeyPair::from_public_key(text).ok().filter(|key| key.key_pair_type() == *kind)
}

/// Checks that a JWT is signed by its own issuer, who is of that kind.
fn check_signature(jwt: &Jwt<'_>, issuer: &str, kind: &KeyPairType, wrong: Rejection) -> Result<(), Rejection> {
    let issuer = key(issuer, kind).ok_or(wrong)?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(jwt.signature).map_err(|_| Rejection::Form)?;
    issuer.verify(jwt.signed.as_bytes(), &signature).map_err(|_| Rejection::Signature)
}

/// The account that a user's JWT says it is of. Nothing is checked yet.
///
/// # Errors
/// [`Rejection`] when it is no user's JWT.
pub(crate) fn account_of(jwt: &Jwt<'_>) -> Result<Account, Rejection> {
    let claims: Claims<UserPart> = jwt.claims()?;
    let issuer_account = claims.nats.issuer_account;
    Account::parse(if issuer_account.is_empty() { &claims.iss } else { &issuer_account })
        .map_err(|_| Rejection::Account)
}

impl AccountJwt {
    /// Judges an account's JWT.
    ///
    /// # Errors
    /// [`Rejection`] when it is not this account's, no trusted operator signed it, or its time is over.
    pub fn verify(text: &str, account: &Account, operators: &[String], now: Timestamp) -> Result<Self, Rejection> {
        let jwt = Jwt::parse(text.trim(), MAX_ACCOUNT_JWT_BYTES)?;
        let claims: Claims<AccountPart> = jwt.claims()?;
        let AccountPart { kind, version, limits, signing_keys, revocations, default_permissions } = claims.nats;
        if jwt.alg != ALGORITHM || kind != "account" || version != VERSION {
            return Err(Rejection::Form);
        }
        if claims.sub != account.as_str() {
            return Err(Rejection::UnknownAccount);
        }
        if !operators.contains(&claims.iss) {
            return Err(Rejection::Operator);
        }
        check_signature(&jwt, &claims.iss, &KeyPairType::Operator, Rejection::Operator)?;
        claims.lifetime.check(now)?;
        Ok(Self {
            account: account.clone(),
            signing_keys: signing_keys.into_iter().filter_map(signing_key).collect(),
            revocations,
            disallow_bearer: limits.disallow_bearer,
            default_publish: default_permissions.publish,
            lifetime: claims.lifetime,
        })
    }

    /// Judges a user's JWT by that of its account. Whether the JWT alone is enough is for the caller to ask.
    ///
    /// # Errors
    /// [`Rejection`].
    pub fn user(&self, jwt: &Jwt<'_>, now: Timestamp) -> Result<NatsUser, Rejection> {
        let claims: Claims<UserPart> = jwt.claims()?;
        let Claims { iss, sub, iat, lifetime, nats } = claims;
        if jwt.alg != ALGORITHM || nats.kind != "user" || nats.version != VERSION {
            return Err(Rejection::Form);
        }
        let limits = self.limits(&iss, &nats.issuer_account, nats.limits)?;
        check_signature(jwt, &iss, &KeyPairType::Account, Rejection::Issuer)?;
        key(&sub, &KeyPairType::User).ok_or(Rejection::Subject)?;
        lifetime.check(now)?;
        self.lifetime.check(now)?;
        let revoked = |who: &str| self.revocations.get(who).is_some_and(|at| iat <= *at);
        if revoked("*") || revoked(&sub) {
            return Err(Rejection::Revoked);
        }
        if limits.is_restricted() {
            return Err(Rejection::Restricted);
        }
        if limits.bearer_token && self.disallow_bearer {
            return Err(Rejection::BearersDisallowed);
        }
        let publish = if limits.has_permissions() { limits.publish } else { self.default_publish.clone() };
        let expires = [lifetime.end(), self.lifetime.end()].into_iter().flatten().min();
        Ok(NatsUser { account: self.account.clone(), key: sub, is_bearer: limits.bearer_token, expires, publish })
    }

    /// What the user may do: as its JWT says, or as the scoped key that signed it says for all its users.
    fn limits(&self, issuer: &str, issuer_account: &str, own: Limits) -> Result<Limits, Rejection> {
        if issuer == self.account.as_str() {
            // An account that signs for itself names no other.
            let is_itself = issuer_account.is_empty() || issuer_account == issuer;
            return if is_itself { Ok(own) } else { Err(Rejection::Issuer) };
        }
        if issuer_account != self.account.as_str() {
            return Err(Rejection::Issuer);
        }
        match self.signing_keys.get(issuer).ok_or(Rejection::Issuer)? {
            None => Ok(own),
            Some(_) if own.has_permissions() || own.bearer_token || own.is_restricted() => Err(Rejection::Scope),
            Some(template) => Ok(template.clone()),
        }
    }
}

/// A plain signing key, or one with a scope. Of other kinds than these nothing is known, so they sign nothing here.
fn signing_key(value: Value) -> Option<(String, Option<Limits>)> {
    if let Value::String(key) = value {
        return Some((key, None));
    }
    let ScopedKey { kind, key, template } = serde_json::from_value(value).ok()?;
    (kind == "user_scope").then_some((key, Some(template)))
}

#[cfg(test)]
mod tests;
