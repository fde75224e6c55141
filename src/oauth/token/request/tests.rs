mod forms;
mod hosts;
mod origins;
mod revocations;

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::KeyPair;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::{Revocation, revocation_request};
use super::http::ASSERTION_TYPE;
use super::*;
use crate::integration::tests::config;

const VERIFIER: &str = "verifier";

fn now() -> Timestamp {
    Timestamp::from_second(1_750_000_000).unwrap()
}

fn auth(config: &IntegrationOauthConfig, attempt: usize) -> Option<ClientAuthentication> {
    auth_of(config, RequestKind::Token, attempt)
}

fn auth_of(config: &IntegrationOauthConfig, kind: RequestKind, attempt: usize) -> Option<ClientAuthentication> {
    ClientAuthentication::of(config, kind, attempt, &BTreeMap::new(), now(), "jti-1").unwrap()
}

fn exchange(config: &IntegrationOauthConfig) -> HttpRequest {
    let (code, verifier) = (Secret::new("c/o d+e"), Secret::new(VERIFIER));
    let (verifier, variables) = (Some(&verifier), config.issued_at(&BTreeMap::new()).unwrap().variables);
    let grant = CodeGrant { code: &code, verifier, variables: &variables, scope: "a b", nonce: "n-1" };
    exchange_request(config, &grant, &auth(config, 0).unwrap()).unwrap()
}

fn fields(request: &HttpRequest) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(text(request).as_bytes()) {
        assert!(found.insert(name.clone().into_owned(), value.into_owned()).is_none(), "{name} is repeated");
    }
    found
}

fn text(request: &HttpRequest) -> &str {
    request.body.as_ref().map_or("", |body| body.text.expose())
}

fn content_type(request: &HttpRequest) -> &str {
    request.body.as_ref().map_or("", |body| body.content_type)
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.expose())
}

/// `expected` has the body's fields beside code, redirect URI and verifier, as `name=value` separated by spaces.
#[track_caller]
fn check(more: &Value, authorization: Option<&str>, expected: &str) {
    let request = exchange(&config(more).unwrap());
    assert_eq!(content_type(&request), "application/x-www-form-urlencoded");
    assert_eq!(header(&request, "accept"), Some("application/json"));
    assert_eq!(header(&request, "authorization"), authorization, "{more}");
    let mut found = fields(&request);
    for (name, value) in [("code", "c/o d+e"), ("redirect_uri", "https://hub.example/cb"), ("code_verifier", VERIFIER)]
    {
        assert_eq!(found.remove(name).as_deref(), Some(value));
    }
    assert_eq!(found.remove("grant_type").as_deref(), Some("authorization_code"));
    let found: Vec<_> = found.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(found.join(" "), expected, "{more}");
}

#[test]
fn c4_one_client_authentication_per_request() {
    check(&json!({}), None, "client_id=id client_secret=canary-secret");
    check(&json!({"client_secret": ""}), None, "client_id=id");
    check(&json!({"token_auth_method": "none"}), None, "client_id=id");
    check(&json!({"token_auth_method": "client_secret_basic"}), Some("Basic aWQ6Y2FuYXJ5LXNlY3JldA=="), "");
    check(
        &json!({"token_params": {"audience": "x y", "resource": "https://r.example"}}),
        None,
        "audience=x y client_id=id client_secret=canary-secret resource=https://r.example",
    );
}

#[test]
fn c4_basic_encodes_id_and_secret_first() {
    for (id, secret, pair) in [
        ("id", "secret", "id:secret"),
        ("a:b", "c:d", "a%3Ab:c%3Ad"),
        ("100%", "a b", "100%25:a+b"),
        ("a+b", "p/w=&?", "a%2Bb:p%2Fw%3D%26%3F"),
        ("ü", "日本", "%C3%BC:%E6%97%A5%E6%9C%AC"),
        ("-._*~", "-._*~", "-._*%7E:-._*%7E"),
    ] {
        let more = json!({"token_auth_method": "client_secret_basic", "client_id": id, "client_secret": secret});
        let request = exchange(&config(&more).unwrap());
        let expected = format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert_eq!(header(&request, "authorization"), Some(expected.as_str()), "{id}");
        assert!(!fields(&request).contains_key("client_id"), "{id}");
        assert!(!format!("{request:?}").contains(pair));
    }
}

