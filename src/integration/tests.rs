use super::*;

pub(crate) fn body() -> Value {
    serde_json::json!({
        "integration_id": "acme", "name": "Acme", "scopes": "a, b,a", "client_id": "id",
        "client_secret": "canary-secret", "auth_url": "https://acme.example/auth?x=1",
        "token_url": "https://acme.example/token", "redirect_url": "https://hub.example/cb",
    })
}

pub(crate) fn config(more: &Value) -> Result<IntegrationOauthConfig, ConfigError> {
    let id = Integration::parse("acme").unwrap();
    parse_value(with_profile(more.clone(), &body()), &id, &UrlRules::default())
}

#[test]
fn a4_what_is_wrong_is_refused_by_field_without_its_value() {
    for (more, field) in [
        (serde_json::json!({"canary": 1}), "canary"),
        (serde_json::json!({"client_secret": 1}), "client_secret"),
        (serde_json::json!({"pkce": "canary"}), "pkce"),
        (serde_json::json!({"integration_id": "other"}), "integration_id"),
        (serde_json::json!({"auth_params": {"state": "canary"}}), "auth_params.state"),
        (serde_json::json!({"auth_params": {"code_challenge_x": "1"}}), "auth_params.code_challenge_x"),
        (serde_json::json!({"token_url": "http://acme.example/canary"}), "token_url"),
        (serde_json::json!({"token_url": "https://u@acme.example/"}), "token_url"),
        (serde_json::json!({"token_url": "https://acme.example/#x"}), "token_url"),
        (serde_json::json!({"token_url": "https://${v}.example/"}), "token_url"),
        (serde_json::json!({"token_auth_method": "private_key_jwt"}), "client_key"),
    ] {
        let error = config(&more).unwrap_err().to_string();
        assert!(error.contains(field), "{more}: {error}");
        assert!(field == "canary" || !error.contains("canary"), "{error}");
    }
}

#[test]
fn c7_variables_change_their_own_place_only() {
    let variables =
        serde_json::json!({"variables": {"v": {"pattern": ".*"}}, "token_url": "https://${v}.acme.example/t"});
    let host = config(&variables).unwrap();
    let path = config(&serde_json::json!({
        "variables": {"v": {"pattern": ".*"}}, "token_url": "https://acme.example/a/${v}/t"
    }))
    .unwrap();
    for value in ["evil.com/", "evil.com#", "a@b", "a:1", "..", ".", "", "a\\b", "%2e%2e", "a?b"] {
        let values = BTreeMap::from([("v".to_owned(), value.to_owned())]);
        assert!(host.token_endpoint(&values).is_err(), "host {value}");
        assert!(path.token_endpoint(&values).is_err(), "path {value}");
    }
    let values = BTreeMap::from([("v".to_owned(), "shop".to_owned())]);
    assert_eq!(host.token_endpoint(&values).unwrap().as_str(), "https://shop.acme.example/t");
    assert_eq!(path.token_endpoint(&values).unwrap().as_str(), "https://acme.example/a/shop/t");
}
