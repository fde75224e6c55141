//! Revocations of providers that differ from RFC 7009: another method, one of the two tokens, or the token as authorization.

use super::*;
use crate::integration::Method;

const URL: &str = "https://acme.example/revoke";

fn with(more: &Value) -> IntegrationOauthConfig {
    let mut fields = json!({ "revocation_url": URL });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config(&fields).unwrap()
}

fn revocation(config: &IntegrationOauthConfig, issued_at: &IssuedAt) -> Result<HttpRequest, RequestError> {
    let revocation = Revocation { token: &Secret::new("at-1"), hint: TokenKind::AccessToken, issued_at, scope: "" };
    revocation_request(config, &revocation, "n", &auth_of(config, RequestKind::Revoke, 0).unwrap())
}

#[test]
fn c4_a_bearer_token_is_the_whole_authorization_of_its_revocation() {
    #[track_caller]
    fn check(more: &Value, body: Option<&str>) {
        let mut more = more.clone();
        more["revocation_auth_method"] = json!("bearer");
        more["client_secrets"] = json!(["canary-second"]);
        let config = with(&more);
        let request = revocation(&config, &config.issued_at(&BTreeMap::new()).unwrap()).unwrap();
        assert_eq!(header(&request, "authorization"), Some("Bearer at-1"), "{more}");
        assert_eq!(request.body.as_ref().map(|body| body.text.expose()), body, "{more}");
        assert_eq!(request.url.as_str(), URL, "{more}");
        assert_eq!(auth_of(&config, RequestKind::Revoke, 1), None, "no other secret to try");
        assert!(!format!("{request:?}").contains("at-1"), "{request:?}");
        // Requests for tokens authenticate the client as before.
        assert!(text(&exchange(&config)).ends_with("&client_id=id&client_secret=canary-secret"));
    }
    let bare = json!({ "token": "", "token_type_hint": "" });
    for format in ["form", "json", "query"] {
        check(&json!({ "revocation_body_format": format, "param_names": { "revoke": bare } }), None);
    }
    check(&json!({ "param_names": { "revoke": { "token_type_hint": "" } } }), Some("token=at-1"));
    check(&json!({}), Some("token=at-1&token_type_hint=access_token"));
}

#[test]
fn c4_a_revocation_may_be_a_delete() {
    let more = json!({
        "revocation_method": "DELETE", "revocation_body_format": "json", "revocation_auth_method": "client_secret_basic",
        "param_names": { "revoke": { "token": "access_token", "token_type_hint": "" } },
    });
    let config = with(&more);
    let request = revocation(&config, &config.issued_at(&BTreeMap::new()).unwrap()).unwrap();
    assert_eq!((request.method, text(&request)), (Method::Delete, r#"{"access_token":"at-1"}"#));
    assert_eq!(exchange(&config).method, Method::Post);
}

/// The authorization is valid for each API of the origin. An admin must not be able to choose another one later.
#[test]
fn d8_a_bearer_token_goes_only_to_the_revocation_url_of_its_login() {
    let bearer = |url: &str| with(&json!({ "revocation_url": url, "revocation_auth_method": "bearer" }));
    let now = bearer(URL);
    for (then, is_sent) in [
        (bearer(URL), true),
        (with(&json!({})), true),
        (bearer("https://acme.example/revoke?all=1"), true),
        (bearer("https://acme.example/comments"), true),
        (bearer("https://other.example/revoke"), false),
        (config(&json!({})).unwrap(), false),
    ] {
        let request = revocation(&now, &then.issued_at(&BTreeMap::new()).unwrap());
        match request {
            Ok(request) => assert!(is_sent && Some(request.url.to_string()) == then.revocation_url, "{}", request.url),
            Err(error) => assert!(!is_sent && error == RequestError::IssuedElsewhere, "{:?}", then.revocation_url),
        }
    }
}
