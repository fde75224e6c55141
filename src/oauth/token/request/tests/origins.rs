//! Where a token may go: to a URL of the login's config, while the config has the URL's origin and the login's client and
//! issuer. The form of the request is free, because the URLs are those at which the provider takes tokens.

use proptest::prelude::*;
use proptest::sample::select;
use url::Url;

use super::*;
use crate::integration::endpoint_url;

/// URLs of few origins and paths, so that two configs often share one.
fn url() -> impl Strategy<Value = String> {
    let hosts = [
        "acme.example",
        "acme.example",
        "acme.example:8443",
        "evil.example",
        "${v}.acme.example",
        "one.acme.example",
        "${region}",
    ];
    let paths = ["/a", "/a", "/a/", "/A", "/a?x=1", "/a?x=${v}", "/${v}", "/comments?x=1"];
    (select(hosts.to_vec()), select(paths.to_vec())).prop_map(|(host, path)| format!("https://{host}{path}"))
}

/// Everything that decides the look of a request beside its URL: method, format, names, parameters, headers, credentials.
fn form() -> impl Strategy<Value = Value> {
    let of_tokens = (
        select(vec![("POST", "form"), ("POST", "json"), ("POST", "query"), ("GET", "form"), ("GET", "query")]),
        select(vec![
            ("client_secret_post", "form"),
            ("client_secret_basic", "form"),
            ("client_secret_basic", "raw"),
            ("none", "form"),
        ]),
        select(vec!["refresh_token", "access_token"]),
        select(vec!["refresh_token", "comments.create"]),
        select(vec![json!({}), json!({"post": "1"}), json!({"post": "1", "scope": "${scope}"})]),
    );
    let of_revocations = (
        select(vec!["bearer", "client_secret_basic", "client_secret_post", "none"]),
        select(vec!["POST", "DELETE"]),
        select(vec!["form", "json", "query"]),
    );
    let shared = (
        select(vec![json!({}), json!({"Api-Key": "k"}), json!({"Accept": "*/*", "X-Post": "1"})]),
        select(vec!["canary-secret", "another"]),
        select(vec![
            json!({}),
            json!({"refresh": {"refresh_token": "body", "grant_type": "", "client_id": ""}}),
            json!({"grant_type": "text", "revoke": {"token": "body", "token_type_hint": ""}}),
        ]),
    );
    (of_tokens, of_revocations, shared).prop_map(
        |(
            ((method, format), (authentication, encoding), with, grant_type, params),
            revoke,
            (headers, secret, names),
        )| {
            json!({"token_method": method, "token_body_format": format, "token_auth_method": authentication,
                "refresh_with": with, "refresh_grant_type": grant_type, "refresh_params": params,
                "revocation_auth_method": revoke.0, "revocation_method": revoke.1, "revocation_body_format": revoke.2,
                "token_headers": headers, "client_secret": secret, "basic_encoding": encoding, "param_names": names})
        },
    )
}

/// A config with endpoints, client, issuer and the form of its requests.
fn any_config() -> impl Strategy<Value = IntegrationOauthConfig> {
    let issuer = select(vec![None, Some("https://acme.example/1"), Some("https://acme.example/2")]);
    let client = prop_oneof![4 => Just("id"), 1 => Just("other")];
    let optional = || proptest::option::of(url());
    (url(), optional(), optional(), issuer, client, form()).prop_map(
        |(token_url, refresh_url, revocation_url, issuer, client_id, form)| {
            let mut fields = json!({
                "token_url": token_url, "refresh_url": refresh_url, "revocation_url": revocation_url, "issuer": issuer,
                "client_id": client_id, "variables": {
                    "v": {"pattern": "[a-z]+", "default": "one", "metadata": true},
                    "region": {"values": ["acme.example", "evil.example"], "default": "acme.example", "metadata": true}}});
            fields.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
            if fields["revocation_url"].is_null() {
                fields.as_object_mut().unwrap().retain(|name, _| !name.starts_with("revocation_"));
                fields["param_names"].as_object_mut().unwrap().remove("revoke");
            }
            config(&fields).unwrap()
        },
    )
}

/// Returns true if the request has this URL. Parameters may follow the URL's own query.
fn is_sent_to(request: &HttpRequest, kept: &str) -> bool {
    let kept = Url::parse(kept).unwrap();
    let without_query = |url: &Url| {
        let mut url = url.clone();
        url.set_query(None);
        url
    };
    let (own, sent) = (kept.query().unwrap_or_default(), request.url.query().unwrap_or_default());
    let follows = |more: &str| own.is_empty() || more.is_empty() || more.starts_with('&');
    without_query(&kept) == without_query(&request.url) && sent.strip_prefix(own).is_some_and(follows)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn d8_with_any_later_config_a_token_goes_only_to_the_urls_of_its_login(
        then in any_config(), now in any_config(), v in "(one|two)", region in "(acme|evil)[.]example",
    ) {
        let values = BTreeMap::from([("v".to_owned(), v), ("region".to_owned(), region)]);
        let issued_at = then.issued_at(&values).unwrap();
        let is_same_client = then.client_id == now.client_id && (then.issuer.is_none() || then.issuer == now.issuer);
        let token = Secret::new("canary-token");
        let grant = RefreshGrant { refresh_token: &token, issued_at: &issued_at, scope: "", nonce: "n" };
        let revocation = Revocation { token: &token, hint: TokenKind::AccessToken, issued_at: &issued_at, scope: "" };
        let (of_refresh, of_revoke) = (auth_of(&now, RequestKind::Refresh, 0), auth_of(&now, RequestKind::Revoke, 0));
        for (request, endpoint, kept) in [
            (
                refresh_request(&now, &grant, &of_refresh.unwrap()),
                Some(now.refresh_url.as_ref().unwrap_or(&now.token_url)),
                vec![Some(&issued_at.token_url), issued_at.refresh_url.as_ref()],
            ),
            (
                revocation_request(&now, &revocation, "n", &of_revoke.unwrap()),
                now.revocation_url.as_ref(),
                vec![issued_at.revocation_url.as_ref()],
            ),
        ] {
            let kept: Vec<&String> = kept.into_iter().flatten().collect();
            let endpoint = endpoint.map(|url| endpoint_url(url, &now.variables, &issued_at.variables).unwrap());
            match request {
                Ok(request) => {
                    let is_kept = kept.iter().any(|url| is_sent_to(&request, url));
                    prop_assert!(is_same_client && is_kept, "{}", request.url);
                    // A kept URL that the config still has is the one.
                    let same = kept.iter().find(|url| Url::parse(url).ok() == endpoint);
                    prop_assert!(same.is_none_or(|url| is_sent_to(&request, url)), "{}", request.url);
                }
                Err(error) => {
                    let origin = endpoint.map(|url| url.origin());
                    let has_origin = |url: &&String| Url::parse(url).ok().map(|url| url.origin()) == origin;
                    prop_assert!(!(is_same_client && kept.iter().any(has_origin)), "{origin:?}");
                    prop_assert_eq!(error, RequestError::IssuedElsewhere);
                }
            }
        }
    }
}
