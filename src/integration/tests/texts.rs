//! Characters that texts of a config may have, and texts that errors show.

use serde_json::{Map, Value, json};

use super::{body, check, config};

/// Characters that move a terminal's cursor, end a line, or change the direction of the text around them.
const CONTROLS: [char; 8] = ['\n', '\t', '\u{1b}', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{2028}'];

#[test]
fn a4_no_text_has_a_control_character_or_one_that_changes_the_direction() {
    let url = "https://api.example/me";
    for control in CONTROLS {
        let odd = format!("canary{control}x");
        for field in [
            "name",
            "scopes",
            "client_id",
            "client_secret",
            "provider",
            "response_type",
            "token_response_path",
            "code_param",
            "issuer",
            "client_key_id",
            "client_assertion_aud",
            "client_assertion_iss",
            "refresh_grant_type",
        ] {
            check(&json!({ field: odd }), field);
        }
        for (more, field) in [
            (json!({ "client_secrets": ["a", odd] }), "client_secrets.1"),
            (json!({ "auth_params": { "a": odd } }), "auth_params.a"),
            (json!({ "token_params": { "a": odd } }), "token_params.a"),
            (json!({ "refresh_params": { "a": odd } }), "refresh_params.a"),
            (json!({ "metadata_paths": ["a", odd] }), "metadata_paths.1"),
            (json!({ "token_answer": { "scope": odd } }), "token_answer.scope"),
            (json!({ "token_answer": { "scope": ["a", odd] } }), "token_answer.scope.1"),
            (json!({ "error_codes": [{ "path": odd, "code": "invalid_grant" }] }), "error_codes.0.path"),
            (json!({ "error_codes": [{ "equals": odd, "code": "invalid_grant" }] }), "error_codes.0.equals"),
            (json!({ "error_codes": [{ "matches": odd, "code": "invalid_grant" }] }), "error_codes.0.matches"),
            (json!({ "variables": { "v": { "pattern": odd, "metadata": true } } }), "variables.v.pattern"),
            (json!({ "variables": { "v": { "values": [odd], "metadata": true } } }), "variables.v.values.0"),
            (json!({ "identity": { "id": odd } }), "identity.id"),
            (json!({ "identity": { "id": "a", "label": ["b", odd] } }), "identity.label.1"),
            (json!({ "metadata_request": { "url": url, "paths": [odd] } }), "metadata_request.paths.0"),
            (
                json!({ "metadata_request": { "url": url, "paths": ["a", format!("{control}.b")] } }),
                "metadata_request.paths.1",
            ),
            (json!({ "upgrade": { "url": url, "params": { "a": odd } } }), "upgrade.params.a"),
        ] {
            check(&more, field);
        }
    }
    // A query may have lines.
    let body =
        |text: &str| json!({ "identity": { "url": url, "id": "a", "method": "POST", "body": { "query": text } } });
    assert!(config(&body("{\n\tme { id }\n}")).is_ok());
    check(&body("canary\u{1b}[2J"), "identity.body.query");
    check(&body("canary\u{202e}"), "identity.body.query");
    let names = json!({ "identity": { "url": url, "id": "a", "method": "POST", "body": { "a\u{1b}": 1 } } });
    check(&names, "identity.body.a\\u001b");
    for name in ["Ünïcode Ltd", "שלום", "می‌خواهم", "日本語", "👩‍💻"] {
        assert!(config(&json!({ "name": name })).is_ok(), "{name}");
    }
}

#[test]
fn a4_texts_have_no_blank_at_their_ends() {
    for field in ["name", "client_id", "client_secret", "issuer", "client_key_id", "client_assertion_iss", "provider"] {
        for text in ["canary ", " canary", "canary\u{a0}"] {
            check(&json!({ field: text }), field);
        }
    }
    check(&json!({ "client_secrets": ["canary "] }), "client_secrets.0");
}

#[test]
fn c4_a_secret_is_there_where_it_is_sent() {
    for field in ["token_auth_method", "refresh_auth_method", "revocation_auth_method"] {
        for method in ["client_secret_post", "client_secret_basic"] {
            check(&json!({ field: method, "client_secret": "" }), "client_secret");
        }
    }
    check(&json!({ "client_secret": "", "client_secrets": ["canary"] }), "client_secrets");
    let public = config(&json!({ "client_secret": "" })).unwrap();
    let mut shown = Value::Object(public.shown().unwrap());
    assert_eq!(shown["token_auth_method"], "none", "what is shown can be put back");
    shown["name"] = "Other".into();
    assert!(config(&shown).is_ok(), "{:?}", config(&shown).err());
}

#[test]
fn a4_unknown_fields_are_named_whatever_their_characters_are() {
    let unknown = |names: &[&str]| {
        let more: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!("canary"))).collect();
        config(&Value::Object(more)).unwrap_err().to_string()
    };
    assert_eq!(unknown(&["naïve"]), "unknown field: na\\u00efve");
    assert_eq!(unknown(&["\u{202e}"]), "unknown field: \\u202e");
    assert_eq!(unknown(&["a\n<b>"]), "unknown field: a\\u000a<b>");
    assert_eq!(unknown(&["client id", ""]), "unknown field: \"\", client\\u0020id");
    let names: Vec<String> = (0..12).map(|index| format!("f{index:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let eight = names[..8].join(", ");
    assert_eq!(unknown(&names[..8]), format!("unknown field: {eight}"));
    assert_eq!(unknown(&names[..9]), format!("unknown field: {eight}, … and 1 more"));
    assert_eq!(unknown(&names), format!("unknown field: {eight}, … and 4 more"));
    check(&json!({ "identity": { "id": "a", "übel": "canary" } }), "identity.\\u00fcbel");
    check(&json!({ "variables": { "v": { "\u{1b}": "canary" } } }), "variables.v.\\u001b");
    assert!(body().is_object());
    let long = unknown(&[&"ü".repeat(1000)]);
    assert!(long.len() < 100 && long.ends_with('…'), "{long}");
}

#[test]
fn a4_null_inside_an_object_is_an_error() {
    check(&json!({ "auth_params": { "a": null } }), "auth_params.a");
    check(&json!({ "identity": { "id": "a", "label": null } }), "identity.label");
    check(&json!({ "client_secrets": [null] }), "client_secrets.0");
}
