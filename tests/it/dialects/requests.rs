//! Forms of requests: method, place of the parameters, credentials, headers, names.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::dialect::{Act, Dialect, Expected, changed, code, connected, hour, renewal, tokens};
use crate::provider::Scripted;

pub(super) fn all() -> Vec<Dialect> {
    vec![
        get(),
        query_without_grant_type(),
        json_with_basic(),
        raw_basic(),
        headers(),
        redirect_uri_and_scope_again(),
        names(),
        variables(),
        query_beside_json(),
        public_client(),
        assertion(),
        other_urls(),
        own_forms(),
        with_access_token(),
    ]
}

/// No secret is in the parameters, but in this header.
fn basic(credentials: &str) -> Value {
    json!({ "authorization": format!("Basic {}", BASE64_STANDARD.encode(credentials)) })
}

fn get() -> Dialect {
    Dialect::new("get", json!({ "token_method": "GET" }))
        .login(Expected::query("GET", code(&json!({}))), tokens(0), connected(0))
        .refresh(Expected::query("GET", renewal(0, &json!({}))), tokens(1), connected(1))
}

fn query_without_grant_type() -> Dialect {
    let config = json!({
        "token_body_format": "query", "response_type": "", "pkce": "off", "param_names": { "grant_type": "" },
        "auth_params": { "type": "web_server" }, "token_params": { "type": "web_server" },
        "refresh_params": { "type": "refresh" },
    });
    let login = code(&json!({ "grant_type": null, "code_verifier": null, "type": "web_server" }));
    let refresh = renewal(0, &json!({ "grant_type": null, "type": "refresh" }));
    let authorize = json!({
        "response_type": null, "code_challenge": null, "code_challenge_method": null, "type": "web_server",
    });
    Dialect::new("query", config)
        .authorize(authorize)
        .login(Expected::query("POST", login), tokens(0), connected(0))
        .refresh(Expected::query("POST", refresh), tokens(1), connected(1))
}

const IN_HEADER: &str = "p@ss+w/=%";

fn json_with_basic() -> Dialect {
    let config = json!({
        "token_body_format": "json", "token_auth_method": "client_secret_basic", "client_secret": IN_HEADER,
    });
    let without = json!({ "client_id": null, "client_secret": null });
    let headers = basic("client:p%40ss%2Bw%2F%3D%25");
    Dialect::new("json", config)
        .login(Expected::json(code(&without)).headers(headers.clone()), tokens(0), connected(0))
        .refresh(Expected::json(renewal(0, &without)).headers(headers), tokens(1), connected(1))
}

fn raw_basic() -> Dialect {
    let config = json!({
        "basic_encoding": "raw", "token_auth_method": "client_secret_basic", "client_secret": IN_HEADER,
    });
    let without = json!({ "client_id": null, "client_secret": null });
    let headers = basic("client:p@ss+w/=%");
    Dialect::new("raw", config)
        .login(Expected::form(code(&without)).headers(headers.clone()), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &without)).headers(headers), tokens(1), connected(1))
}

fn headers() -> Dialect {
    let config = json!({ "token_headers": {
        "X-Version": "2025-01", "User-Agent": "web:acme:1 (by ada)", "Accept": "application/vnd.acme+json",
        "X-Correlation-Id": "c-${nonce}", "X-Site": "${site}",
    }, "variables": { "site": { "pattern": "[a-z]+", "default": "acme" } } });
    let headers = json!({
        "x-version": "2025-01", "user-agent": "web:acme:1 (by ada)", "accept": "application/vnd.acme+json",
        "x-correlation-id": "*new", "x-site": "acme",
    });
    Dialect::new("headers", config)
        .login(Expected::form(code(&json!({}))).headers(headers.clone()), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &json!({}))).headers(headers.clone()), tokens(1), connected(1))
        .refresh(Expected::form(renewal(1, &json!({}))).headers(headers), tokens(2), connected(2))
}

/// The scope is the one that was granted, which is less than was asked for.
fn redirect_uri_and_scope_again() -> Dialect {
    let params = json!({ "redirect_uri": "${redirect_url}", "scope": "${scope}" });
    let config = json!({ "token_params": params, "refresh_params": params });
    let granted = hour(0, &json!({ "scope": "read" }));
    let outcome = changed(connected(0), &json!({ "scope": "read" }));
    let again = json!({ "redirect_uri": "{redirect}", "scope": "read" });
    Dialect::new("again", config)
        .login(Expected::form(code(&json!({ "scope": "read write" }))), Scripted::json(200, &granted), outcome)
        .refresh(Expected::form(renewal(0, &again)), tokens(1), connected(1))
        .refresh(Expected::form(renewal(1, &again)), tokens(2), connected(2))
}

fn names() -> Dialect {
    let config = json!({ "param_names": {
        "client_id": "client_key", "authorize": { "scope": "advanced_scopes" },
        "token": { "code": "auth_code", "redirect_uri": "" }, "refresh": { "client_id": "app", "refresh_token": "old" },
    } });
    let login = json!({
        "client_id": null, "client_key": "client", "code": null, "auth_code": "code-1", "redirect_uri": null,
    });
    let refresh = json!({ "client_id": null, "app": "client", "refresh_token": null, "old": "rt-0" });
    let authorize =
        json!({ "client_id": null, "client_key": "client", "scope": null, "advanced_scopes": "read write" });
    Dialect::new("names", config)
        .authorize(authorize)
        .login(Expected::form(code(&login)), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &refresh)), tokens(1), connected(1))
}

