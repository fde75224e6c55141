//! Errors in the provider's own words.

use serde_json::{Value, json};

use super::{FORM, HTML, JSON, check, parse};
use crate::integration::tests::config;
use crate::oauth::token::{Response, TokenError};

#[test]
fn b6_compiled_in_words_are_known_wherever_the_error_is() {
    for body in [
        json!({"error": "bad_refresh_token"}),
        json!({"error": {"code": "bad_refresh_token"}}),
        json!({"error": {"type": "bad_refresh_token"}}),
    ] {
        check(400, JSON, &body.to_string(), Err("invalid_grant"));
        check(200, JSON, &body.to_string(), Err("invalid_grant"));
        let nested = json!({"a": {"b": body}}).to_string();
        let reason = parse(&json!({"token_response_path": "a.b"}), 200, JSON, &nested).unwrap_err().reason();
        assert_eq!(reason, "invalid_grant", "{nested}");
    }
    check(200, FORM, "error=token_revoked", Err("invalid_grant"));
    check(400, JSON, r#"{"error":"application_suspended"}"#, Err("unauthorized_client"));
    check(400, JSON, r#"{"error":"ratelimited"}"#, Err("temporarily_unavailable"));
    check(400, JSON, r#"{"error":"fatal_error"}"#, Err("server_error"));
    check(400, JSON, r#"{"error":"user_denied"}"#, Err("access_denied"));
}

#[track_caller]
fn check_rules(rules: &Value, status: u16, body: &str, expected: Result<&str, &str>) {
    let found = parse(&json!({ "error_codes": rules }), status, HTML, body);
    let found = found.as_ref().map(|tokens| tokens.access_token.expose()).map_err(|error| error.reason());
    assert_eq!(found, expected, "{rules} {status} {body}");
}

#[test]
fn b6_the_rules_of_a_config_come_first() {
    let dead = |rule: Value| {
        let mut rules = json!([{"status": 418, "code": "login_required"}, rule]);
        rules[1]["code"] = json!("invalid_grant");
        rules
    };
    let words = dead(json!({"path": "status", "equals": "BAD_REFRESH_TOKEN"}));
    check_rules(&words, 400, r#"{"status":"BAD_REFRESH_TOKEN","message":"x"}"#, Err("invalid_grant"));
    check_rules(&words, 400, r#"{"status":"BAD_CLIENT"}"#, Err("unreadable_answer"));
    check_rules(&words, 400, r#"{"status":"BAD_CLIENT","error":"invalid_scope"}"#, Err("invalid_scope"));
    check_rules(&words, 418, r#"{"status":"BAD_REFRESH_TOKEN"}"#, Err("login_required"));
    check_rules(&words, 200, "status=BAD_REFRESH_TOKEN", Err("invalid_grant"));
    let number = dead(json!({"path": "error.code", "equals": 190}));
    check_rules(&number, 400, r#"{"error":{"type":"OAuthException","code":190}}"#, Err("invalid_grant"));
    check_rules(&number, 400, r#"{"error":{"type":"OAuthException","code":1}}"#, Err("unknown_error"));
    check_rules(&dead(json!({"status": 401, "equals": "Unauthorized"})), 401, "Unauthorized", Err("invalid_grant"));
    check_rules(&dead(json!({"matches": "(?i)expired"})), 400, "<p>Token EXPIRED</p>", Err("invalid_grant"));
    // Also before the words of the RFC and the compiled-in ones.
    let busy = json!([{"path": "error", "matches": "^(invalid_grant|token_revoked)$", "code": "server_error"}]);
    check_rules(&busy, 400, r#"{"error":"invalid_grant"}"#, Err("server_error"));
    check_rules(&busy, 400, r#"{"error":"token_revoked"}"#, Err("server_error"));
}

#[test]
fn b6_a_status_that_may_pass_is_mapped_only_by_its_name() {
    let words = json!([{"path": "error", "equals": "gone", "code": "invalid_grant"}]);
    let mut named = words.clone();
    for (status, reason) in [(429, "rate_limited"), (500, "provider_error"), (503, "provider_error")] {
        check_rules(&words, status, r#"{"error":"gone"}"#, Err(reason));
        named[0]["status"] = json!(status);
        check_rules(&named, status, r#"{"error":"gone"}"#, Err("invalid_grant"));
        check_rules(&named, status, r#"{"error":"other"}"#, Err(reason));
    }
}

#[test]
fn b6_no_rule_costs_tokens_that_arrive_without_an_error() {
    let rules = json!([{"matches": "expired", "code": "invalid_grant"}, {"status": 200, "code": "invalid_grant"}]);
    check_rules(&rules, 200, r#"{"access_token":"a-expired-b"}"#, Ok("a-expired-b"));
    check_rules(&rules, 200, r#"{"message":"expired"}"#, Err("invalid_grant"));
    check_rules(&rules, 200, r#"{"access_token":"a","error":"odd"}"#, Err("invalid_grant"));
    check_rules(&rules, 201, r#"{"access_token":"a","error":"odd"}"#, Err("unknown_error"));
}

#[track_caller]
fn check_next_secret(status: u16, body: &str, reason: &str, expected: bool) {
    let error = parse(&json!({}), status, JSON, body).unwrap_err();
    assert_eq!((error.reason(), error.allows_next_secret()), (reason, expected), "{status} {body}");
}

#[test]
fn c5_only_a_rejected_client_allows_the_next_secret() {
    for code in ["invalid_client", "unauthorized_client", "bad_client_secret", "application_suspended"] {
        let error = parse(&json!({}), 400, JSON, &json!({ "error": code }).to_string()).unwrap_err();
        assert!(error.allows_next_secret(), "{code}");
    }
    for code in ["invalid_grant", "access_denied", "invalid_scope", "anything", "server_error", "ratelimited"] {
        let error = parse(&json!({}), 400, JSON, &json!({ "error": code }).to_string()).unwrap_err();
        assert!(!error.allows_next_secret(), "{code}");
    }
    check_next_secret(401, "Unauthorized", "unauthorized", true);
    check_next_secret(401, "", "unauthorized", true);
    check_next_secret(401, r#"{"error":"anything"}"#, "unauthorized", true);
    check_next_secret(401, r#"{"error":"invalid_client"}"#, "invalid_client", true);
    check_next_secret(401, r#"{"error":"invalid_grant"}"#, "invalid_grant", false);
    check_next_secret(401, r#"{"error":"bad_refresh_token"}"#, "invalid_grant", false);
    check_next_secret(403, "Forbidden", "unreadable_answer", false);
    check_next_secret(500, r#"{"error":"invalid_client"}"#, "provider_error", false);
    check_next_secret(429, r#"{"error":"invalid_client"}"#, "rate_limited", false);
}

#[test]
fn d8_a_revocation_succeeds_with_any_2xx_without_an_error() {
    #[track_caller]
    fn check(status: u16, body: &str, expected: Result<(), &str>) {
        let config = config(&json!({})).unwrap();
        let found = Response::parse(status, JSON, body.as_bytes(), &config).success(&config);
        assert_eq!(found.map_err(TokenError::reason), expected, "{status} {body}");
    }
    for body in ["", "{}", "null", "ok", "<html>", r#"{"ok":true,"revoked":true}"#, r#"{"error":null}"#] {
        check(200, body, Ok(()));
        check(204, body, Ok(()));
    }
    check(200, r#"{"ok":false,"error":"token_revoked"}"#, Err("invalid_grant"));
    check(200, r#"{"error":"anything"}"#, Err("unknown_error"));
    check(302, "", Err("unreadable_answer"));
    check(400, r#"{"error":"unsupported_token_type"}"#, Err("unknown_error"));
    check(401, "", Err("unauthorized"));
    check(503, "", Err("provider_error"));
}

#[test]
fn c3_the_status_of_an_answer_that_is_too_large_counts() {
    for (status, reason) in
        [(200, "answer_too_large"), (400, "answer_too_large"), (429, "rate_limited"), (503, "provider_error")]
    {
        assert_eq!(TokenError::of_large_answer(status, 256).reason(), reason, "{status}");
    }
}
