//! Configs that look right and cannot work.

use serde_json::json;

use super::{check, config};

#[test]
fn a4_no_list_has_an_entry_twice() {
    let rule = json!({ "status": 400, "code": "invalid_grant" });
    for (more, field) in [
        (json!({ "identity": { "id": ["a", "b", "a"] } }), "identity.id.2"),
        (json!({ "identity": { "id": "a", "label": ["c", "c"] } }), "identity.label.1"),
        (json!({ "token_answer": { "scope": ["a", "a"] } }), "token_answer.scope.1"),
        (json!({ "error_codes": [rule, rule] }), "error_codes.1"),
        (json!({ "client_secrets": ["canary", "canary"] }), "client_secrets.1"),
        (json!({ "client_secrets": ["other", "canary-secret"] }), "client_secrets.1"),
    ] {
        check(&more, field);
    }
}

#[test]
fn a4_no_url_has_a_parameter_that_tokenbus_or_the_provider_adds() {
    let renewed = "refresh_with";
    for (more, field) in [
        (json!({ "revocation_url": "https://acme.example/r?token=canary" }), "revocation_url"),
        (json!({ "revocation_url": "https://acme.example/r?token_type_hint=canary" }), "revocation_url"),
        (
            json!({ renewed: "access_token", "refresh_params": { "access_token": "canary" } }),
            "refresh_params.access_token",
        ),
        (json!({ renewed: "access_token", "refresh_url": "https://acme.example/?access_token=canary" }), "refresh_url"),
        (json!({ "redirect_url": "https://hub.example/cb?state=canary" }), "redirect_url"),
        (json!({ "redirect_url": "https://hub.example/cb?a=b&error_uri=canary" }), "redirect_url"),
        (json!({ "redirect_url": "https://hub.example/cb?auth=canary", "code_param": "auth" }), "redirect_url"),
        (json!({ "token_url": "https://acme..example/canary" }), "token_url"),
        (json!({ "token_url": "https://acme.example:0/canary" }), "token_url"),
    ] {
        check(&more, field);
    }
    assert!(config(&json!({ "redirect_url": "https://hub.example/cb?tenant=a" })).is_ok());
    assert!(config(&json!({ "refresh_url": "https://acme.example/?access_token=a" })).is_ok());
}

#[test]
fn h13_the_nonce_of_an_id_token_is_of_its_login() {
    let identity = json!({ "id": "sub", "issuer": "https://acme.example" });
    let with = |nonce: &str| json!({ "auth_params": { "nonce": nonce }, "identity": identity });
    check(&with("canary"), "auth_params.nonce");
    assert!(config(&with("${nonce}")).is_ok());
    let url = "https://acme.example/auth?nonce=canary";
    check(&json!({ "auth_url": url, "identity": identity }), "auth_url");
    assert!(config(&json!({ "auth_url": url })).is_ok());
}

#[test]
fn a4_no_field_makes_a_login_fail_or_shows_a_secret() {
    for (more, field) in [
        (json!({ "metadata_paths": ["Access_Token"] }), "metadata_paths.0"),
        (json!({ "metadata_paths": ["data.refreshToken"] }), "metadata_paths.0"),
        (json!({ "metadata_paths": ["pw.Password"] }), "metadata_paths.0"),
        (json!({ "token_answer": { "scope": "access_token" } }), "token_answer.scope"),
        (json!({ "token_answer": { "token_type": ["token_type", "x.refresh-token"] } }), "token_answer.token_type.1"),
        (json!({ "metadata_paths": [" canary"] }), "metadata_paths.0"),
        (json!({ "metadata_paths": ["canary. a"] }), "metadata_paths.0"),
        (json!({ "callback_metadata": ["CODE"] }), "callback_metadata.0"),
        (json!({ "code_param": "error_description" }), "code_param"),
        (json!({ "response_type": "id_token" }), "response_type"),
        (json!({ "auth_params": { "response_mode": "fragment" } }), "auth_params.response_mode"),
        (json!({ "auth_params": { "Response_Mode": "web_message" } }), "auth_params.Response_Mode"),
        (json!({ "auth_params": { "response_mode": "${nonce}" } }), "auth_params.response_mode"),
        (json!({ "auth_url": "https://acme.example/a?response_mode=fragment" }), "auth_url"),
        (json!({ "auth_url": "https://acme.example/#/a?response_mode=fragment" }), "auth_url"),
        (json!({ "response_type": "none" }), "response_type"),
        (json!({ "name": "\u{200b}" }), "name"),
    ] {
        check(&more, field);
    }
    assert!(config(&json!({ "response_type": "code id_token", "metadata_paths": ["First Name"] })).is_ok());
    assert!(config(&json!({ "auth_params": { "response_mode": "form_post" } })).is_ok());
    assert!(config(&json!({ "auth_url": "https://acme.example/a?response_mode=query" })).is_ok());
}
