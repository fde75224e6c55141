//! The fields of a config that admins see.

use serde_json::{Map, Value, json};

use super::config;
use crate::integration::{check, secrets};

/// Fields that every view shows whole. The others are in the lists of `secrets.rs`.
const SHOWN_WHOLE: [&str; 44] = [
    "auth_params",
    "auth_url",
    "basic_encoding",
    "callback_metadata",
    "client_assertion_aud",
    "client_assertion_iss",
    "client_id",
    "client_key_alg",
    "client_key_id",
    "code_param",
    "default_expires_in",
    "error_codes",
    "expires_in_unit",
    "integration_id",
    "issuer",
    "login_params",
    "metadata_paths",
    "name",
    "param_names",
    "pkce",
    "provider",
    "reconnect",
    "redirect_url",
    "refresh_auth_method",
    "refresh_grant_type",
    "refresh_method",
    "refresh_token_lifetime",
    "refresh_with",
    "response_mode",
    "response_type",
    "revocation_auth_method",
    "revocation_body_format",
    "revocation_method",
    "revoke_replaced",
    "revoke_with",
    "scope_separator",
    "scopes",
    "timeout",
    "token_answer",
    "token_auth_method",
    "token_body_format",
    "token_method",
    "token_response_path",
    "variables",
];

/// A config with a canary wherever a secret may be.
fn with_canaries() -> Value {
    let request = |more: Value| {
        let url = "https://api.example/me?api=canary-q&tenant=${tenant}&canary-flag";
        let headers = json!({"X-Key": "canary-h", "Accept": "text/json", "X-Tenant": "${tenant}"});
        let mut request = json!({"url": url, "headers": headers});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    json!({
        "client_secret": "${canary-1}", "client_secrets": ["canary-2"], "token_headers": {"X-Key": "canary", "User-Agent": "acme/1"},
        "token_params": {"key": "canary-t", "accept": "canary-a", "scope": "${scope}"}, "refresh_params": {"key": "canary-r"},
        "token_url": "https://acme.example/token?api=canary-u", "refresh_url": "https://acme.example/refresh?api=canary-u",
        "revocation_url": "https://acme.example/revoke?api=canary-u",
        "provider": "acme", "variables": {"tenant": {"pattern": "[a-z]+", "default": "common"}},
        "upgrade": request(json!({"params": {"key": "canary", "secret": "${client_secret}"}})),
        "identity": request(json!({"id": "sub", "method": "POST", "body": {"a": {"b": "canary"}}})),
        "metadata_request": request(json!({"paths": ["0.id"], "params": {"key": "canary"}})),
    })
}

#[test]
fn f1_every_view_shows_the_same_and_no_secret() {
    let shown = Value::Object(config(&with_canaries()).unwrap().shown().unwrap());
    assert!(!shown.to_string().contains("canary"), "{shown}");
    for (path, value) in [
        ("/provider", json!("acme")),
        ("/token_url", json!("https://acme.example/token?api=set")),
        ("/refresh_url", json!("https://acme.example/refresh?api=set")),
        ("/revocation_url", json!("https://acme.example/revoke?api=set")),
        ("/pkce", json!("S256")),
        ("/client_secret", json!("set")),
        ("/client_secrets", json!(["set"])),
        ("/token_headers", json!({"X-Key": "set", "User-Agent": "acme/1"})),
        ("/token_params", json!({"key": "set", "accept": "set", "scope": "${scope}"})),
        ("/refresh_params", json!({"key": "set"})),
        ("/upgrade/params", json!({"key": "set", "secret": "${client_secret}"})),
        ("/identity/url", json!("https://api.example/me?api=set&tenant=${tenant}&set")),
        ("/identity/id", json!("sub")),
        ("/identity/body", json!({"a": "set"})),
        ("/metadata_request/headers", json!({"X-Key": "set", "Accept": "text/json", "X-Tenant": "${tenant}"})),
    ] {
        assert_eq!(shown.pointer(path), Some(&value), "{path}");
    }
    let copy = config(&with_canaries()).unwrap().without_secrets().unwrap();
    assert!(!json!(copy).to_string().contains("canary") && !json!(copy).to_string().contains("\"set\""), "{copy:?}");
    let left_out: Vec<&String> = shown.as_object().unwrap().keys().filter(|name| !copy.contains_key(*name)).collect();
    let expected = "client_secret client_secrets identity metadata_request refresh_params refresh_url revocation_url \
                    token_headers token_params token_url upgrade";
    assert_eq!(left_out, expected.split(' ').collect::<Vec<_>>());
    let public = config(&json!({"client_secret": ""})).unwrap().shown().unwrap();
    assert_eq!(public["client_secret"], "");
}

/// A new field of a config is either in the list of what may be secret, or here.
#[test]
fn f1_each_field_is_shown_whole_or_may_be_secret() {
    let fields: Map<String, Value> = check::field_names()
        .map(|name| (name.to_owned(), json!({"url": "https://x.example/?a=b", "b": "c"})))
        .collect();
    let mut shown = fields.clone();
    secrets::hide(&mut shown);
    let texts = ["client_secret", "client_secrets", "client_key", "token_url", "refresh_url", "revocation_url"];
    for (name, value) in &fields {
        let is_whole = shown[name] == *value && !texts.contains(&name.as_str());
        assert_eq!(is_whole, SHOWN_WHOLE.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn settings_that_are_put_back_as_they_are_shown_are_refused() {
    let url = "https://api.example/me";
    for (fields, field) in [
        (json!({"client_secret": "set"}), "client_secret"),
        (json!({"client_secrets": ["other", "set"]}), "client_secrets.1"),
        (json!({"token_headers": {"X-Key": "set"}}), "token_headers.X-Key"),
        (json!({"token_params": {"key": "set"}}), "token_params.key"),
        (json!({"refresh_params": {"key": "set"}}), "refresh_params.key"),
        (json!({"token_url": "https://acme.example/token?key=set"}), "token_url.key"),
        (json!({"upgrade": {"url": url, "params": {"key": "set"}}}), "upgrade.params.key"),
        (json!({"identity": {"url": url, "id": "sub", "headers": {"X-Key": "set"}}}), "identity.headers.X-Key"),
        (
            json!({"metadata_request": {"url": url, "paths": ["a"], "method": "POST", "body": {"a": "set"}}}),
            "metadata_request.body.a",
        ),
    ] {
        let error = config(&fields).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field} must be the secret itself")), "{error}");
    }
}
