//! Hosts that variables lead to.

use proptest::prelude::*;

use super::*;
use crate::integration::{ApiRequest, LoginRequests, Placeholders};
use crate::oauth::api_request::api_request;

/// Text that tries to lead elsewhere, or fits.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,12}",
        "[a-z.:/@%#?\\\\_-]{0,16}",
        "(evil[.](com|example|co[.]uk)[/?#:@]?|acme[.]example)",
        "[a-z][a-z0-9-]{0,8}",
        "(com|eu|login[.]acme[.]example|live|test)",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// The admin names `login.acme.example`, `auth.other.example`, `accounts.acme.com`, `accounts.acme.eu`,
    /// `oauth-live.acme.example`, `oauth-test.acme.example`, and all hosts under `acme.example` and `shops.acme.eu`.
    #[test]
    fn c7_no_value_sends_a_code_a_secret_or_a_token_to_a_host_that_the_admin_did_not_name(
        template in prop_oneof![
            Just("https://${host}/t/${any}?x=${any}"), Just("https://accounts.acme.${tld}:8443/t"), Just("https://oauth-${env}.acme.example/t"),
            Just("https://${any}.acme.example/t"), Just("https://${any}.shops.acme.${eu}/t"),
        ],
        [any, host, tld, env, eu] in [value(), value(), value(), value(), value()],
        from_callback in any::<[bool; 5]>(),
        by_login in any::<[bool; 5]>(),
    ) {
        let lists = [json!({"pattern": "(?s).*"}), json!({"values": ["login.acme.example", "auth.other.example"]}),
            json!({"values": ["com", "eu"]}), json!({"values": ["live", "test"]}), json!({"values": ["eu"]})];
        let names = ["any", "host", "tld", "env", "eu"];
        let (mut variables, mut login, mut callback) = (json!({}), BTreeMap::new(), BTreeMap::new());
        for (index, value) in [any, host, tld, env, eu].into_iter().enumerate() {
            let (name, mut variable) = (names[index], lists[index].clone());
            variable["metadata"] = json!(true);
            if from_callback[index] {
                variable["from"] = json!(format!("callback:{name}"));
            }
            variables[name] = variable;
            if from_callback[index] && !by_login[index] {
                callback.insert(name.to_owned(), value);
            } else {
                login.insert(name.to_owned(), value);
            }
        }
        let config = config(&json!({
            "token_url": template, "refresh_url": template, "revocation_url": template, "variables": variables,
            "upgrade": {"url": template, "params": {"secret": "${client_secret}"}},
            "identity": {"url": template, "id": "id"}, "metadata_request": {"url": template, "paths": ["id"]},
        }))
        .unwrap();
        let Ok(begun) = config.issued_at_login(&login) else { return Ok(()) };
        let Ok(issued_at) = config.issued_at_callback(&begun, &callback) else { return Ok(()) };
        let secret = Secret::new("canary");
        let authentication = ClientAuthentication::Post(Secret::new("canary-secret"));
        let grant = CodeGrant { code: &secret, verifier: None, variables: &issued_at.variables, scope: "", nonce: "n" };
        let refresh = RefreshGrant { refresh_token: &secret, issued_at: &issued_at, scope: "", nonce: "n" };
        let revocation = Revocation { token: &secret, hint: TokenKind::AccessToken, issued_at: &issued_at, scope: "" };
        let placeholders = Placeholders { variables: &issued_at.variables, scope: "", redirect_url: "", nonce: "n", more: &[("client_secret", "canary")] };
        let LoginRequests { upgrade, identity, metadata } = &issued_at.requests;
        let identity = identity.as_ref().and_then(|identity| identity.request.as_ref());
        let metadata = metadata.as_ref().and_then(|metadata| metadata.request.as_ref());
        let to_apis: Vec<&ApiRequest> = [upgrade.as_deref(), identity, metadata].into_iter().flatten().collect();
        prop_assert_eq!(to_apis.len(), 3);
        let sent = to_apis.into_iter().filter_map(|api| api_request(api, &BTreeMap::new(), &secret, &placeholders));
        let tokens = [
            exchange_request(&config, &grant, &authentication), refresh_request(&config, &refresh, &authentication),
            revocation_request(&config, &revocation, "n", &authentication),
        ];
        for request in tokens.into_iter().flatten().chain(sent) {
            let host = request.url.host_str().unwrap();
            let is_named = ["login.acme.example", "auth.other.example", "accounts.acme.com", "accounts.acme.eu"].contains(&host)
                || host.ends_with(".acme.example") || host.ends_with(".shops.acme.eu");
            let port = template.contains("8443").then_some(8443);
            prop_assert!(is_named && request.url.scheme() == "https" && request.url.port() == port, "{}", request.url);
            prop_assert!(request.url.username().is_empty() && request.url.password().is_none());
        }
    }
}
