mod errors;

use proptest::prelude::*;
use serde_json::json;
use url::form_urlencoded;

use super::fields::{MAX_LIFETIME_SECONDS, MAX_METADATA_BYTES, MAX_SCOPE_BYTES};
use super::*;
use crate::integration::tests::config;

const JSON: Option<&str> = Some("application/json");
const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=utf-8");
const HTML: Option<&str> = Some("text/html");

fn now() -> Timestamp {
    Timestamp::from_second(1_750_000_000).unwrap()
}

fn parse_response(
    status: u16,
    kind: Option<&str>,
    body: &[u8],
    config: &IntegrationOauthConfig,
    now: Timestamp,
) -> Result<TokenSet, TokenError> {
    Response::parse(status, kind, body, config).tokens(config, now)
}

fn parse(more: &Value, status: u16, kind: Option<&str>, body: &str) -> Result<TokenSet, TokenError> {
    parse_response(status, kind, body.as_bytes(), &config(more).unwrap(), now())
}

/// `expected` is the access token or the error's reason.
#[track_caller]
fn check(status: u16, kind: Option<&str>, body: &str, expected: Result<&str, &str>) {
    let found = parse(&json!({}), status, kind, body);
    let found = found.as_ref().map(|tokens| tokens.access_token.expose()).map_err(|error| error.reason());
    assert_eq!(found, expected, "{status} {kind:?} {body}");
}

