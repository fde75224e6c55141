//! Operators, accounts and users of NATS, and the JWTs that they sign.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// A JWT with these claims, signed by that key.
pub(crate) fn sign(key: &KeyPair, claims: &Value) -> String {
    sign_as(key, &json!({ "typ": "JWT", "alg": "ed25519-nkey" }), claims)
}

/// The same with a header of its own.
pub(crate) fn sign_as(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let signature = key.sign(signed.as_bytes()).expect("a key pair signs");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// An operator's own JWT.
pub(crate) fn operator(key: &KeyPair, system_account: &KeyPair) -> String {
    let nats = json!({ "type": "operator", "version": 2, "system_account": system_account.public_key() });
    sign(key, &claims(key, key, "operator", &nats))
}

/// An account's claims; `more` overrides fields of `nats`.
pub(crate) fn account_claims(operator: &KeyPair, account: &KeyPair, more: &Value) -> Value {
    let open = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let mut nats = json!({ "type": "account", "version": 2, "limits": open });
    merge(&mut nats, more);
    claims(operator, account, "account", &nats)
}

/// An account's JWT.
pub(crate) fn account(operator: &KeyPair, account: &KeyPair, more: &Value) -> String {
    sign(operator, &account_claims(operator, account, more))
}

/// A user's claims; `more` overrides any of them.
pub(crate) fn user_claims(issuer: &KeyPair, user: &KeyPair, more: &Value) -> Value {
    let nats = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let mut claims = claims(issuer, user, "user", &nats);
    merge(&mut claims, more);
    claims
}

/// A user's JWT.
pub(crate) fn user(issuer: &KeyPair, user: &KeyPair, more: &Value) -> String {
    sign(issuer, &user_claims(issuer, user, more))
}

/// A credentials file.
pub(crate) fn creds(jwt: &str, user: &KeyPair) -> String {
    let seed = user.seed().expect("a key pair has a seed");
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

fn claims(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> Value {
    let (issuer, subject) = (issuer.public_key(), subject.public_key());
    json!({ "jti": "J", "iat": 1_700_000_000, "iss": issuer, "sub": subject, "name": name, "nats": nats })
}

/// Merges the fields of one object into another, recursively; null removes a field.
fn merge(into: &mut Value, more: &Value) {
    let (Some(fields), Some(more)) = (into.as_object_mut(), more.as_object()) else { return };
    for (name, value) in more {
        match fields.get_mut(name) {
            Some(there) if there.is_object() && value.is_object() => merge(there, value),
            _ if value.is_null() => drop(fields.remove(name)),
            _ => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}
