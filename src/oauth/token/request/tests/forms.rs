//! The forms that a config chooses: method, place of the parameters, headers, names.

use super::*;
use crate::integration::Method;
use crate::oauth::token::Response;

fn refresh(config: &IntegrationOauthConfig) -> HttpRequest {
    let (token, issued_at) = (Secret::new("r"), config.issued_at(&BTreeMap::new()).unwrap());
    let grant = RefreshGrant { refresh_token: &token, issued_at: &issued_at, scope: "granted one", nonce: "n-2" };
    refresh_request(config, &grant, &auth_of(config, RequestKind::Refresh, 0).unwrap()).unwrap()
}

fn revocation(config: &IntegrationOauthConfig) -> HttpRequest {
    let (token, issued_at) = (Secret::new("t"), config.issued_at(&BTreeMap::new()).unwrap());
    let hint = TokenKind::AccessToken;
    let revocation = Revocation { token: &token, hint, issued_at: &issued_at, scope: "a" };
    revocation_request(config, &revocation, "n-3", &auth_of(config, RequestKind::Revoke, 0).unwrap()).unwrap()
}

#[test]
fn c4_parameters_are_in_the_query_where_the_config_says_so() {
    let more = json!({"token_url": "https://acme.example/token?v=1", "token_params": {"x": "a b&c"}});
    let params = "v=1&grant_type=authorization_code&code=c%2Fo%20d%2Be&redirect_uri=https%3A%2F%2Fhub.example%2Fcb\
                  &code_verifier=verifier&x=a%20b%26c&client_id=id&client_secret=canary-secret";
    for (method, format, expected) in
        [("GET", "form", Method::Get), ("GET", "query", Method::Get), ("POST", "query", Method::Post)]
    {
        let mut more = more.clone();
        (more["token_method"], more["token_body_format"]) = (json!(method), json!(format));
        let request = exchange(&config(&more).unwrap());
        assert_eq!((request.method, request.url.query()), (expected, Some(params)), "{method} {format}");
        assert!(request.body.is_none(), "{method} {format}");
        assert!(!format!("{request:?}").contains("canary"), "{request:?}");
    }
    let form = exchange(&config(&more).unwrap());
    assert_eq!((form.method, form.url.query()), (Method::Post, Some("v=1")));
}

#[test]
fn c4_a_revocation_is_posted_whatever_the_method_of_token_requests() {
    let with = |format: &str| json!({"token_method": "GET", "token_body_format": format, "revocation_url": "https://acme.example/r"});
    let form = revocation(&config(&with("form")).unwrap());
    assert_eq!((form.method, form.url.query()), (Method::Post, None));
    assert_eq!(text(&form), "token=t&token_type_hint=access_token&client_id=id&client_secret=canary-secret");
    let query = revocation(&config(&with("query")).unwrap());
    assert_eq!((query.method, query.body.is_none()), (Method::Post, true));
    assert!(query.url.query().unwrap().starts_with("token=t&"), "{:?}", query.url.query());
}

