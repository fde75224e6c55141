//! Headers and parameters that a config adds to requests: each is sent once, as it is written.

use serde_json::{Map, Value, json};

use super::{check, config};

const URL: &str = "https://api.example/me?fields=id&x";

/// Returns the config with these headers in each place that has some, with the headers' path.
fn with_headers(headers: &Value) -> [(String, Value); 4] {
    let request = |more: Value| {
        let mut request = json!({ "url": URL, "headers": headers });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    [
        ("token_headers".to_owned(), json!({ "token_headers": headers })),
        ("upgrade.headers".to_owned(), json!({ "upgrade": request(json!({})) })),
        ("identity.headers".to_owned(), json!({ "identity": request(json!({ "id": "sub" })) })),
        ("metadata_request.headers".to_owned(), json!({ "metadata_request": request(json!({ "paths": ["a"] })) })),
    ]
}

#[test]
fn a4_headers_have_the_same_rules_in_every_place() {
    for (name, value) in [
        ("X-Empty", ""),
        ("X-Blank", " "),
        ("X-A", "canary "),
        ("X-A", " canary"),
        ("X-A", "canary\tb"),
        ("X-A", "canary\u{202e}"),
        ("Proxy-Authorization", "canary"),
        ("proxy-connection", "canary"),
        ("Proxy-Anything", "canary"),
        ("Content-Type", "canary"),
        ("Transfer-Encoding", "canary"),
        ("Cookie", "canary"),
        ("X-Original-URL", "canary"),
        ("x_rewrite_url", "canary"),
        ("X-HTTP-Method-Override", "canary"),
        ("X-Method-Override", "canary"),
        ("X-HTTP-Host-Override", "canary"),
        ("X-Original-Host", "canary"),
        ("x_original_path", "canary"),
        ("X-Rewrite-Uri", "canary"),
        ("X-Override-Url", "canary"),
        ("X-Envoy-Original-Path", "canary"),
        ("X-Accel-Redirect", "canary"),
        ("X-Host", "canary"),
        ("Request-URI", "canary"),
        ("Destination", "canary"),
        ("Forwarded", "canary"),
        ("X-Forwarded-Host", "canary"),
    ] {
        for (path, more) in with_headers(&json!({ name: value })) {
            check(&more, &format!("{path}.{name}"));
        }
    }
    for (path, more) in with_headers(&json!({ "X-A": "canary-1", "x-a": "canary-2" })) {
        check(&more, &format!("{path}.x-a"));
    }
    for (_, more) in with_headers(&json!({ "X-A": "1", "X-B.c": "a b", "Accept": "text/json" })) {
        assert!(config(&more).is_ok(), "{more}: {:?}", config(&more).err());
    }
}

/// Returns the config with an `identity` and one with a `metadata_request` that have these fields.
fn with_request(more: &Value) -> [(&'static str, Value); 2] {
    let request = |own: Value| {
        let mut request = Map::from_iter([("url".to_owned(), URL.into())]);
        request.extend(own.as_object().unwrap().clone());
        request.extend(more.as_object().unwrap().clone());
        request
    };
    [
        ("identity", json!({ "identity": request(json!({ "id": "sub" })) })),
        ("metadata_request", json!({ "metadata_request": request(json!({ "paths": ["a"] })) })),
    ]
}

#[test]
fn a4_the_access_token_has_one_place_and_no_parameter_is_sent_twice() {
    for (more, field) in [
        (json!({ "token_param": "token", "headers": { "authorization": "Basic canary" } }), "headers.authorization"),
        (json!({ "token_param": "token", "headers": { "X-Token": "${access_token}" } }), "headers.X-Token"),
        (json!({ "token_param": "fields" }), "token_param"),
        (json!({ "token_param": "x" }), "token_param"),
        (json!({ "token_param": "a", "params": { "a": "canary" } }), "token_param"),
        (json!({ "token_param": "a", "method": "POST", "body": { "a": "canary" } }), "token_param"),
        (json!({ "params": { "fields": "canary" } }), "params.fields"),
        (json!({ "method": "POST", "params": { "x": "canary" } }), "params.x"),
    ] {
        for (request, more) in with_request(&more) {
            check(&more, &format!("{request}.{field}"));
        }
    }
    check(&json!({ "upgrade": { "url": URL, "params": { "fields": "canary" } } }), "upgrade.params.fields");
    for name in ["_method", "_Method", "X-HTTP-Method-Override", "x_http_method"] {
        let params = json!({ name: "canary" });
        for field in ["auth_params", "token_params", "refresh_params"] {
            check(&json!({ field: params }), &format!("{field}.{name}"));
        }
        check(&json!({ "param_names": { "scope": name } }), "param_names.scope");
        for (request, more) in with_request(&json!({ "params": params })) {
            check(&more, &format!("{request}.params.{name}"));
        }
        for (request, more) in with_request(&json!({ "token_param": name })) {
            check(&more, &format!("{request}.token_param"));
        }
        let url = format!("https://acme.example/canary?{name}=DELETE");
        for field in ["auth_url", "token_url", "refresh_url", "revocation_url"] {
            check(&json!({ field: url }), field);
        }
        check(&json!({ "identity": { "url": url, "id": "sub" } }), "identity.url");
    }
    for (_, more) in with_request(&json!({ "token_param": "token", "params": { "other": "a" } })) {
        assert!(config(&more).is_ok(), "{more}: {:?}", config(&more).err());
    }
    for (params, url) in [
        ("auth_params", "auth_url"),
        ("token_params", "token_url"),
        ("refresh_params", "token_url"),
        ("refresh_params", "refresh_url"),
    ] {
        check(&json!({ url: "https://acme.example/x?a=canary", params: { "a": "canary" } }), &format!("{params}.a"));
    }
}
