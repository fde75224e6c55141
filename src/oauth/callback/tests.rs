use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::integration::tests::config;

#[track_caller]
fn check(query: &str, expected: Result<&str, &str>) {
    check_with(&json!({}), query, expected);
}

/// The code, or the error's text or code.
#[track_caller]
fn check_with(more: &Value, query: &str, expected: Result<&str, &str>) {
    let found = match AuthorizationResponse::parse(query, &config(more).unwrap()) {
        Ok(AuthorizationResponse { code: Ok(code), .. }) => Ok(code.expose().to_owned()),
        Ok(AuthorizationResponse { code: Err(error), .. }) => Err(error.code.to_string()),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(found.as_deref().map_err(String::as_str), expected, "{}", query.get(..80).unwrap_or(query));
}

#[test]
fn b7_state_is_single_and_short() {
    for (query, expected) in [
        ("state=abc&code=x", Ok("abc")),
        ("code=x&state=a%62c", Ok("abc")),
        ("", Err(CallbackError::StateMissing)),
        ("state", Err(CallbackError::StateMissing)),
        ("state=", Err(CallbackError::StateMissing)),
        ("State=abc", Err(CallbackError::StateMissing)),
        ("state=a&state=a", Err(CallbackError::Repeated)),
        ("state=a&st%61te=a", Err(CallbackError::Repeated)),
        ("state=a&state=", Err(CallbackError::Repeated)),
    ] {
        assert_eq!(state(query).as_ref().map(Secret::expose), expected.as_ref().copied(), "{query}");
    }
    assert!(state(&format!("state={}", "s".repeat(64))).is_ok());
    assert_eq!(state(&format!("state={}", "s".repeat(65))), Err(CallbackError::StateTooLong));
    assert_eq!(state(&format!("state=a&x={}", "x".repeat(MAX_QUERY_BYTES))), Err(CallbackError::QueryTooLong));
}

#[test]
fn b7_a_response_is_one_code_or_one_error() {
    check("state=s&code=c", Ok("c"));
    check("state=s&code=a%2Fb+c", Ok("a/b c"));
    check("state=s&code=c&error=", Ok("c"));
    check("state=s&code=c&other=1&other=2", Ok("c"));
    check("code=c", Err("state is missing"));
    check("state=s&code=c&error=access_denied", Err("the callback has both a code and an error"));
    check("state=s", Err("the callback has neither a code nor an error"));
    check("state=s&code=", Err("the callback has neither a code nor an error"));
    for name in ["code", "error", "error_description", "error_uri", "iss"] {
        check(&format!("state=s&{name}=a&{name}=a"), Err("a parameter of the callback is repeated"));
    }
    let long = |name: &str, length: usize| format!("state=s&{name}={}", "x".repeat(length));
    assert!(AuthorizationResponse::parse(&long("code", MAX_CODE_BYTES), &config(&json!({})).unwrap()).is_ok());
    check(&long("code", MAX_CODE_BYTES + 1), Err("the code is longer than 16 KiB"));
    for name in ["error", "error_description", "error_uri", "iss"] {
        check(&long(name, MAX_OTHER_BYTES + 1), Err("a parameter of the callback is too long"));
    }
}

#[test]
fn b6_errors_come_from_a_fixed_list() {
    check("state=s&error=access_denied&error_description=canary", Err("access_denied"));
    check("state=s&error=user_cancelled_login", Err("access_denied"));
    check("state=s&error=%3Cscript%3E", Err("unknown_error"));
    check("state=s&error=canary", Err("unknown_error"));
}

#[test]
fn b7_code_param_and_callback_metadata() {
    let more = json!({"code_param": "auth_code", "callback_metadata": ["realmId", "absent"]});
    check_with(&more, "state=s&auth_code=c", Ok("c"));
    check_with(&more, "state=s&code=c", Err("the callback has neither a code nor an error"));
    check_with(&more, "state=s&auth_code=c&realmId=1&realmId=2", Err("a parameter of the callback is repeated"));
    let long = format!("state=s&auth_code=c&realmId={}", "1".repeat(MAX_OTHER_BYTES + 1));
    check_with(&more, &long, Err("a parameter of the callback is too long"));
    let response =
        AuthorizationResponse::parse("state=s&auth_code=c&realmId=4%2B2&other=x", &config(&more).unwrap()).unwrap();
    assert_eq!(Value::Object(response.metadata), json!({"realmId": "4+2"}));
}

#[test]
fn b5_a_configured_issuer_is_required() {
    let with = json!({"issuer": "https://issuer.example"});
    for (more, query, fits) in [
        (&with, "state=s&code=c&iss=https%3A%2F%2Fissuer.example", true),
        (&with, "state=s&code=c", false),
        (&with, "state=s&code=c&iss=", false),
        (&with, "state=s&code=c&iss=https%3A%2F%2Fissuer.example%2F", false),
        (&with, "state=s&code=c&iss=https%3A%2F%2FISSUER.example", false),
        (&with, "state=s&error=access_denied", false),
        (&with, "state=s&error=access_denied&iss=https%3A%2F%2Fevil.example", false),
        (&with, "state=s&error=access_denied&iss=https%3A%2F%2Fissuer.example", true),
        (&json!({}), "state=s&code=c&iss=anything", true),
        (&json!({}), "state=s&code=c", true),
    ] {
        let config = config(more).unwrap();
        let checked = AuthorizationResponse::parse(query, &config).unwrap().check_issuer(config.issuer.as_deref());
        assert_eq!(checked.is_ok(), fits, "{query}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn b7_no_query_panics_or_is_repeated(
        query in prop_oneof![".{0,100}", "((state|code|error|iss)=canary%?[0-9a-f&=]{0,6}&){0,5}"],
    ) {
        let config = config(&json!({"issuer": "https://issuer.example"})).unwrap();
        match AuthorizationResponse::parse(&query, &config) {
            Ok(response) => {
                prop_assert!(response.code.as_ref().map_or(true, |code| !code.is_empty() && code.expose().len() <= MAX_CODE_BYTES));
                prop_assert!(response.check_issuer(config.issuer.as_deref()).is_err());
            }
            Err(error) => prop_assert!(!error.to_string().contains("canary")),
        }
    }
}
