//! Where a token may go: the origins of the three endpoints at the login, with the login's client and issuer. A revocation
//! that the token authorizes by itself goes to the login's revocation URL only.

use proptest::prelude::*;

use super::*;

/// URLs of few origins, so that two configs often share one.
fn url() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just("acme.example"),
        Just("acme.example:8443"),
        Just("evil.example"),
        Just("${v}.acme.example"),
        Just("one.acme.example"),
        Just("${region}"),
    ];
    (host, prop_oneof![Just("/a"), Just("/b?x=${v}"), Just("/${v}")])
        .prop_map(|(host, path)| format!("https://{host}{path}"))
}

/// A config with endpoints, client and issuer.
fn endpoints() -> impl Strategy<Value = Value> {
    let issuer = prop_oneof![Just(None), Just(Some("https://acme.example/1")), Just(Some("https://acme.example/2"))];
    let client = prop_oneof![4 => Just("id"), 1 => Just("other")];
    let forms = (prop_oneof![Just("POST"), Just("GET")], prop_oneof![Just("refresh_token"), Just("access_token")]);
    let revocation = (
        url(),
        prop_oneof![Just("bearer"), Just("client_secret_basic"), Just("none")],
        prop_oneof![Just("POST"), Just("DELETE")],
        prop_oneof![Just("form"), Just("json"), Just("query")],
    );
    (url(), proptest::option::of(url()), revocation, issuer, client, forms).prop_map(
        |(token_url, refresh_url, (revocation_url, revoke_as, revoke_by, revoke_in), issuer, client_id, (method, with))| {
            json!({"revocation_auth_method": revoke_as, "revocation_method": revoke_by, "revocation_body_format": revoke_in,
                "token_url": token_url, "refresh_url": refresh_url, "revocation_url": revocation_url, "issuer": issuer,
                "client_id": client_id, "token_method": method, "refresh_with": with, "variables": {
                    "v": {"pattern": "[a-z]+", "default": "one", "metadata": true},
                    "region": {"values": ["acme.example", "evil.example"], "default": "acme.example", "metadata": true}}})
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn d8_whatever_config_follows_a_token_goes_only_to_the_origins_of_its_login(
        then in endpoints(), now in endpoints(), v in "(one|two)", region in "(acme|evil)[.]example",
    ) {
        let (then, now) = (config(&then).unwrap(), config(&now).unwrap());
        let values = BTreeMap::from([("v".to_owned(), v), ("region".to_owned(), region)]);
        let issued_at = then.issued_at(&values).unwrap();
        let urls = [Some(&issued_at.token_url), issued_at.refresh_url.as_ref(), issued_at.revocation_url.as_ref()];
        let origins: Vec<_> = urls.into_iter().flatten().map(|url| Url::parse(url).unwrap().origin()).collect();
        let is_same_client = then.client_id == now.client_id && (then.issuer.is_none() || then.issuer == now.issuer);
        let token = Secret::new("canary-token");
        let authentication = auth(&now, 0).unwrap();
        let of_revoke = auth_of(&now, RequestKind::Revoke, 0).unwrap();
        let grant = RefreshGrant { refresh_token: &token, issued_at: &issued_at, scope: "", nonce: "n" };
        let revocation = Revocation { token: &token, hint: TokenKind::AccessToken, issued_at: &issued_at, scope: "" };
        let revocation_url = now.revocation_url.as_ref().unwrap();
        let is_bearer = of_revoke == ClientAuthentication::Bearer;
        for (request, endpoint, is_bearer) in [
            (refresh_request(&now, &grant, &authentication), now.refresh_url.as_ref().unwrap_or(&now.token_url), false),
            (revocation_request(&now, revocation_url, &revocation, "n", &of_revoke), revocation_url, is_bearer),
        ] {
            let endpoint = endpoint_url(endpoint, &now.variables, &issued_at.variables).unwrap();
            let is_kept = issued_at.revocation_url.as_deref() == Some(endpoint.as_str());
            let may_go = is_same_client && origins.contains(&endpoint.origin()) && (is_kept || !is_bearer);
            match request {
                Ok(request) => prop_assert!(may_go && request.url.origin() == endpoint.origin(), "{}", request.url),
                Err(error) => prop_assert!(!may_go && error == RequestError::IssuedElsewhere, "{}", endpoint),
            }
        }
    }
}
