//! Characters that texts of a config may have, and texts that errors show.

use serde_json::{Map, Value, json};

use super::{body, check, config};

/// Characters that move a terminal's cursor, end a line, change the direction of the text around them, or show nothing.
const HIDDEN: [char; 17] = [
    '\n',
    '\t',
    '\u{1b}',
    '\u{7f}',
    '\u{9b}',
    '\u{202e}',
    '\u{2066}',
    '\u{2028}',
    '\u{3164}',
    '\u{115f}',
    '\u{200b}',
    '\u{200d}',
    '\u{200f}',
    '\u{61c}',
    '\u{feff}',
    '\u{ad}',
    '\u{e0041}',
];

#[test]
fn a4_no_text_has_a_hidden_character() {
    let url = "https://api.example/me";
    for hidden in HIDDEN {
        let odd = format!("canary{hidden}x");
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
                json!({ "metadata_request": { "url": url, "paths": ["a", format!("{hidden}.b")] } }),
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
    check(&body("a\ncanary\u{200b}"), "identity.body.query");
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
fn a4_an_error_says_what_to_change() {
    #[track_caller]
    fn check(more: &Value, expected: &[&str]) {
        let error = config(more).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{more}: {error}");
    }
    let pattern = |pattern: &str| json!({ "variables": { "v": { "pattern": pattern, "metadata": true } } });
    let rule = |matches: &str| json!({ "error_codes": [{ "matches": matches, "code": "invalid_grant" }] });
    for (more, field) in [(pattern(r"\w{200}"), "variables.v.pattern"), (rule(r"\w{200}"), "error_codes.0.matches")] {
        check(&more, &[field, "at most 256 KiB of memory: shorten its repetitions"]);
    }
    for (more, field) in [(pattern("(?=a)"), "variables.v.pattern"), (rule("("), "error_codes.0.matches")] {
        check(&more, &[field, "a valid regular expression; look-around"]);
    }
    check(&pattern(&"a".repeat(257)), &["at most 256 bytes"]);
    for host in ["${v}.localhost", "${v}", "x${v}.acme.example"] {
        let mut more = pattern("[a-z]+");
        more["token_url"] = format!("https://{host}/t").into();
        check(&more, &["token_url must be a URL in whose host each variable", "at least two fixed labels follow"]);
    }
    check(&json!({ "scopes": "a, b,a" }), &["scopes must be a list that names each scope once"]);
    assert!(config(&json!({ "scopes": "a, b," })).is_ok());
}

#[test]
fn a4_null_inside_an_object_is_an_error() {
    check(&json!({ "auth_params": { "a": null } }), "auth_params.a");
    check(&json!({ "identity": { "id": "a", "label": null } }), "identity.label");
    check(&json!({ "client_secrets": [null] }), "client_secrets.0");
}
