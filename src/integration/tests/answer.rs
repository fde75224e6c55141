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
    for paths in [json!(""), json!("."), json!("canary."), json!([]), json!(["a", ""]), json!("x".repeat(129))] {
        check(&json!({"token_answer": {"access_token": paths}}), "token_answer.access_token");
    }
    for value in [
        json!("canary"),
        json!(true),
        json!([]),
        json!({"scope": 1}),
        json!({"scope": [1]}),
        json!({"scope": {"a": "canary"}}),
    ] {
        check(&json!({"token_answer": value}), "token_answer");
    }
    let shown = |paths: Value| json!({"token_answer": {"access_token": ["x.token", "y"]}, "metadata_paths": paths});
    assert!(config(&shown(json!(["x.id"]))).is_ok());
    for path in ["token", "z.token", "y"] {
        check(&shown(json!([path])), "metadata_paths");
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
    for value in [
        json!("canary"),
        json!({"code": "invalid_grant"}),
        json!(["canary"]),
        json!([{"status": 400}]),
        json!([{"status": "400", "code": "invalid_grant"}]),
        json!([{"status": 99, "code": "invalid_grant"}]),
        json!([{"status": 600, "code": "invalid_grant"}]),
        json!([{"path": 1, "code": "invalid_grant"}]),
        json!([{"equals": "a", "matches": "canary", "code": "invalid_grant"}]),
        json!([{"equals": ["canary"], "code": "invalid_grant"}]),
        json!([{"equals": null, "code": "invalid_grant"}]),
        json!([{"canary": 1, "status": 400, "code": "invalid_grant"}]),
        json!(vec![json!({"status": 400, "code": "invalid_grant"}); 33]),
    ] {
        check(&rules(value), "error_codes");
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
