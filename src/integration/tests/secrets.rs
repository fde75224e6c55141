//! The fields of a config that admins see.

use serde_json::{Value, json};

use super::config;

#[test]
fn f1_an_admin_sees_the_settings_of_a_config_and_no_secret() {
    let request = |more: Value| {
        let mut request = json!({"url": "https://api.example/me", "headers": {"X-Key": "canary"}});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let whole = config(&json!({
        "client_secrets": ["canary-2"], "token_headers": {"X-Key": "canary"}, "provider": "acme",
        "upgrade": request(json!({"params": {"key": "canary"}})),
        "identity": request(json!({"id": "sub", "method": "POST", "body": {"a": {"b": "canary"}}})),
        "metadata_request": request(json!({"paths": ["0.id"], "params": {"key": "canary"}})),
    }));
    let shown = Value::Object(whole.unwrap().shown().unwrap());
    assert!(!shown.to_string().contains("canary"), "{shown}");
    for (path, value) in [
        ("/provider", json!("acme")),
        ("/token_url", json!("https://acme.example/token")),
        ("/pkce", json!("S256")),
        ("/client_secret", json!("set")),
        ("/client_secrets", json!(["set"])),
        ("/token_headers", json!({"X-Key": "set"})),
        ("/upgrade/params", json!({"key": "set"})),
        ("/identity/url", json!("https://api.example/me")),
        ("/identity/id", json!("sub")),
        ("/identity/body", json!({"a": "set"})),
        ("/metadata_request/headers", json!({"X-Key": "set"})),
    ] {
        assert_eq!(shown.pointer(path), Some(&value), "{path}");
    }
    let public = config(&json!({"client_secret": ""})).unwrap().shown().unwrap();
    assert_eq!(public["client_secret"], "");
}

#[test]
fn settings_that_are_put_back_as_they_are_shown_are_refused() {
    let url = "https://api.example/me";
    for (fields, field) in [
        (json!({"client_secret": "set"}), "client_secret"),
        (json!({"client_secrets": ["other", "set"]}), "client_secrets.1"),
        (json!({"token_headers": {"X-Key": "set"}}), "token_headers.X-Key"),
        (json!({"upgrade": {"url": url, "params": {"key": "set"}}}), "upgrade"),
        (json!({"identity": {"url": url, "id": "sub", "headers": {"X-Key": "set"}}}), "identity"),
        (
            json!({"metadata_request": {"url": url, "paths": ["a"], "method": "POST", "body": {"a": "set"}}}),
            "metadata_request",
        ),
    ] {
        let error = config(&fields).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field} must be the secret itself")), "{error}");
    }
}
