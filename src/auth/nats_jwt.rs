//! Verifies JWTs of NATS users and of their accounts by the rules of nats-server.
//!
//! Stricter in one point: a user with limits that only nats-server can check (addresses, times, kinds of connections)
//! is rejected.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use nkeys::{KeyPair, KeyPairType};
use serde::Deserialize;
use serde_json::Value;

use super::jwt::{Jwt, MAX_ACCOUNT_JWT_BYTES};
use super::rejection::{Reason, Rejection};
use crate::subject::Account;
use crate::subject::pattern::covers;

/// The only algorithm of NATS JWTs. Ordinary JWTs never use it.
pub(crate) const ALGORITHM: &str = "ed25519-nkey";
/// Version of the claims that this program understands.
const VERSION: u64 = 2;

/// A user whose JWT was verified.
#[derive(Debug, Clone)]
pub struct NatsUser {
    pub account: Account,
    /// Public key (`U…`).
    pub key: String,
    /// True if the JWT alone authenticates; otherwise the user must sign its requests.
    pub is_bearer: bool,
    /// The earlier end of the user's and the account's JWT.
    pub expires: Option<Timestamp>,
    publish: Permission,
}

impl NatsUser {
    #[must_use]
    pub fn may_publish(&self, subject: &str) -> bool {
        self.publish.allows(subject)
    }

    pub fn verify_signature(&self, text: &[u8], signature: &[u8]) -> Result<(), Rejection> {
        let key = public_key(&self.key, &KeyPairType::User).ok_or(Reason::Signature)?;
        key.verify(text, signature).map_err(|error| Reason::Signature.because(error))
    }
}

/// An account's JWT, verified.
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

/// Zero means absent, as in nats-server.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Lifetime {
    #[serde(default)]
    exp: i64,
    #[serde(default)]
    nbf: i64,
}

