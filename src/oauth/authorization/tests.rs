use serde_json::{Value, json};

use super::*;
use crate::integration::tests::config;

const CHALLENGE: &str = "challenge";

fn built(more: &Value, wanted: Option<&str>, challenge: Option<&str>) -> Url {
    let config = config(more).unwrap();
    let scope = config.scope_text(&config.narrow_scopes(wanted).unwrap());
    let request = AuthorizationRequest {
        state: &Secret::new("st-ate"),
        code_challenge: challenge.map(str::to_owned),
        scope: &scope,
        variables: &config.issued_at(&BTreeMap::new()).unwrap().variables,
        nonce: "n-1",
    };
    request_url(&config, &request).unwrap()
}

#[track_caller]
fn check(more: &Value, expected: &str) {
    assert_eq!(built(more, None, Some(CHALLENGE)).as_str(), expected, "{more}");
}

const REST: &str = "&state=st-ate&code_challenge=challenge&code_challenge_method=S256";

#[test]
fn a2_the_request_is_that_of_rfc_6749_and_7636() {
    let start =
        "https://acme.example/auth?x=1&response_type=code&client_id=id&redirect_uri=https%3A%2F%2Fhub.example%2Fcb";
    check(&json!({}), &format!("{start}&scope=a%20b{REST}"));
    check(&json!({"scope_separator": ","}), &format!("{start}&scope=a%2Cb{REST}"));
    check(&json!({"scope_separator": "+"}), &format!("{start}&scope=a%2Bb{REST}"));
    check(&json!({"scopes": ""}), &format!("{start}{REST}"));
    check(
        &json!({"auth_params": {"prompt": "consent now", "z[]": "ü"}}),
        &format!("{start}&scope=a%20b{REST}&prompt=consent%20now&z%5B%5D=%C3%BC"),
    );
    let off = built(&json!({"pkce": "off"}), None, None);
    assert_eq!(off.as_str(), format!("{start}&scope=a%20b&state=st-ate"));
}

#[test]
fn a2_parameters_have_the_names_the_provider_wants() {
    let names = json!({"param_names": {"client_id": "client_key", "scope": "scopes", "code_challenge": "cc"}});
    let url = built(&names, None, Some(CHALLENGE));
    let found: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let expected =
        ["x", "response_type", "client_key", "redirect_uri", "scopes", "state", "cc", "code_challenge_method"];
    assert_eq!(found, expected);
}

#[test]
fn a3_redirect_uri_is_the_configured_one_byte_for_byte() {
    for redirect in [
        "https://hub.example/cb",
        "https://hub.example",
        "https://HUB.example:443/a/../b?x=%41&y=1+2",
        "https://hub.example/%7euser",
    ] {
        let url = built(&json!({"redirect_url": redirect}), None, None);
        let sent: Vec<_> = url.query_pairs().filter(|(name, _)| name == "redirect_uri").collect();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].1, redirect);
    }
}

#[test]
fn a4_scopes_are_those_of_the_config_at_most() {
    let config = config(&json!({"scopes": "a, b, ,c d"})).unwrap();
    for (wanted, expected) in [
        (None, Some(vec!["a", "b", "c d"])),
        (Some(""), Some(vec!["a", "b", "c d"])),
        (Some(" , "), Some(vec!["a", "b", "c d"])),
        (Some("b"), Some(vec!["b"])),
        (Some("b, b ,a"), Some(vec!["b", "a"])),
        (Some("c d"), Some(vec!["c d"])),
        (Some("c"), None),
        (Some("a b"), None),
        (Some("A"), None),
        (Some("a,canary"), None),
    ] {
        let found = config.narrow_scopes(wanted);
        assert!(!found.as_ref().is_err_and(|error| error.to_string().contains("canary")));
        assert_eq!(
            found.ok(),
            expected.map(|scopes| scopes.into_iter().map(str::to_owned).collect::<Vec<_>>()),
            "{wanted:?}"
        );
    }
}

#[test]
fn c7_variables_are_filled_in() {
    let config = config(&json!({"auth_url": "https://${shop}.acme.example/a/${tenant}?k=v",
        "variables": {"shop": {"pattern": "[a-z]+"}, "tenant": {"pattern": "[^/]+", "default": "all of them"}}}));
    let config = config.unwrap();
    let state = Secret::new("s");
    let filled = |variables: &BTreeMap<String, String>| {
        request_url(
            &config,
            &AuthorizationRequest { state: &state, code_challenge: None, scope: "", variables, nonce: "n-1" },
        )
    };
    let shop = |name: &str| BTreeMap::from([("shop".to_owned(), name.to_owned())]);
    let one = filled(&shop("one")).unwrap();
    assert!(one.as_str().starts_with("https://one.acme.example/a/all%20of%20them?k=v&response_type=code"), "{one}");
    for values in [BTreeMap::new(), shop("One"), shop("one.two")] {
        assert!(filled(&values).is_err(), "{values:?}");
    }
}

#[test]
fn a2_response_type_and_mode_are_those_of_the_config() {
    let names = |more: &Value| {
        let url = built(more, None, None);
        let is_asked = |name: &str| name == "response_type" || name == "response_mode";
        let found = url.query_pairs().filter(|(name, _)| is_asked(name));
        found.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&json!({})), "response_type=code");
    assert_eq!(names(&json!({"response_type": "", "response_mode": ""})), "");
    assert_eq!(names(&json!({"response_type": "code id_token"})), "response_type=code id_token");
    let form_post = json!({"response_mode": "form_post", "param_names": {"response_type": ""}});
    assert_eq!(names(&form_post), "response_mode=form_post");
}

#[test]
fn a2_parameters_follow_a_fragment_route() {
    let at = |auth_url: &str| built(&json!({"auth_url": auth_url, "scopes": ""}), None, None).to_string();
    let rest = "response_type=code&client_id=id&redirect_uri=https%3A%2F%2Fhub.example%2Fcb&state=st-ate";
    assert_eq!(at("https://x.example/#/authorize"), format!("https://x.example/#/authorize?{rest}"));
    assert_eq!(at("https://x.example/?q=1#!/authorize?a=b"), format!("https://x.example/?q=1#!/authorize?a=b&{rest}"));
}

#[test]
fn a2_parameters_and_the_query_are_filled_in() {
    let more = json!({"auth_url": "https://acme.example/auth?t=${tenant}&s=${scope}", "scopes": "a,b",
        "auth_params": {"nonce": "${nonce}", "for": "${tenant}/x", "back": "${redirect_url}"},
        "variables": {"tenant": {"pattern": ".*", "default": "ü&x"}}});
    let url = built(&more, None, None);
    let found: BTreeMap<_, _> = url.query_pairs().collect();
    for (name, value) in
        [("t", "ü&x"), ("s", "a b"), ("nonce", "n-1"), ("for", "ü&x/x"), ("back", "https://hub.example/cb")]
    {
        assert_eq!(found[name], value, "{name}");
    }
}
