//! Fields of a config that say how to read a provider's answers.

use serde_json::{Value, json};

use super::{check, config};
use crate::integration::ANSWER_FIELDS;

#[test]
fn a4_paths_of_token_answers_have_known_names_and_a_dot_path() {
    for paths in [json!("a"), json!("a.b"), json!(["a", "b.c"])] {
        for name in ANSWER_FIELDS {
            assert!(config(&json!({"token_answer": {name: paths}})).is_ok(), "{name} {paths}");
        }
        check(&json!({"token_answer": {"other": paths}}), "token_answer.other");
    }
    for paths in [json!(""), json!("."), json!("canary."), json!([]), json!("x".repeat(129))] {
        check(&json!({"token_answer": {"access_token": paths}}), "token_answer.access_token");
    }
    for (value, field) in [
        (json!("canary"), "token_answer"),
        (json!(true), "token_answer"),
        (json!([]), "token_answer"),
        (json!({"scope": 1}), "token_answer.scope"),
        (json!({"scope": [1]}), "token_answer.scope.0"),
        (json!({"scope": {"a": "canary"}}), "token_answer.scope"),
        (json!({"scope": ["a", ""]}), "token_answer.scope.1"),
        (json!({"scope": ["a", "${canary}"]}), "token_answer.scope.1"),
    ] {
        check(&json!({"token_answer": value}), field);
    }
    let shown = |paths: Value| json!({"token_answer": {"access_token": ["x.token", "y"]}, "metadata_paths": paths});
    assert!(config(&shown(json!(["x.id"]))).is_ok());
    for path in ["token", "z.token", "y"] {
        check(&shown(json!([path])), "metadata_paths.0");
    }
}

#[test]
fn a4_a_timeout_is_from_1_to_60_seconds() {
    for (more, seconds) in [(json!({}), 30), (json!({"timeout": 1}), 1), (json!({"timeout": 60}), 60)] {
        assert_eq!(config(&more).unwrap().timeout().as_secs(), seconds, "{more}");
    }
    for value in [json!(0), json!(61), json!(300), json!(-1), json!(1.5), json!("30"), json!("canary"), json!([30])] {
        check(&json!({ "timeout": value }), "timeout");
    }
}

#[test]
fn a4_error_codes_have_a_condition_and_a_known_code() {
    let rules = |rules: Value| json!({ "error_codes": rules });
    for rule in [
        json!({"status": 400, "code": "invalid_grant"}),
        json!({"path": "a.b", "equals": 190, "code": "invalid_client"}),
        json!({"equals": true, "code": "server_error"}),
        json!({"matches": "(?i)expired", "code": "invalid_grant"}),
    ] {
        let parsed = config(&rules(json!([rule]))).unwrap();
        assert_eq!(serde_json::to_value(&parsed.error_codes).unwrap(), json!([rule]), "the rule is stored as given");
    }
    for (value, field) in [
        (json!("canary"), "error_codes"),
        (json!({"code": "invalid_grant"}), "error_codes"),
        (json!(["canary"]), "error_codes.0"),
        (json!([{"status": 400}]), "error_codes.0.code"),
        (json!([{"status": "400", "code": "invalid_grant"}]), "error_codes.0.status"),
        (json!([{"status": 99, "code": "invalid_grant"}]), "error_codes.0.status"),
        (json!([{"status": 600, "code": "invalid_grant"}]), "error_codes.0.status"),
        (json!([{"path": 1, "code": "invalid_grant"}]), "error_codes.0.path"),
        (json!([{"equals": "a", "matches": "canary", "code": "invalid_grant"}]), "error_codes.0.matches"),
        (json!([{"equals": ["canary"], "code": "invalid_grant"}]), "error_codes.0.equals"),
        (json!([{"equals": null, "code": "invalid_grant"}]), "error_codes.0.equals"),
        (json!([{"stauts": "canary", "status": 400, "code": "invalid_grant"}]), "error_codes.0.stauts"),
        (json!(vec![json!({"status": 400, "code": "invalid_grant"}); 33]), "error_codes"),
    ] {
        check(&rules(value), field);
    }
    for (rule, field) in [
        (json!({"code": "invalid_grant"}), "error_codes.1"),
        (json!({"status": 400, "code": "canary"}), "error_codes.1.code"),
        (json!({"status": 400, "code": "unknown_error"}), "error_codes.1.code"),
        (json!({"path": "canary.", "code": "invalid_grant"}), "error_codes.1.path"),
        (json!({"matches": "canary(", "code": "invalid_grant"}), "error_codes.1.matches"),
        (json!({"matches": "x".repeat(257), "code": "invalid_grant"}), "error_codes.1.matches"),
        (json!({"matches": "(x{100}){100}", "code": "invalid_grant"}), "error_codes.1.matches"),
        (json!({"equals": "x".repeat(1025), "code": "invalid_grant"}), "error_codes.1.equals"),
    ] {
        check(&rules(json!([{"status": 400, "code": "invalid_grant"}, rule])), field);
    }
}
