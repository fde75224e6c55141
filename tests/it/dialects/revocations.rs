//! Revocations: method, place of the token, credentials, and which of the two tokens is sent.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::dialect::{Act, Dialect, Expected, code, connected, tokens};
use crate::provider::Scripted;

pub(super) fn all() -> Vec<Dialect> {
    vec![
        with_both("revoke-bearer", bearer_delete(), bearer().method("DELETE"), 204),
        with_both("revoke-bearer-post", bearer_post(), bearer(), 200),
        with_both("revoke-bearer-and-param", bearer_and_parameter(), bearer().params(json!({ "token": "at-0" })), 200),
        with_both("revoke-delete", delete(), basic().method("DELETE"), 204),
        with_both("revoke-query", query(), Expected::query("POST", json!({ "access_token": "at-0" })), 200),
        with_both("revoke-refresh-token", json!({ "revoke_with": "refresh_token" }), refresh_token(), 200),
    ]
}

/// A connection with both tokens, of which the deletion sends one in one request.
fn with_both(name: &'static str, mut config: Value, expected: Expected, status: u16) -> Dialect {
    config["revocation_url"] = json!("{url}/revoke");
    let answer = Scripted::new(status, "text/plain", "");
    Dialect::new(name, config).login(Expected::form(code(&json!({}))), tokens(0), connected(0)).step(
        Act::Delete,
        vec![(expected.path("/revoke"), answer)],
        json!({}),
    )
}

fn bearer() -> Expected {
    Expected::query("POST", json!({})).headers(json!({ "authorization": "Bearer at-0" }))
}

/// The header is the whole request.
fn bearer_delete() -> Value {
    json!({
        "revocation_method": "DELETE", "revocation_auth_method": "bearer",
        "param_names": { "revoke": { "token": "", "token_type_hint": "" } },
    })
}

fn bearer_post() -> Value {
    json!({ "revocation_auth_method": "bearer", "param_names": { "revoke": { "token": "", "token_type_hint": "" } } })
}

fn bearer_and_parameter() -> Value {
    json!({ "revocation_auth_method": "bearer", "param_names": { "revoke": { "token_type_hint": "" } } })
}

fn basic() -> Expected {
    let credentials = format!("Basic {}", BASE64_STANDARD.encode("client:s"));
    Expected::json(json!({ "access_token": "at-0" })).headers(json!({ "authorization": credentials }))
}

fn delete() -> Value {
    json!({
        "revocation_method": "DELETE", "revocation_auth_method": "client_secret_basic", "revocation_body_format": "json",
        "revoke_with": "access_token", "param_names": { "revoke": { "token": "access_token", "token_type_hint": "" } },
    })
}

/// The query has the token and nothing else.
fn query() -> Value {
    json!({
        "revocation_body_format": "query", "revocation_auth_method": "none", "revoke_with": "access_token",
        "param_names": { "revoke": { "token": "access_token", "token_type_hint": "", "client_id": "" } },
    })
}

fn refresh_token() -> Expected {
    let params =
        json!({ "token": "rt-0", "token_type_hint": "refresh_token", "client_id": "client", "client_secret": "s" });
    Expected::form(params)
}