#[test]
fn c4_refreshes_and_revocations_may_have_forms_of_their_own() {
    let more = json!({
        "revocation_url": "https://acme.example/r", "refresh_auth_method": "client_secret_basic",
        "revocation_auth_method": "client_secret_basic", "revocation_body_format": "json",
        "param_names": {"token": {"client_secret": "key"}, "revoke": {"token": "access_token", "token_type_hint": ""}},
    });
    let with = config(&more).unwrap();
    assert!(text(&exchange(&with)).ends_with("&client_id=id&key=canary-secret"));
    let is_basic = |request: &HttpRequest| request.headers.iter().any(|(name, _)| name == "authorization");
    assert_eq!(
        (is_basic(&exchange(&with)), is_basic(&refresh(&with)), is_basic(&revocation(&with))),
        (false, true, true)
    );
    assert_eq!(text(&refresh(&with)), "grant_type=refresh_token&refresh_token=r");
    assert_eq!(text(&revocation(&with)), r#"{"access_token":"t"}"#);

    // Without fields of its own a revocation has the form of a token request.
    let more = json!({
        "revocation_url": "https://acme.example/r", "token_auth_method": "client_secret_basic",
        "revocation_auth_method": "client_secret_post", "param_names": {"token": {"client_secret": "key"}},
    });
    let posted = revocation(&config(&more).unwrap());
    let body = "token=t&token_type_hint=access_token&client_id=id&key=canary-secret";
    assert_eq!((text(&posted), is_basic(&posted)), (body, false));
}

#[test]
fn c4_headers_of_the_config_replace_the_default_ones() {
    let more = json!({"revocation_url": "https://acme.example/r", "token_headers": {"Accept": "text/plain",
        "X-Version": "2025-01", "X-Nonce": "a-${nonce}", "X-Tenant": "${v}"},
        "token_url": "https://acme.example/${v}", "variables": {"v": {"pattern": "[a-z]+", "default": "one"}}});
    let config = config(&more).unwrap();
    for (request, nonce) in [(exchange(&config), "a-n-1"), (refresh(&config), "a-n-2"), (revocation(&config), "a-n-3")]
    {
        let found: BTreeMap<_, _> =
            request.headers.iter().map(|(name, value)| (name.as_ref(), value.expose())).collect();
        let expected = [("Accept", "text/plain"), ("X-Nonce", nonce), ("X-Tenant", "one"), ("X-Version", "2025-01")];
        assert_eq!(found, BTreeMap::from(expected));
    }
}

#[test]
fn c4_basic_takes_id_and_secret_raw_where_the_config_says_so() {
    let more = json!({"token_auth_method": "client_secret_basic", "basic_encoding": "raw", "client_id": "a b",
        "client_secret": "p@ss+w/=%"});
    let expected = format!("Basic {}", BASE64_STANDARD.encode("a b:p@ss+w/=%"));
    assert_eq!(header(&exchange(&config(&more).unwrap()), "authorization"), Some(expected.as_str()));
}

#[test]
fn c4_a_refresh_has_the_redirect_uri_and_the_granted_scope_where_the_config_says_so() {
    let more = json!({"refresh_params": {"redirect_uri": "${redirect_url}", "scope": "${scope}", "plain": "1"}});
    let request = refresh(&config(&more).unwrap());
    let expected = "grant_type=refresh_token&refresh_token=r&plain=1&redirect_uri=https%3A%2F%2Fhub.example%2Fcb\
                    &scope=granted+one&client_id=id&client_secret=canary-secret";
    assert_eq!(text(&request), expected);
    let again = json!({"token_params": {"redirect_uri": "${redirect_url}", "scope": "${scope}"}});
    let found = fields(&exchange(&config(&again).unwrap()));
    assert_eq!((found["redirect_uri"].as_str(), found["scope"].as_str()), ("https://hub.example/cb", "a b"));
}

#[test]
fn a2_names_differ_per_request_and_empty_ones_leave_the_parameter_out() {
    let names = json!({"client_id": "app", "token": {"client_id": "key", "grant_type": "", "client_secret": ""},
        "refresh": {"refresh_token": "old"}, "authorize": {"scope": "scopes"}});
    let config = config(&json!({"param_names": names, "revocation_url": "https://acme.example/r"})).unwrap();
    let names = |request: &HttpRequest| fields(request).into_keys().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&exchange(&config)), "code code_verifier key redirect_uri");
    assert_eq!(names(&refresh(&config)), "app client_secret grant_type old");
    assert_eq!(names(&revocation(&config)), "key token token_type_hint");
}

#[test]
fn values_of_the_request_fill_the_query_of_a_url() {
    let more = json!({"token_url": "https://acme.example/t?back=${redirect_url}&n=${nonce}&v=${v}",
        "variables": {"v": {"pattern": ".*", "default": "a&b"}}});
    let config = config(&more).unwrap();
    assert_eq!(exchange(&config).url.query(), Some("back=https%3A%2F%2Fhub.example%2Fcb&n=n-1&v=a%26b"));
    assert_eq!(refresh(&config).url.query(), Some("back=https%3A%2F%2Fhub.example%2Fcb&n=n-2&v=a%26b"));
}

#[test]
fn d1_a_refresh_sends_the_access_token_where_the_config_says_so() {
    let more = json!({"refresh_with": "access_token", "refresh_grant_type": "renew", "refresh_method": "GET",
        "refresh_url": "https://acme.example/refresh"});
    let query = |more: &Value| refresh(&config(more).unwrap()).url.query().unwrap().to_owned();
    assert_eq!(query(&more), "grant_type=renew&access_token=r&client_id=id&client_secret=canary-secret");
    let mut named = more.clone();
    named["param_names"] = json!({"refresh": {"refresh_token": "fb_exchange_token", "client_secret": ""}});
    assert_eq!(query(&named), "grant_type=renew&fb_exchange_token=r&client_id=id");
    assert_eq!(exchange(&config(&more).unwrap()).method, Method::Post);
    let answer =
        Response::parse(200, None, br#"{"access_token":"a-1","refresh_token":"r-1"}"#, &config(&more).unwrap());
    let tokens = answer.tokens(&config(&more).unwrap(), now()).unwrap();
    assert_eq!(tokens.refresh_token, Some(Secret::new("a-1")));
}

#[test]
fn c4_a_signed_client_secret_is_a_jwt_of_the_key() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let more = json!({"token_auth_method": "signed_client_secret", "client_key": key.serialize_pem(),
        "client_key_id": "k1", "client_assertion_iss": "team"});
    let found = fields(&exchange(&config(&more).unwrap()));
    assert_eq!(found["client_id"], "id");
    assert!(!found.contains_key("client_assertion"));
    let mut rules = Validation::new(Algorithm::ES256);
    rules.validate_exp = false;
    rules.set_audience(&["https://acme.example"]);
    let public = DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).unwrap();
    let secret = jsonwebtoken::decode::<Value>(&found["client_secret"], &public, &rules).unwrap();
    assert_eq!(secret.header.kid.as_deref(), Some("k1"));
    assert_eq!((&secret.claims["iss"], &secret.claims["sub"]), (&json!("team"), &json!("id")));
}