#[test]
fn a3_redirect_uri_is_the_same_in_both_requests() {
    for redirect in ["https://hub.example", "https://HUB.example:443/a/../b?x=%41&y=1+2"] {
        let request = exchange(&config(&json!({"redirect_url": redirect})).unwrap());
        assert_eq!(fields(&request)["redirect_uri"], redirect);
    }
}

#[test]
fn c4_json_bodies_and_renamed_parameters() {
    let more =
        json!({"token_body_format": "json", "token_params": {"x": "1"}, "token_auth_method": "client_secret_basic"});
    let request = exchange(&config(&more).unwrap());
    assert_eq!(content_type(&request), "application/json");
    let body: Value = serde_json::from_str(text(&request)).unwrap();
    let expected = json!({"grant_type": "authorization_code", "code": "c/o d+e", "code_verifier": VERIFIER,
        "redirect_uri": "https://hub.example/cb", "x": "1"});
    assert_eq!(body, expected);

    let names = json!({"param_names": {"client_id": "client_key", "code": "auth_code", "grant_type": "type"}});
    let found = fields(&exchange(&config(&names).unwrap()));
    assert_eq!(
        found.keys().map(String::as_str).collect::<Vec<_>>(),
        ["auth_code", "client_key", "client_secret", "code_verifier", "redirect_uri", "type"]
    );
}

#[test]
fn c4_secrets_rotate_one_at_a_time() {
    #[track_caller]
    fn check(more: &Value, expected: &[&str]) {
        let config = config(more).unwrap();
        let authentications = (0..).map_while(|attempt| auth(&config, attempt)).take(9);
        let found: Vec<_> = authentications
            .map(|authentication| match authentication {
                ClientAuthentication::Public => "public".to_owned(),
                ClientAuthentication::Post(secret) => format!("post {}", secret.expose()),
                ClientAuthentication::Basic(secret) => format!("basic {}", secret.expose()),
                ClientAuthentication::Assertion(_) => "assertion".to_owned(),
                ClientAuthentication::Bearer => "bearer".to_owned(),
            })
            .collect();
        assert_eq!(found, expected, "{more}");
    }
    let pem = KeyPair::generate().unwrap().serialize_pem();
    check(&json!({}), &["post canary-secret"]);
    check(&json!({"client_secrets": ["b", "c"]}), &["post canary-secret", "post b", "post c"]);
    check(&json!({"client_secret": ""}), &["public"]);
    check(
        &json!({"token_auth_method": "client_secret_basic", "client_secrets": ["b"]}),
        &["basic canary-secret", "basic b"],
    );
    // The secrets are those of revocations.
    let of_revocations = |method: &str| {
        json!({"token_auth_method": method, "client_secrets": ["b"], "revocation_url": "https://acme.example/r",
            "revocation_auth_method": "client_secret_basic"})
    };
    check(&of_revocations("none"), &["public"]);
    let mut signed = of_revocations("private_key_jwt");
    (signed["client_key"], signed["client_key_alg"]) = (json!(pem), json!("ES256"));
    check(&signed, &["assertion"]);
}