impl Lifetime {
    fn check(self, now: Timestamp) -> Result<(), Reason> {
        if self.exp != 0 && now.as_second() >= self.exp {
            return Err(Reason::Expired);
        }
        if now.as_second() < self.nbf { Err(Reason::NotYetValid) } else { Ok(()) }
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

/// From a user's JWT, or from the template of a scoped signing key.
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

    /// Doesn't know the values of a template's variables: a pattern with one allows nothing and denies everything.
    fn allows(&self, subject: &str) -> bool {
        let is_open = self.allow.is_empty() || self.allow.iter().any(|pattern| covers(pattern, subject));
        is_open && !self.deny.iter().any(|pattern| pattern.contains("{{") || covers(pattern, subject))
    }
}

/// Parses a public key and checks its kind: the library accepts every kind.
fn public_key(text: &str, kind: &KeyPairType) -> Option<KeyPair> {
    KeyPair::from_public_key(text).ok().filter(|key| key.key_pair_type() == *kind)
}

/// Checks that the JWT is signed by its issuer, and that the issuer is a key of that kind.
fn check_signature(jwt: &Jwt<'_>, issuer: &str, kind: &KeyPairType, wrong_kind: Reason) -> Result<(), Rejection> {
    let issuer = public_key(issuer, kind).ok_or(wrong_kind)?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(jwt.signature).map_err(|error| Reason::Form.because(error))?;
    issuer.verify(jwt.signed.as_bytes(), &signature).map_err(|error| Reason::Signature.because(error))
}

/// Checks the header. Like nats-server, demands the type `JWT` in any case.
fn check_header(jwt: &Jwt<'_>) -> Result<(), Reason> {
    if jwt.alg != ALGORITHM {
        return Err(Reason::Form);
    }
    let is_jwt = jwt.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"));
    if is_jwt { Ok(()) } else { Err(Reason::Type) }
}

/// A user's JWT that the key in it has signed and that is valid now. Nothing says yet that the key is the account's.
pub struct SelfConsistent {
    /// The account that it names.
    pub(crate) account: Account,
    claims: Claims<UserPart>,
}

impl SelfConsistent {
    /// Checks everything that needs no account's JWT, so that a look-up of the account costs its caller a signature.
    pub fn verify(jwt: &Jwt<'_>, now: Timestamp) -> Result<Self, Rejection> {
        check_header(jwt)?;
        let claims: Claims<UserPart> = jwt.claims()?;
        if claims.nats.kind != "user" || claims.nats.version != VERSION {
            return Err(Reason::Form.into());
        }
        let issuer_account = &claims.nats.issuer_account;
        let account = if issuer_account.is_empty() { &claims.iss } else { issuer_account };
        let account = Account::parse(account).map_err(|error| Reason::Account.because(error))?;
        check_signature(jwt, &claims.iss, &KeyPairType::Account, Reason::Issuer)?;
        public_key(&claims.sub, &KeyPairType::User).ok_or(Reason::Subject)?;
        claims.lifetime.check(now)?;
        Ok(Self { account, claims })
    }
}

impl AccountJwt {
    /// Checks that the JWT is the account's, valid now, and signed by a trusted operator.
    pub fn verify(text: &str, account: &Account, operators: &[String], now: Timestamp) -> Result<Self, Rejection> {
        let jwt = Jwt::parse(text.trim(), MAX_ACCOUNT_JWT_BYTES)?;
        check_header(&jwt)?;
        let claims: Claims<AccountPart> = jwt.claims()?;
        let AccountPart { kind, version, limits, signing_keys, revocations, default_permissions } = claims.nats;
        if kind != "account" || version != VERSION {
            return Err(Reason::Form.into());
        }
        if claims.sub != account.as_str() {
            return Err(Reason::UnknownAccount.into());
        }
        if !operators.contains(&claims.iss) {
            return Err(Reason::Operator.into());
        }
        check_signature(&jwt, &claims.iss, &KeyPairType::Operator, Reason::Operator)?;
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

    /// Verifies that a user's JWT is the account's, not revoked and without limits that only nats-server can check.
    /// Leaves it to the caller to demand a signed request of a user that is not a bearer.
    pub fn own_user(&self, jwt: SelfConsistent, now: Timestamp) -> Result<NatsUser, Rejection> {
        let Claims { iss, sub, iat, lifetime, nats } = jwt.claims;
        let limits = self.limits(&iss, &nats.issuer_account, nats.limits)?;
        self.lifetime.check(now)?;
        let revoked = |who: &str| self.revocations.get(who).is_some_and(|at| iat <= *at);
        if revoked("*") || revoked(&sub) {
            return Err(Reason::Revoked.into());
        }
        if limits.is_restricted() {
            return Err(Reason::Restricted.into());
        }
        if limits.bearer_token && self.disallow_bearer {
            return Err(Reason::BearersDisallowed.into());
        }
        let publish = if limits.has_permissions() { limits.publish } else { self.default_publish.clone() };
        let expires = [lifetime.end(), self.lifetime.end()].into_iter().flatten().min();
        Ok(NatsUser { account: self.account.clone(), key: sub, is_bearer: limits.bearer_token, expires, publish })
    }

    /// Returns the limits in the user's JWT, or those of the scoped key that signed it.
    fn limits(&self, issuer: &str, issuer_account: &str, own: Limits) -> Result<Limits, Reason> {
        if issuer == self.account.as_str() {
            let names_itself = issuer_account.is_empty() || issuer_account == issuer;
            return if names_itself { Ok(own) } else { Err(Reason::Issuer) };
        }
        if issuer_account != self.account.as_str() {
            return Err(Reason::Issuer);
        }
        match self.signing_keys.get(issuer).ok_or(Reason::Issuer)? {
            None => Ok(own),
            Some(_) if own.has_permissions() || own.bearer_token || own.is_restricted() => Err(Reason::Scope),
            Some(template) => Ok(template.clone()),
        }
    }
}

/// Returns a plain signing key, or one with a scope and its template. Ignores other kinds, so that what they sign is
/// rejected.
fn signing_key(value: Value) -> Option<(String, Option<Limits>)> {
    if let Value::String(key) = value {
        return Some((key, None));
    }
    let ScopedKey { kind, key, template } = serde_json::from_value(value).ok()?;
    (kind == "user_scope").then_some((key, Some(template)))
}

#[cfg(test)]
mod tests;
