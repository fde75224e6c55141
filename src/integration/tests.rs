mod answer;
mod api_requests;
mod attacks;
mod headers;
mod requests;
mod secrets;
mod texts;
mod variables;

use super::*;
use crate::subject::ConnectionName;
use proptest::prelude::*;
use serde_json::json;

pub(crate) fn body() -> Value {
    json!({
        "integration_id": "acme", "name": "Acme", "scopes": "a, b,", "client_id": "id",
        "client_secret": "canary-secret", "auth_url": "https://acme.example/auth?x=1",
        "token_url": "https://acme.example/token", "redirect_url": "https://hub.example/cb",
    })
}

pub(crate) fn config(more: &Value) -> Result<IntegrationOauthConfig, ConfigError> {
    config_by(more, UrlRules::default())
}

fn config_by(more: &Value, rules: UrlRules) -> Result<IntegrationOauthConfig, ConfigError> {
    let mut fields = body();
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parse_value(fields, &Integration::parse("acme").unwrap(), rules)
}

/// Parses a config from the body of a request.
fn parse(body: &[u8]) -> Result<IntegrationOauthConfig, ConfigError> {
    parse_value(read_json(body)?, &Integration::parse("acme").unwrap(), UrlRules::default())
}

/// Asserts that the error names the field by its whole path and contains no value.
#[track_caller]
fn check(more: &Value, field: &str) {
    let error = config(more).unwrap_err().to_string();
    let forms = [format!("{field} must be "), format!("unknown field: {field}; "), format!("missing field: {field}")];
    let names_field = error.starts_with(&forms[0]) || error.starts_with(&forms[1]) || error == forms[2];
    assert!(names_field, "{field} {more}: {error}");
    assert!(!error.contains("canary"), "{error}");
}

const REQUIRED: [&str; 8] =
    ["integration_id", "name", "scopes", "client_id", "client_secret", "auth_url", "token_url", "redirect_url"];

#[test]
fn a4_required_fields_are_present_and_strings() {
    for field in REQUIRED {
        let mut missing = body();
        missing.as_object_mut().unwrap().remove(field);
        let error = parse_value(missing, &Integration::parse("acme").unwrap(), UrlRules::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("missing field: {field}"));
        assert_eq!(config(&json!({field: null})).unwrap_err().to_string(), format!("missing field: {field}"));
        for value in [json!(1), json!(["canary"]), json!({"canary": "canary"})] {
            check(&json!({field: value}), field);
        }
    }
    for field in ["integration_id", "name", "client_id", "auth_url", "token_url", "redirect_url"] {
        for value in ["", " ", "canary\n", "\u{0}canary"] {
            check(&json!({field: value}), field);
        }
    }
    check(&json!({"integration_id": "other-canary"}), "integration_id");
    check(&json!({"integration_id": "oauth-canary"}), "integration_id");
    check(&json!({"integration_id": "acme.canary"}), "integration_id");
}

#[test]
fn a4_optional_fields_have_their_type_and_choice() {
    let texts = [
        "provider",
        "refresh_url",
        "revocation_url",
        "token_response_path",
        "code_param",
        "issuer",
        "client_key",
        "client_key_id",
        "client_assertion_aud",
    ];
    let choices =
        ["scope_separator", "pkce", "token_auth_method", "token_body_format", "expires_in_unit", "client_key_alg"];
    let lists = ["metadata_paths", "callback_metadata", "client_secrets"];
    let maps = ["auth_params", "token_params", "refresh_params", "param_names", "variables"];
    for field in texts.iter().chain(&choices).chain(&lists).chain(&maps).chain(&["default_expires_in"]) {
        assert!(config(&json!({ *field: null })).is_ok(), "{field}: null is absent");
        let right = (texts.contains(field) || choices.contains(field), lists.contains(field), maps.contains(field));
        for (value, fits) in
            [(json!("canary"), right.0), (json!(["canary"]), right.1), (json!({"a": "canary"}), right.2)]
        {
            if !fits {
                check(&json!({ *field: value }), field);
            }
        }
        for value in [json!(true), json!(1.5), json!(-1)] {
            check(&json!({ *field: value }), field);
        }
        let path =
            |is_inside: bool, name: &str| if is_inside { format!("{field}.{name}") } else { (*field).to_owned() };
        check(&json!({ *field: [["canary"]] }), &path(right.1, "0"));
        for value in [json!({"a": ["canary"]}), json!({"a": 1})] {
            check(&json!({ *field: value }), &path(right.2, "a"));
        }
    }
    for field in choices {
        for value in ["", "canary", "s256", "RS512", "client_secret_jwt", "S256 "] {
            check(&json!({field: value}), field);
        }
    }
    for value in [json!(0), json!(316_224_001_u64), json!(u64::MAX), json!("60")] {
        check(&json!({"default_expires_in": value}), "default_expires_in");
    }
    let many: Vec<_> = (0..33).map(|index| format!("p{index}")).collect();
    check(&json!({"metadata_paths": many}), "metadata_paths");
    check(
        &json!({"auth_params": many.iter().map(|name| (name.clone(), json!("canary"))).collect::<serde_json::Map<_, _>>()}),
        "auth_params",
    );
    check(&json!({"client_secrets": ["canary1", "canary2", "canary3", "canary4", "canary5"]}), "client_secrets");
    check(&json!({"client_secrets": ["canary", ""]}), "client_secrets.1");
}