#[test]
fn c4_private_key_jwt_verifies_with_the_public_key() {
    #[track_caller]
    fn check(alg: &str, key: &KeyPair, algorithm: Algorithm, public: &DecodingKey) {
        let more = json!({"token_auth_method": "private_key_jwt", "client_key": key.serialize_pem(),
            "client_key_alg": alg, "client_key_id": "k1"});
        let request = exchange(&config(&more).unwrap());
        assert_eq!(header(&request, "authorization"), None);
        let found = fields(&request);
        assert!(!found.contains_key("client_secret"));
        assert_eq!(found["client_assertion_type"], ASSERTION_TYPE);
        let mut rules = Validation::new(algorithm);
        rules.validate_exp = false;
        rules.set_audience(&["https://acme.example/token"]);
        let assertion = jsonwebtoken::decode::<Value>(&found["client_assertion"], public, &rules).unwrap();
        assert_eq!(assertion.header.kid.as_deref(), Some("k1"));
        let expected = json!({"iss": "id", "sub": "id", "aud": "https://acme.example/token", "jti": "jti-1",
            "iat": 1_750_000_000, "exp": 1_750_000_060});
        assert_eq!(assertion.claims, expected);
        let other = json!({"client_key": key.serialize_pem(), "client_key_alg": if alg == "RS256" { "ES256" } else { "RS256" }});
        assert!(config(&other).unwrap_err().to_string().starts_with("client_key must be"));
    }
    let keys: HashMap<_, _> = [
        ("RS256", &rcgen::PKCS_RSA_SHA256),
        ("ES256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("EdDSA", &rcgen::PKCS_ED25519),
    ]
    .map(|(name, algorithm)| (name, KeyPair::generate_for(algorithm).unwrap()))
    .into();
    let public = |alg: &str| keys[alg].public_key_pem();
    check("RS256", &keys["RS256"], Algorithm::RS256, &DecodingKey::from_rsa_pem(public("RS256").as_bytes()).unwrap());
    check("ES256", &keys["ES256"], Algorithm::ES256, &DecodingKey::from_ec_pem(public("ES256").as_bytes()).unwrap());
    check("EdDSA", &keys["EdDSA"], Algorithm::EdDSA, &DecodingKey::from_ed_pem(public("EdDSA").as_bytes()).unwrap());
}

#[test]
fn d8_a_token_goes_where_it_was_issued_or_nowhere() {
    let secret = Secret::new("r");
    let at = |more: &Value| config(more).unwrap().issued_at(&BTreeMap::new()).unwrap();
    let variable = |default: &str| json!({"token_url": "https://${v}.acme.example/t", "variables": {"v": {"pattern": "[a-z]+", "default": default}}});
    let renewed = json!({"refresh_url": "https://acme.example/r"});
    let other_form = json!({"client_secret": "new", "scopes": "c", "auth_url": "https://other.example/a",
        "token_headers": {"Api-Key": "k"}, "refresh_auth_method": "none", "token_body_format": "form"});
    for (issued, now, fits) in [
        (json!({}), json!({}), true),
        (json!({}), other_form, true),
        (json!({}), json!({"client_id": "other"}), false),
        (json!({}), json!({"token_url": "https://acme.example/token2"}), true),
        (json!({}), json!({"token_url": "https://acme.example/token?key=k"}), true),
        (json!({}), json!({"token_url": "https://acme.example/x/../token"}), true),
        (json!({}), json!({"token_url": "https://acme.example:8443/token"}), false),
        (json!({"issuer": "https://acme.example/one"}), json!({"issuer": "https://acme.example/two"}), false),
        (json!({}), json!({"issuer": "https://acme.example/two"}), true),
        (json!({}), json!({"refresh_url": "https://evil.example/r"}), false),
        (json!({}), renewed.clone(), true),
        (json!({"revocation_url": "https://acme.example/r"}), renewed.clone(), true),
        (renewed.clone(), renewed.clone(), true),
        (renewed.clone(), json!({}), true),
        (renewed, json!({"refresh_url": "https://evil.example/r"}), false),
        // New logins get their tokens at another URL.
        (json!({}), json!({"token_url": "https://acme.example/v2", "refresh_url": "https://acme.example/token"}), true),
        (variable("one"), variable("two"), true),
        (variable("one"), json!({"token_url": "https://one.acme.example/t"}), false),
    ] {
        let (issued_at, config) = (at(&issued), config(&now).unwrap());
        let grant = RefreshGrant { refresh_token: &secret, issued_at: &issued_at, scope: "", nonce: "n" };
        let refresh = refresh_request(&config, &grant, &ClientAuthentication::Public);
        assert_eq!(refresh.is_ok(), fits, "{issued} {now}");
        let Ok(refresh) = refresh else {
            assert_eq!(refresh.unwrap_err(), RequestError::IssuedElsewhere);
            continue;
        };
        let mut kept = [Some(issued_at.token_url), issued_at.refresh_url].into_iter().flatten();
        assert!(kept.any(|url| url == refresh.url.as_str()), "{issued} {now}");
        assert_eq!(fields(&refresh).into_values().collect::<Vec<_>>(), ["id", "refresh_token", "r"]);
    }
}

#[test]
fn d8_a_revocation_needs_the_same_issuer() {
    let token = Secret::new("t");
    let url = "https://acme.example/revoke";
    let with = config(&json!({ "revocation_url": url })).unwrap();
    let issued_at = with.issued_at(&BTreeMap::new()).unwrap();
    let revocation = Revocation { token: &token, hint: TokenKind::RefreshToken, issued_at: &issued_at, scope: "" };
    let request = revocation_request(&with, &revocation, "n", &auth(&with, 0).unwrap()).unwrap();
    assert_eq!(request.url.as_str(), "https://acme.example/revoke");
    assert_eq!(text(&request), "token=t&token_type_hint=refresh_token&client_id=id&client_secret=canary-secret");
    let other = config(&json!({ "revocation_url": url, "client_id": "other" })).unwrap();
    assert!(matches!(
        revocation_request(&other, &revocation, "n", &ClientAuthentication::Public),
        Err(RequestError::IssuedElsewhere)
    ));
}

/// An admin must not be able to collect tokens by changing the revocation endpoint.
#[test]
fn d8_a_token_is_revoked_only_where_it_was_issued() {
    let token = Secret::new("t");
    let of = |url: &str| config(&json!({ "revocation_url": url })).unwrap();
    let (then, none_then) = (of("https://revoke.example/r"), config(&json!({})).unwrap());
    for (issued_by, url, is_sent) in [
        (&then, "https://revoke.example/r", true),
        (&then, "https://revoke.example/r?key=k", true),
        (&then, "https://revoke.example/other", true),
        (&then, "https://evil.example/take", false),
        (&then, "https://acme.example/token", false),
        (&none_then, "https://acme.example/revoke", false),
        (&none_then, "https://acme.example/token", false),
        (&none_then, "https://evil.example/take", false),
    ] {
        let issued_at = issued_by.issued_at(&BTreeMap::new()).unwrap();
        let revocation = Revocation { token: &token, hint: TokenKind::RefreshToken, issued_at: &issued_at, scope: "" };
        let request = revocation_request(&of(url), &revocation, "n", &ClientAuthentication::Public);
        assert_eq!(request.is_ok(), is_sent, "{url}");
        assert!(is_sent || matches!(request, Err(RequestError::IssuedElsewhere)), "{url}");
    }
}

#[test]
fn c7_a_code_goes_to_the_login_s_own_endpoint() {
    let config =
        config(&json!({"token_url": "https://${v}.acme.example/t", "variables": {"v": {"pattern": ".*"}}})).unwrap();
    let code = Secret::new("c");
    for (value, expected) in [("one", Some("https://one.acme.example/t")), ("evil.example/", None), ("", None)] {
        let variables = BTreeMap::from([("v".to_owned(), value.to_owned())]);
        let grant = CodeGrant { code: &code, verifier: None, variables: &variables, scope: "", nonce: "n" };
        let request = exchange_request(&config, &grant, &ClientAuthentication::Public);
        assert!(
            request.as_ref().is_ok_and(|_| true)
                || matches!(request, Err(RequestError::Config(ConfigError::Variable { .. })))
        );
        assert_eq!(request.ok().map(|request| request.url.to_string()).as_deref(), expected, "{value}");
    }
}