#[test]
fn c5_success_is_a_token_without_an_error() {
    check(200, JSON, r#"{"access_token":"a"}"#, Ok("a"));
    check(201, None, "\u{feff} {\"access_token\":\"a\"} \n", Ok("a"));
    check(200, JSON, r#"{"access_token":"a","error":null,"ok":true}"#, Ok("a"));
    check(200, JSON, r#"{"access_token":"a","error":""}"#, Ok("a"));
    // GitHub sends errors as 200 with a form, Slack as 200 with `ok`.
    check(200, FORM, "error=bad_verification_code&error_description=The+code", Err("invalid_grant"));
    check(200, FORM, "access_token=a&error=incorrect_client_credentials", Err("invalid_client"));
    check(200, JSON, r#"{"ok":false,"error":"invalid_code"}"#, Err("invalid_grant"));
    check(200, JSON, r#"{"ok":false,"access_token":"a"}"#, Err("unknown_error"));
    check(200, JSON, r#"{"ok":false,"error":"","access_token":"a"}"#, Err("unknown_error"));
    check(200, JSON, r#"{"access_token":"a","error":{"code":"invalid_grant"}}"#, Err("invalid_grant"));
    check(400, JSON, r#"{"error":{"type":"invalid_client"}}"#, Err("invalid_client"));
    check(200, JSON, r#"{"access_token":"a","error":["x"]}"#, Err("unknown_error"));
    check(400, JSON, r#"{"error":"<script>"}"#, Err("unknown_error"));
    // Only a 2xx has tokens.
    check(302, JSON, r#"{"access_token":"a"}"#, Err("unreadable_answer"));
    check(400, JSON, r#"{"access_token":"a"}"#, Err("unreadable_answer"));
    check(500, JSON, r#"{"access_token":"a"}"#, Err("provider_error"));
    check(503, JSON, r#"{"error":"invalid_grant"}"#, Err("provider_error"));
    check(429, JSON, r#"{"error":"invalid_grant"}"#, Err("rate_limited"));
    for body in ["", "{}", "[]", "null", "\"a\"", "{", r#"{"access_token":""}"#, r#"{"access_token":null}"#] {
        check(200, JSON, body, Err("unreadable_answer"));
    }
    check(200, JSON, r#"{"access_token":1}"#, Err("unreadable_answer"));
    check(200, JSON, r#"{"access_token":"a\nb"}"#, Err("unreadable_answer"));
}

#[test]
fn c5_mislabelled_bodies_parse() {
    check(200, FORM, r#"{"access_token":"a"}"#, Ok("a"));
    check(200, HTML, r#"{"access_token":"a"}"#, Ok("a"));
    check(200, JSON, "access_token=a%20b&token_type=bearer", Ok("a b"));
    check(200, HTML, "access_token=a", Ok("a"));
    check(200, FORM, "access_token=a&access_token=b", Err("unreadable_answer"));
    check(200, FORM, "hello=world", Err("unreadable_answer"));
    check(200, HTML, "<html>502</html>", Err("unreadable_answer"));
    check(200, HTML, "<a href=\"/x?a=1&access_token=b&c=d\">", Err("unreadable_answer"));
    check(200, JSON, "{\"a\":\"1&access_token=b", Err("unreadable_answer"));
}

#[test]
fn c3_bodies_and_tokens_are_bounded() {
    let body = |name: &str, length: usize| {
        let mut body = json!({"access_token": "a"});
        body[name] = Value::from("t".repeat(length));
        body.to_string()
    };
    for (name, max) in [("access_token", MAX_ACCESS_TOKEN_BYTES), ("refresh_token", MAX_REFRESH_TOKEN_BYTES)] {
        assert!(parse(&json!({}), 200, JSON, &body(name, max)).is_ok(), "{name}");
        check(200, JSON, &body(name, max + 1), Err("answer_too_large"));
    }
    let long = parse(&json!({}), 200, JSON, &body("token_type", MAX_TOKEN_TYPE_BYTES + 1)).unwrap();
    assert_eq!(long.token_type, "Bearer");
    assert_eq!(parse(&json!({}), 200, JSON, &body("scope", MAX_SCOPE_BYTES + 1)).unwrap().scope, None);
}

#[test]
fn c6_expires_in_is_sane_or_none() {
    #[track_caller]
    fn check(more: &Value, expires_in: &str, expected: Option<i64>) {
        let body = format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#);
        let tokens = parse(more, 200, JSON, &body).unwrap();
        assert_eq!(tokens.expires_in, expected, "{expires_in}");
        let expiry = expected.map(|seconds| Timestamp::from_second(1_750_000_000 + seconds).unwrap());
        assert_eq!(tokens.expiry, expiry, "{expires_in}");
    }
    let none = json!({});
    for (text, expected) in [
        ("3600", 3600),
        ("\"3600\"", 3600),
        ("\" 3600 \"", 3600),
        ("3600.9", 3600),
        ("0.2", 1),
        ("1e3", 1000),
        ("316224000", 316_224_000),
    ] {
        check(&none, text, Some(expected));
    }
    for text in [
        "null",
        "0",
        "-0.0",
        "-1",
        "\"-1\"",
        "316224001",
        "18446744073709551615",
        "-9223372036854775808",
        "1e308",
        "99999999999999999999999999",
        "\"inf\"",
        "\"NaN\"",
        "\"soon\"",
        "\"\"",
        "true",
        "[3600]",
        "{}",
    ] {
        check(&none, text, None);
    }
    let millis = json!({"expires_in_unit": "ms"});
    check(&millis, "3600000", Some(3600));
    check(&millis, "\"1\"", Some(1));
    check(&millis, "9999999999999999", None);
    let late =
        parse_response(200, JSON, br#"{"access_token":"a","expires_in":60}"#, &config(&none).unwrap(), Timestamp::MAX);
    let late = late.unwrap();
    assert_eq!((late.expires_in, late.expiry), (None, None));
}

#[test]
fn d2_an_empty_refresh_token_is_none() {
    for (value, expected) in
        [("\"r\"", Some("r")), ("\"\"", None), ("null", None), ("false", None), ("7", None), ("[]", None)]
    {
        let body = format!(r#"{{"access_token":"a","refresh_token":{value}}}"#);
        let tokens = parse(&json!({}), 200, JSON, &body).unwrap();
        assert_eq!(tokens.refresh_token.as_ref().map(Secret::expose), expected, "{value}");
    }
}

#[test]
fn c5_the_token_object_may_be_nested() {
    let user =
        json!({"token_response_path": "authed_user", "metadata_paths": ["team.id", "authed_user.id", "team", "no"]});
    let body = r#"{"ok":true,"team":{"id":"T1"},"authed_user":{"id":"U1","access_token":"u","scope":["a","b"]},
        "access_token":"bot"}"#;
    let tokens = parse(&user, 200, JSON, body).unwrap();
    assert_eq!(tokens.access_token.expose(), "u");
    assert_eq!(tokens.scope.as_deref(), Some("a b"));
    assert_eq!(Value::Object(tokens.metadata), json!({"team.id": "T1", "authed_user.id": "U1"}));
    for (body, reason) in [
        (r#"{"authed_user":"u"}"#, "unreadable_answer"),
        (r#"{"authed_user":{"error":"invalid_grant","access_token":"u"}}"#, "invalid_grant"),
        (r#"{"ok":false,"error":"bad_client_secret","authed_user":{"access_token":"u"}}"#, "invalid_client"),
    ] {
        assert_eq!(parse(&user, 200, JSON, body).unwrap_err().reason(), reason, "{body}");
    }
}

/// `expected`: access token, refresh token, scope.
#[track_caller]
fn check_tokens(more: &Value, body: &Value, expected: (&str, Option<&str>, Option<&str>)) {
    let tokens = parse(more, 200, JSON, &body.to_string()).unwrap();
    let refresh_token = tokens.refresh_token.as_ref().map(Secret::expose);
    assert_eq!((tokens.access_token.expose(), refresh_token, tokens.scope.as_deref()), expected, "{more} {body}");
}

#[test]
fn c5_fields_outside_the_nested_object_are_found_at_the_root() {
    let user = json!({"token_response_path": "authed_user"});
    // A user's token: nested after a login, at the root after a refresh.
    check_tokens(&user, &json!({"authed_user": {"access_token": "u", "refresh_token": "r"}}), ("u", Some("r"), None));
    check_tokens(&user, &json!({"access_token": "u", "refresh_token": "r"}), ("u", Some("r"), None));
    let other = json!({"authed_user": {"id": "U1"}, "access_token": "u", "refresh_token": "r", "scope": "s"});
    check_tokens(&user, &other, ("u", Some("r"), Some("s")));
    let split = json!({"authed_user": {"access_token": "u", "scope": null}, "refresh_token": "r", "scope": "s"});
    check_tokens(&user, &split, ("u", Some("r"), Some("s")));
    // The refresh token of the bot belongs to another grant.
    let two = json!({"authed_user": {"access_token": "u"}, "access_token": "b", "refresh_token": "b", "scope": "s"});
    check_tokens(&user, &two, ("u", None, None));
}

#[test]
fn c5_a_config_names_the_places_of_fields() {
    let more = json!({"token_answer": {"access_token": "data.token", "refresh_token": ["no", "data.renewal", "r"],
        "scope": ["data.rights"]}});
    let body = json!({"data": {"token": "a", "renewal": "r", "rights": ["x", "y"]}, "access_token": "b", "scope": "z"});
    check_tokens(&more, &body, ("a", Some("r"), Some("x y")));
    check_tokens(&more, &json!({"data": {"token": "a"}, "r": "late"}), ("a", Some("late"), None));
    check_tokens(&more, &json!({"data": {"token": "a", "renewal": false}, "r": "late"}), ("a", Some("late"), None));
    let nested = json!({"token_response_path": "body", "token_answer": {"access_token": "token"}});
    check_tokens(&nested, &json!({"status": 0, "body": {"token": "a", "refresh_token": "r"}}), ("a", Some("r"), None));
    check_tokens(&nested, &json!({"token": "a", "body": {"refresh_token": "r"}}), ("a", Some("r"), None));
    let error = parse(&more, 200, JSON, r#"{"access_token":"b"}"#).unwrap_err();
    assert_eq!(error.reason(), "unreadable_answer");
    let renamed = json!({"token_answer": {"access_token": "token"}});
    assert_eq!(parse(&renamed, 200, FORM, "token=a").unwrap().access_token.expose(), "a");
}

#[test]
fn c6_expiries_are_lifetimes_or_times() {
    #[track_caller]
    fn check(more: &Value, fields: &Value, expected: (Option<i64>, Option<i64>)) {
        let mut body = fields.clone();
        body["access_token"] = json!("a");
        let tokens = parse(more, 200, JSON, &body.to_string()).unwrap();
        let end = tokens.refresh_token_expiry.map(|end| end.as_second() - now().as_second());
        assert_eq!((tokens.expires_in, end), expected, "{more} {fields}");
        assert_eq!(tokens.expiry.map(|end| end.as_second() - now().as_second()), expected.0, "{more} {fields}");
    }
    let none = json!({});
    for (at, expected) in [
        (json!(1_750_000_060), Some(60)),
        (json!("1750000060"), Some(60)),
        (json!(1_750_000_060_000_i64), Some(60)),
        (json!("1750000060999"), Some(60)),
        (json!("2025-06-15T15:07:40Z"), Some(60)),
        (json!("2025-06-15T17:07:40.5+02:00"), Some(60)),
        (json!(1_750_000_000), None),
        (json!(1_749_999_999), None),
        (json!(60), None),
        (json!(1e300), None),
        (json!("2099-01-01T00:00:00Z"), None),
        (json!("tomorrow"), None),
        (json!("NaN"), None),
        (json!(null), None),
        (json!([1_750_000_060]), None),
    ] {
        check(&none, &json!({"expires_at": at}), (expected, None));
        check(&none, &json!({"refresh_token_expires_at": at}), (None, expected));
        check(&none, &json!({"expires_at": at, "expires_in": 30}), (Some(30), None));
        check(&json!({"token_answer": {"expires_at": ["no.end", "end"]}}), &json!({"end": at}), (expected, None));
    }
    check(&none, &json!({"refresh_token_expires_in": "604799"}), (None, Some(604_799)));
    check(&json!({"expires_in_unit": "ms"}), &json!({"refresh_token_expires_in": 5000}), (None, Some(5)));
    let named = json!({"token_answer": {"expires_in": "ttl", "refresh_token_expires_in": "x.ttl"}});
    check(&named, &json!({"ttl": "60", "x": {"ttl": 90}, "expires_in": 1}), (Some(60), Some(90)));
}

#[test]
fn c5_an_error_that_is_null_false_zero_or_empty_is_none() {
    for error in [json!(null), json!(false), json!(0), json!(0.0), json!(""), json!("0"), json!("false")] {
        check(200, JSON, &json!({"access_token": "a", "error": error}).to_string(), Ok("a"));
        check(200, JSON, &json!({"error": error}).to_string(), Err("unreadable_answer"));
        check(200, JSON, &json!({"access_token": "a", "error": error, "ok": false}).to_string(), Err("unknown_error"));
    }
    check(200, FORM, "access_token=a&error=0", Ok("a"));
    for error in [json!(true), json!(1), json!("no"), json!([]), json!({})] {
        check(200, JSON, &json!({"access_token": "a", "error": error}).to_string(), Err("unknown_error"));
    }
}

#[test]
fn c5_text_that_is_not_utf8_is_read_except_in_tokens() {
    let parse = |kind, body: &[u8]| {
        let tokens = parse_response(200, kind, body, &config(&json!({})).unwrap(), now());
        tokens.map(|tokens| (tokens.access_token.expose().to_owned(), tokens.scope)).map_err(TokenError::reason)
    };
    let read = |scope: &str| Ok(("a".to_owned(), Some(scope.to_owned())));
    assert_eq!(parse(JSON, b"{\"access_token\":\"a\",\"scope\":\"caf\xe9\"}"), read("caf\u{fffd}"));
    assert_eq!(parse(FORM, b"access_token=a&scope=caf%E9"), read("caf\u{fffd}"));
    assert_eq!(parse(FORM, b"access_token=a&scope=caf\xe9"), read("caf\u{fffd}"));
    for name in ["access_token", "refresh_token"] {
        let body = [b"{\"access_token\":\"a\",\"", name.as_bytes(), b"\":\"\xff\"}"].concat();
        assert_eq!(parse(JSON, &body), Err("unreadable_answer"), "{name}");
    }
    assert_eq!(parse(FORM, b"access_token=%FF"), Err("unreadable_answer"));
}

#[test]
fn f1_metadata_has_only_plain_and_small_values() {
    let more = json!({"metadata_paths": ["a", "b", "c", "d", "e", "f"]});
    let long = "x".repeat(MAX_METADATA_BYTES + 1);
    let body = json!({"access_token": "t", "a": 1, "b": ["x", true], "c": {"token": "x"}, "d": [{"token": "x"}],
        "e": null, "f": long});
    let tokens = parse(&more, 200, JSON, &body.to_string()).unwrap();
    assert_eq!(Value::Object(tokens.metadata), json!({"a": 1, "b": ["x", true]}));
}

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["access_token", "refresh_token", "expires_in", "token_type", "scope", "error", "ok", "x"])
}

fn shape() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[0-9.e+-]{1,12}".prop_map(Value::from),
        proptest::collection::vec(".{0,5}", 0..3).prop_map(Value::from),
        ".{0,5}".prop_map(|key| json!({ key: "x" })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c5_no_response_panics_or_is_repeated(
        status in 100_u16..600,
        kind in proptest::option::of(prop_oneof![Just("application/json"), Just("x-www-form-urlencoded"), Just("text/html")]),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let config = config(&json!({"token_response_path": "a.b"})).unwrap();
        prop_assert!(parse_response(status, kind, &body, &config, now()).is_err());
    }

    #[test]
    fn c5_a_response_of_any_shape_is_tokens_with_a_sane_expiry_or_an_error(
        kind in proptest::option::of(".{0,40}"),
        fields in proptest::collection::vec((field(), shape()), 0..6),
        status in prop_oneof![Just(200_u16), 100_u16..600],
        form in any::<bool>(),
    ) {
        let body = if form {
            let pairs = fields.iter().map(|(name, value)| (*name, value.as_str().map_or(value.to_string(), str::to_owned)));
            form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
        } else {
            Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()).to_string()
        };
        if let Ok(tokens) = parse_response(status, kind.as_deref(), body.as_bytes(), &config(&json!({})).unwrap(), now()) {
            prop_assert!((200..300).contains(&status));
            prop_assert!(!tokens.access_token.is_empty() && !tokens.access_token.expose().contains(char::is_control));
            prop_assert!(tokens.refresh_token.is_none_or(|token| !token.is_empty()));
            prop_assert!(tokens.expires_in.is_none_or(|seconds| (1..=MAX_LIFETIME_SECONDS).contains(&seconds)));
            prop_assert_eq!(tokens.expires_in.map(SignedDuration::from_secs), tokens.expiry.map(|expiry| expiry.duration_since(now())));
        }
    }

    #[test]
    fn c6_no_expires_in_panics(text in "[-+0-9.eE]{1,12}", number in any::<f64>(), now in -100_000_000_000_i64..200_000_000_000) {
        let config = config(&json!({})).unwrap();
        let now = Timestamp::from_second(now).unwrap();
        for value in [Value::from(text), Value::from(number)] {
            let body = json!({"access_token": "a", "expires_in": value}).to_string();
            let tokens = parse_response(200, None, body.as_bytes(), &config, now).unwrap();
            prop_assert_eq!(tokens.expires_in.is_some(), tokens.expiry.is_some());
            prop_assert!(tokens.expiry.is_none_or(|expiry| expiry > now));
        }
    }

    #[test]
    fn f1_error_texts_contain_nothing_of_the_response(canary in "canary[a-z]{8}") {
        for body in [json!({"error": canary, "error_description": canary}), json!({"error": {"code": canary}})] {
            let error = parse(&json!({}), 400, JSON, &body.to_string()).unwrap_err();
            let text = format!("{error} {error:?} {}", error.reason());
            prop_assert!(!text.contains(&canary));
        }
    }
}