#[test]
fn a4_unknown_fields_are_listed_in_printable_form() {
    let error = config(&json!({"pkce_": "canary", "a\n<b>": "canary"})).unwrap_err().to_string();
    assert_eq!(error, "unknown field: a\\u000a<b>, pkce_");
    let long = "x".repeat(10_000);
    assert!(config(&json!({ long: 1 })).unwrap_err().to_string().len() < 100);
    for (text, expected) in [
        ("[]", "the config must be a JSON object of at most 64 KiB"),
        ("null", "the config must be a JSON object of at most 64 KiB"),
        ("\"canary\"", "the config must be a JSON object of at most 64 KiB"),
        ("", "cannot parse the body: unexpected end (line 1, column 0)"),
        ("{\"canary\"", "cannot parse the body: unexpected end (line 1, column 9)"),
        ("{\"canary\": canary}", "cannot parse the body: not JSON (line 1, column 12)"),
        ("{\"a\": 1,\n\"a\": 2}", "cannot parse the body: duplicate field (line 2, column 7)"),
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    assert!(parse(body().to_string().as_bytes()).is_ok());
    let large = format!("{}{}", body(), " ".repeat(64 * 1024));
    assert_eq!(parse(large.as_bytes()).unwrap_err(), ConfigError::NotAnObject);
}

#[test]
fn c1_urls_are_https_or_http_on_loopback_where_allowed() {
    for field in ["auth_url", "token_url", "redirect_url", "refresh_url", "revocation_url"] {
        for url in [
            "http://acme.example/canary",
            "http://localhost/canary",
            "https://canary@acme.example/",
            "https://u:canary@acme.example/",
            "https://acme.example/#canary",
            "https://acme.example/#",
            "/canary",
            "canary",
            "//acme.example/canary",
            "javascript:canary()",
            "https://",
            "https:// canary",
            "ftp://acme.example/canary",
            "https://canary.${v}/",
            "https://acme.example/${canary}",
            "https://acme.example/canary\u{202e}",
        ] {
            check(&json!({field: url}), field);
        }
        check(&json!({field: format!("https://acme.example/{}", "canary".repeat(400))}), field);
        for text in ["javascript:canary", "canary", "http://acme.example/"] {
            let error = config(&json!({field: text})).unwrap_err().to_string();
            assert!(error.contains(" URL "), "{error}");
            assert!(field != "redirect_url" || !error.contains("variable"), "it has none: {error}");
        }
        for (url, fits) in [
            ("http://localhost:1/x", true),
            ("http://127.9.9.9/x", true),
            ("http://[::1]:80/x", true),
            ("http://acme.example/x", false),
            ("http://localhost.evil.example/x", false),
            ("http://10.0.0.1/x", false),
        ] {
            let rules = UrlRules { allow_insecure_urls: true };
            assert_eq!(config_by(&json!({field: url}), rules).is_ok(), fits, "{field} {url}");
        }
    }
}

#[test]
fn a4_a_config_cannot_set_reserved_parameters() {
    for (field, url) in [("auth_params", "auth_url"), ("token_params", "token_url"), ("refresh_params", "refresh_url")]
    {
        for name in [
            "client_id",
            "client_secret",
            "redirect_uri",
            "response_type",
            "state",
            "State",
            "code",
            "code_verifier",
            "code_challenge",
            "code_challenge_method",
            "CODE_CHALLENGE_X",
            "grant_type",
            "refresh_token",
            "client_assertion",
            "client_assertion_type",
        ] {
            check(&json!({field: {name: "canary"}}), &format!("{field}.{name}"));
            check(&json!({url: format!("https://acme.example/?{name}=canary")}), url);
        }
        for name in ["", "a b", "a=b", "ü", &"x".repeat(65)] {
            assert!(
                config(&json!({field: {name: "canary"}})).is_err_and(|e| !e.to_string().contains("canary")),
                "{name}"
            );
        }
        check(&json!({field: {"a": "canary".repeat(200)}}), &format!("{field}.a"));
        check(&json!({field: {"own": "canary"}, "param_names": {"client_id": "own"}}), &format!("{field}.own"));
        assert!(config(&json!({field: {"audience": "x", "a[b]": "y"}})).is_ok());
    }
    for name in ["scope", "request", "request_uri"] {
        check(&json!({"auth_params": {name: "canary"}}), &format!("auth_params.{name}"));
    }
    check(&json!({"auth_url": "https://acme.example/?cl%69ent_id=canary"}), "auth_url");
}

#[test]
fn f1_tokens_and_codes_cannot_be_metadata() {
    for path in [
        "access_token",
        "authed_user.access_token",
        "a.refresh_token",
        "id_token",
        "client_secret",
        "",
        "canary.",
        "a..canary",
    ] {
        check(&json!({"metadata_paths": ["ok", path]}), "metadata_paths.1");
    }
    for name in ["code", "state", "canary canary", ""] {
        check(&json!({"callback_metadata": ["ok", name]}), "callback_metadata.1");
    }
    check(&json!({"code_param": "auth_code", "callback_metadata": ["auth_code"]}), "callback_metadata.0");
    check(&json!({"token_response_path": "canary..a"}), "token_response_path");
}

#[test]
fn c4_authentication_has_what_it_needs() {
    check(&json!({"token_auth_method": "client_secret_basic", "client_secret": ""}), "client_secret");
    check(&json!({"token_auth_method": "private_key_jwt"}), "client_key");
    check(&json!({"client_key": "canary"}), "client_key");
    check(&json!({"client_key": "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"}), "client_key");
    check(&json!({"client_secret": "canary".repeat(700)}), "client_secret");
    let shown = format!("{:?}", config(&json!({"client_secrets": ["canary-2"]})).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn c7_variables_are_named_patterned_and_used() {
    let with = |name: &str, variable: Value| json!({"token_url": "https://acme.example/${v}", "variables": {"v": {"pattern": "[a-z]+"}, name: variable}});
    for (name, variable, field) in [
        ("v", json!({"pattern": "("}), "variables.v.pattern"),
        ("v", json!({"pattern": "canary)|(canary"}), "variables.v.pattern"),
        ("v", json!({"pattern": "(a{1000}){1000}"}), "variables.v.pattern"),
        ("v", json!({"pattern": "canary".repeat(50)}), "variables.v.pattern"),
        ("v", json!({"pattern": "[a-z]+", "default": "CANARY"}), "variables.v.default"),
        ("v", json!({"pattern": ".*", "default": "canary/x"}), "variables.v.default"),
        ("w", json!({"pattern": "canary"}), "variables.w"),
        ("1w", json!({"pattern": "canary"}), "variables.1w"),
        ("v", json!({"default": "canary"}), "variables.v"),
        ("v", json!({"pattern": 1}), "variables.v.pattern"),
        ("v", json!({"pattern": "a", "patern": "canary"}), "variables.v.patern"),
    ] {
        check(&with(name, variable), field);
    }
    check(&json!({"token_url": "https://acme.example/${v}"}), "token_url");
    assert!(config(&with("v", json!({"pattern": "[a-z]+", "default": "x"}))).is_ok());
}

#[test]
fn c7_variables_change_only_their_own_part() {
    let at = |url: &str| config(&json!({"variables": {"v": {"pattern": "(?s).*"}}, "token_url": url})).unwrap();
    let (host, path) = (at("https://${v}.acme.example:8443/t"), at("https://acme.example/a/${v}/t"));
    let filled = |value: &str| BTreeMap::from([("v".to_owned(), value.to_owned())]);
    for value in ["evil.com/", "evil.com#", "a@b", "a:1", "..", ".", "", "a\\b", "%2e%2e", "a?b", "a\nb", "a\0b"] {
        for config in [&host, &path] {
            let error = config.token_endpoint(&filled(value)).unwrap_err();
            assert!(matches!(error, ConfigError::Variable { .. }), "{value}");
        }
    }
    for value in ["-a", "a-", "a b", "ü", "a..b", "xn--", &"a".repeat(64)] {
        assert!(host.token_endpoint(&filled(value)).is_err(), "{value}");
    }
    assert_eq!(host.token_endpoint(&filled("shop")).unwrap().as_str(), "https://shop.acme.example:8443/t");
    assert_eq!(path.token_endpoint(&filled("ü x")).unwrap().as_str(), "https://acme.example/a/%C3%BC%20x/t");
    assert!(host.token_endpoint(&BTreeMap::new()).is_err());
    let other = BTreeMap::from([("v".to_owned(), "a".to_owned()), ("tld".to_owned(), "canary".to_owned())]);
    let error = host.token_endpoint(&other).unwrap_err().to_string();
    assert_eq!(error, "variable tld is unknown; the config has v");
}

#[test]
fn h17_variables_do_not_name_a_host_under_a_public_suffix() {
    let with = |host: &str, shared: Value| json!({"token_url": format!("https://{host}/t"), "variables": {"v": {"pattern": ".*", "shared_suffix": shared}}});
    for (host, unshared, shared) in [
        ("${v}.co.uk", false, false),
        ("${v}.CO.UK:8443", false, false),
        ("${v}.co.uk.", false, false),
        ("${v}.${v}.co.uk", false, false),
        ("${v}.foo.ck", false, false),
        ("${v}.xn--55qx5d.cn", false, false),
        ("${v}.github.io", false, true),
        ("${v}.myshopify.com", false, true),
        ("${v}.auth.us-east-1.amazoncognito.com", false, true),
        ("${v}.compute.amazonaws.com", false, false),
        ("${v}.acme.co.uk", true, true),
        ("${v}.acme.github.io", true, true),
        ("${v}.zendesk.example", true, true),
        ("${v}.login.microsoftonline.com", true, true),
    ] {
        assert_eq!(config(&with(host, json!(false))).is_ok(), unshared, "{host}");
        assert_eq!(config(&with(host, json!(true))).is_ok(), shared, "{host} shared");
        if !unshared {
            check(&with(host, json!(false)), "token_url");
        }
    }
    let hint = |host: &str| config(&with(host, json!(false))).unwrap_err().to_string().contains("`shared_suffix`");
    assert!(hint("${v}.github.io") && !hint("${v}.co.uk"));
    check(&json!({"variables": {"v": {"pattern": "a", "shared_suffix": "canary"}}}), "variables.v.shared_suffix");
}

#[test]
fn h17_a_value_does_not_lead_to_another_public_suffix() {
    let token_url = json!({"token_url": "https://${v}.amazonaws.com/t", "variables": {"v": {"pattern": ".*", "shared_suffix": true}}});
    let config = config(&token_url).unwrap();
    for (value, expected) in [("acme", true), ("s3", false), ("evil.s3", false), ("evil.S3", false), ("x.acme", true)] {
        let values = BTreeMap::from([("v".to_owned(), value.to_owned())]);
        assert_eq!(config.check_hosts(&values).is_ok(), expected, "{value}");
    }
}

#[test]
fn a4_a_stored_config_reads_back_and_its_basic_part_has_no_secret() {
    let config =
        config(&json!({"scopes": "a,b", "client_secrets": ["canary-2"], "issuer": "https://acme.example"})).unwrap();
    let clear = config
        .clone()
        .map_secrets(|field, secret: Secret| Ok::<_, ()>(format!("{field}={}", secret.expose())))
        .unwrap();
    assert_eq!(
        (clear.client_secret.as_str(), clear.client_secrets[0].as_str()),
        ("client_secret=canary-secret", "client_secrets.0=canary-2")
    );
    let stored: IntegrationOauthConfig<String> = serde_json::from_value(serde_json::to_value(&clear).unwrap()).unwrap();
    assert_eq!(stored, clear);
    let basic = serde_json::to_string(&config.basic()).unwrap();
    assert!(!basic.contains("canary") && !basic.contains("https"), "{basic}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e4_names_contain_only_characters_allowed_in_a_subject(name in prop_oneof![".{0,70}", "[a-zA-Z0-9_-]{0,70}", "canary[.*> ]{1,3}"]) {
        for parsed in [Integration::parse(&name).map(|name| name.to_string()), ConnectionName::parse(&name).map(|name| name.to_string())] {
            match parsed {
                Ok(parsed) => {
                    prop_assert_eq!(&parsed, &name);
                    prop_assert!((1..=64).contains(&name.len()));
                    prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
                }
                Err(error) => prop_assert!(!error.to_string().contains("canary")),
            }
        }
    }

    #[test]
    fn a4_no_value_panics_or_is_repeated(field in 0_usize..43, text in ".{0,20}") {
        let fields = ["integration_id", "name", "scopes", "client_id", "client_secret", "auth_url", "token_url", "redirect_url",
            "provider", "scope_separator", "pkce", "token_auth_method", "token_body_format", "auth_params", "token_params",
            "refresh_params", "param_names", "refresh_url", "revocation_url", "token_response_path", "metadata_paths",
            "callback_metadata", "code_param", "default_expires_in", "refresh_token_lifetime", "expires_in_unit", "issuer", "client_key",
            "client_key_id", "client_key_alg", "client_assertion_aud", "variables", "client_secrets",
            "token_method", "token_headers", "basic_encoding", "response_type", "response_mode",
            "login_params", "client_assertion_iss", "refresh_with", "refresh_grant_type", "refresh_method"];
        let value = format!("canary{text}");
        for value in [json!(value), json!([value]), json!({"a": value}), json!({"a": {"pattern": value}})] {
            let refused = config(&json!({fields[field]: value})).err().map(|error| error.to_string()).unwrap_or_default();
            prop_assert!(!refused.contains("canary"), "{}", refused);
        }
    }
}