/// In a path, a query and parameters.
fn variables() -> Dialect {
    let config = json!({
        "variables": { "tenant": { "pattern": "[a-z/-]+" }, "region": { "pattern": "[a-z]+", "default": "eu" } },
        "token_url": "{url}/${region}/token?tenant=${tenant}", "auth_params": { "context": "stores/${tenant}" },
        "token_params": { "context": "stores/${tenant}" }, "refresh_params": { "region": "${region}" },
    });
    let query = json!({ "tenant": "acme-x" });
    let with = |params: Value| Expected { query: query.clone(), ..Expected::form(params) }.path("/us/token");
    Dialect { login: "?var.tenant=acme-x&var.region=us", ..Dialect::new("variables", config) }
        .authorize(json!({ "context": "stores/acme-x" }))
        .login(with(code(&json!({ "context": "stores/acme-x" }))), tokens(0), connected(0))
        .refresh(with(renewal(0, &json!({ "region": "us" }))), tokens(1), connected(1))
}

fn query_beside_json() -> Dialect {
    let config = json!({ "token_url": "{url}/token?request=token&v=1", "token_body_format": "json" });
    let query = json!({ "request": "token", "v": "1" });
    let with = |params: Value| Expected { query: query.clone(), ..Expected::json(params) };
    Dialect::new("beside", config).login(with(code(&json!({}))), tokens(0), connected(0)).refresh(
        with(renewal(0, &json!({}))),
        tokens(1),
        connected(1),
    )
}

fn public_client() -> Dialect {
    let without = json!({ "client_secret": null });
    Dialect::new("public", json!({ "client_secret": "", "token_auth_method": "none" }))
        .login(Expected::form(code(&without)), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &without)), tokens(1), connected(1))
}

/// The client signs a new assertion for each request.
fn assertion() -> Dialect {
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let config = json!({
        "token_auth_method": "private_key_jwt", "client_secret": "", "client_key": key, "client_key_alg": "ES256",
    });
    let signed = json!({
        "client_secret": null, "client_assertion": "*new",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    });
    Dialect::new("assertion", config).login(Expected::form(code(&signed)), tokens(0), connected(0)).refresh(
        Expected::form(renewal(0, &signed)),
        tokens(1),
        connected(1),
    )
}

/// Refreshes and revocations have URLs of their own.
fn other_urls() -> Dialect {
    let config = json!({ "refresh_url": "{url}/renew", "revocation_url": "{url}/revoke" });
    let revoked = |token: &str, hint: &str| {
        let params = json!({ "token": token, "token_type_hint": hint, "client_id": "client", "client_secret": "s" });
        (Expected::form(params).path("/revoke"), Scripted::new(200, "text/plain", ""))
    };
    let both = vec![revoked("rt-1", "refresh_token"), revoked("at-1", "access_token")];
    Dialect::new("urls", config)
        .login(Expected::form(code(&json!({}))), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &json!({}))).path("/renew"), tokens(1), connected(1))
        .step(Act::Delete, both, json!({}))
}

/// Refreshes and revocations authenticate otherwise than the request for a code's tokens.
fn own_forms() -> Dialect {
    let config = json!({
        "revocation_url": "{url}/revoke", "refresh_auth_method": "client_secret_basic",
        "revocation_auth_method": "client_secret_basic", "revocation_body_format": "json",
        "param_names": { "revoke": { "token": "key", "token_type_hint": "" } },
    });
    let without = json!({ "client_id": null, "client_secret": null });
    let headers = basic("client:s");
    let revoked = |token: &str| {
        let expected = Expected::json(json!({ "key": token })).path("/revoke").headers(headers.clone());
        (expected, Scripted::new(204, "text/plain", ""))
    };
    Dialect::new("own-forms", config)
        .login(Expected::form(code(&json!({}))), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &without)).headers(headers.clone()), tokens(1), connected(1))
        .step(Act::Delete, vec![revoked("rt-1"), revoked("at-1")], json!({}))
}

/// The access token renews itself, as the query of a GET.
fn with_access_token() -> Dialect {
    let config = json!({
        "refresh_with": "access_token", "refresh_grant_type": "own_refresh_token", "refresh_method": "GET",
        "refresh_url": "{url}/renew",
    });
    let answer = |number: usize| {
        let token = format!("at-{number}");
        Scripted::json(200, &json!({ "access_token": token, "token_type": "bearer", "expires_in": 3600 }))
    };
    let outcome = |number: usize| {
        let token = format!("at-{number}");
        changed(connected(number), &json!({ "access_token": token, "refresh_token": token }))
    };
    let renewal = |number: usize| {
        let params = json!({
            "grant_type": "own_refresh_token", "access_token": format!("at-{number}"), "client_id": "client",
            "client_secret": "s",
        });
        Expected::query("GET", params).path("/renew")
    };
    Dialect::new("renewed", config)
        .login(Expected::form(code(&json!({}))), answer(0), outcome(0))
        .refresh(renewal(0), answer(1), outcome(1))
        .refresh(renewal(1), answer(2), outcome(2))
}
