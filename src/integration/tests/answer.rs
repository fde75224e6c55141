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
