//! Fields of a config that shape requests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{check, config};
use crate::integration::{IssuedAt, KeyAlgorithm, TokenKind};

#[test]
fn a4_methods_and_formats_have_their_choices() {
    for field in [
        "token_method",
        "token_body_format",
        "revocation_body_format",
        "refresh_auth_method",
        "revocation_auth_method",
        "basic_encoding",
        "response_mode",
    ] {
        for value in [json!("canary"), json!("post"), json!("FORM"), json!(1), json!(["canary"])] {
            check(&json!({field: value}), field);
        }
    }
    check(&json!({"token_method": "GET", "token_body_format": "json"}), "token_body_format");
    for mode in ["fragment", "form_post.jwt", "web_message"] {
        check(&json!({"response_mode": mode}), "response_mode");
    }
    for text in ["token", "code token", "canary canary ", " code", "canary\n", "x".repeat(65).as_str()] {
        check(&json!({"response_type": text}), "response_type");
    }
    assert!(config(&json!({"response_type": "code id_token", "response_mode": "form_post"})).is_ok());
    check(&json!({"response_mode": "query", "auth_params": {"response_mode": "canary"}}), "auth_params.response_mode");
}

#[test]
fn a4_names_per_request_are_those_of_known_parameters() {
    for (names, field) in [
        (json!({"token": {"state": "canary"}}), "param_names.token.state"),
        (json!({"token": {"canary": "x"}}), "param_names.token.canary"),
        (json!({"refresh": {"client_id": "a b"}}), "param_names.refresh.client_id"),
        (json!({"refresh": {"refresh_token": ""}}), "param_names.refresh.refresh_token"),
        (json!({"code": ""}), "param_names.code"),
        (json!({"authorize": {"code_challenge": ""}}), "param_names.authorize.code_challenge"),
        (json!({"authorize": {"client_id": "scope"}}), "param_names"),
        (json!({"scope": "own", "authorize": {"client_id": "own"}}), "param_names"),
        (json!({"canary": {"client_id": "x"}}), "param_names.canary"),
        (json!({"revoke": {"token": ""}}), "param_names.revoke.token"),
        (json!({"revoke": {"token": "client_id"}}), "param_names"),
        (json!({"token": {"token_type_hint": "canary"}}), "param_names.token.token_type_hint"),
        (json!({"token_type_hint": "canary"}), "param_names.token_type_hint"),
        (json!({"token": "canary"}), "param_names.token"),
        (json!({"token": {"client_id": 1}}), "param_names.token.client_id"),
        (json!({"client_id": ["canary"]}), "param_names.client_id"),
        (json!({"token": {"scope": "${v}"}}), "param_names.token.scope"),
    ] {
        let error = config(&json!({"param_names": names})).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field} must be ")), "{names}: {error}");
    }
    let names = json!({"param_names": {"client_id": "app", "token": {"client_id": ""}, "scope": ""}});
    let parsed = config(&names).unwrap();
    assert_eq!(serde_json::to_value(&parsed.param_names).unwrap(), names["param_names"], "stored as given");
    let own = |names: Value, set: &str, name: &str| json!({"param_names": names, set: {name: "canary"}});
    check(&own(json!({"token": {"client_id": "app"}}), "token_params", "APP"), "token_params.APP");
    check(&own(json!({"refresh": {"client_id": "app"}}), "refresh_params", "app"), "refresh_params.app");
    assert!(config(&own(json!({"token": {"client_id": "app"}}), "auth_params", "app")).is_ok());
}

#[test]
fn a4_headers_are_not_those_of_credentials_and_of_http() {
    for name in [
        "Authorization",
        "cookie",
        "HOST",
        "Content-Type",
        "content-length",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Proxy-Authorization",
        "proxy-connection",
        "a b",
        "",
        "a:b",
        "ü",
    ] {
        let error = config(&json!({"token_headers": {name: "canary"}})).unwrap_err().to_string();
        assert!(error.starts_with("token_headers.") && !error.contains("canary"), "{name}: {error}");
    }
    for value in ["", "canary\r\nx: y", "canarü", &"canary".repeat(200)] {
        check(&json!({"token_headers": {"X-A": value}}), "token_headers.X-A");
    }
    check(&json!({"token_headers": {"X-A": "canary", "x-a": "canary"}}), "token_headers.x-a");
    let config =
        config(&json!({"token_headers": {"Accept": "a/b", "User-Agent": "canary", "X-Key": "canary"}})).unwrap();
    assert!(!format!("{config:?}").contains("canary"));
    assert!(!config.without_secrets().unwrap().contains_key("token_headers"));
    assert_eq!(
        config.shown().unwrap()["token_headers"],
        json!({"Accept": "a/b", "User-Agent": "canary", "X-Key": "set"})
    );
    assert!(config.with_secrets().unwrap().expose().contains("\"X-Key\":\"canary\""));
}

#[test]
fn a4_a_placeholder_has_a_meaning_in_its_place() {
    let with = |field: &str, value: Value| json!({field: value, "token_url": "https://acme.example/${v}", "variables": {"v": {"pattern": "a"}}});
    for set in ["auth_params", "token_params", "refresh_params", "token_headers"] {
        for text in ["${v}", "x ${scope} ${redirect_url}", "${nonce}", "$ {v}"] {
            assert!(config(&with(set, json!({"y": text}))).is_ok(), "{set} {text}");
        }
        for text in ["${w}", "${access_token}", "${client_secret}", "${", "${v", "${}", "${v w}", "${v}${canary}"] {
            check(&with(set, json!({"y": text})), &format!("{set}.y"));
        }
    }
    for (field, value) in [
        ("name", json!("${v}")),
        ("scopes", json!("a,${scope}")),
        ("client_id", json!("${v}")),
        ("issuer", json!("https://acme.example/${scope}")),
        ("redirect_url", json!("https://hub.example/${v}")),
        ("client_assertion_aud", json!("${v}")),
        ("client_key_id", json!("${v}")),
        ("token_response_path", json!("${v}")),
        ("code_param", json!("${v}")),
        ("response_type", json!("${v}")),
    ] {
        check(&with(field, value), field);
    }
    for (field, value, path) in [
        ("metadata_paths", json!(["${v}"]), "metadata_paths.0"),
        ("callback_metadata", json!(["${v}"]), "callback_metadata.0"),
        ("param_names", json!({"scope": "${v}"}), "param_names.scope"),
    ] {
        check(&with(field, value), path);
    }
    for url in ["auth_url", "token_url", "refresh_url", "revocation_url"] {
        let variables = json!({"v": {"pattern": "a"}});
        let with = |text: &str| json!({"auth_params": {"y": "${v}"}, "variables": variables, url: text});
        for text in ["https://acme.example/?a=${v}", "https://acme.example/?a=${scope}&b=${redirect_url}-${nonce}"] {
            assert!(config(&with(text)).is_ok(), "{url} {text}");
        }
        for text in [
            "https://acme.example/?a=${w}",
            "https://acme.example/${scope}",
            "https://acme.example/?${v}=a",
            "https://acme.example/?a=${",
        ] {
            check(&with(text), url);
        }
    }
    for name in ["scope", "redirect_url", "nonce"] {
        let named = json!({"variables": {name: {"pattern": "a"}}, "auth_params": {"y": format!("${{{name}}}")}});
        check(&named, &format!("variables.{name}"));
    }
}

#[test]
fn a4_only_auth_url_may_have_a_fragment_and_it_is_a_route() {
    for url in ["https://x.example/#/authorize", "https://x.example/a?b=c#!/a?d=e"] {
        assert!(config(&json!({"auth_url": url})).is_ok(), "{url}");
        check(&json!({"token_url": url}), "token_url");
    }
    for url in [
        "https://x.example/#canary",
        "https://x.example/#",
        "https://x.example/#/a#b",
        "https://x.example/#/${nonce}",
        "https://x.example/#/a b",
        "https://x.example/#/a?client_id=canary",
        "#/authorize",
    ] {
        check(&json!({"auth_url": url}), "auth_url");
    }
}

#[test]
fn a4_a_redirect_uri_among_the_parameters_is_the_config_s_own() {
    for set in ["token_params", "refresh_params"] {
        assert!(config(&json!({set: {"redirect_uri": "${redirect_url}"}})).is_ok(), "{set}");
        assert!(config(&json!({set: {"back": "${redirect_url}"}, "param_names": {"redirect_uri": "back"}})).is_ok());
        for value in ["https://hub.example/cb", "canary", "${redirect_url}x", "${scope}"] {
            check(&json!({set: {"redirect_uri": value}}), &format!("{set}.redirect_uri"));
        }
    }
    check(&json!({"auth_params": {"redirect_uri": "${redirect_url}"}}), "auth_params.redirect_uri");
    check(&json!({"auth_params": {"redirect_uri": "Acme-Acme-App"}}), "auth_params.redirect_uri");
}

#[test]
fn a4_a_name_in_place_of_the_redirect_uri_is_no_url() {
    for set in ["auth_params", "token_params", "refresh_params"] {
        let with = |value: &str| {
            json!({
                set: {"redirect_uri": value}, "param_names": {"redirect_uri": ""},
                "variables": {"v": {"values": ["Acme-App"], "default": "Acme-App"}}, "token_headers": {"X": "${v}"},
            })
        };
        for value in ["Acme-Acme-App", "${v}", "${redirect_url}"] {
            assert!(config(&with(value)).is_ok(), "{set} {value}");
        }
        for value in ["https://canary.example/cb", "//canary.example", "https%3A%2F%2Fcanary", ""] {
            check(&with(value), &format!("{set}.redirect_uri"));
        }
    }
}

#[test]
fn a4_an_issuer_has_variables_of_the_login_only() {
    let with = |from: &str, issuer: &str| json!({"issuer": issuer, "variables": {"v": {"pattern": "[a-z]+", "from": from, "metadata": true}}});
    let parsed = config(&with("login", "https://id.example/${v}")).unwrap();
    let issued_at = |value: &str| parsed.issued_at(&BTreeMap::from([("v".to_owned(), value.to_owned())])).unwrap();
    assert_eq!(issued_at("one").issuer.as_deref(), Some("https://id.example/one"));
    assert!(parsed.refresh_endpoint(&issued_at("one")).is_some());
    let elsewhere = IssuedAt { issuer: Some("https://id.example/two".to_owned()), ..issued_at("one") };
    assert_eq!(parsed.refresh_endpoint(&elsewhere), None);
    check(&with("callback:canary", "https://id.example/${v}"), "issuer");
    check(&with("login", "https://id.example/${canary}"), "issuer");
    check(&with("login", "https://id.example/${scope}"), "issuer");
}

#[test]
fn a4_request_in_a_url_chooses_a_page_and_is_no_request_object() {
    assert!(config(&json!({"auth_url": "https://acme.example/a?request=authorize"})).is_ok());
    for url in [
        "https://acme.example/a?request=e30.e30.canary",
        "https://acme.example/a?request=${v}",
        "https://acme.example/a?request=",
        "https://acme.example/a?request_uri=canary",
    ] {
        let variables = json!({"v": {"pattern": "[a-z]+"}});
        check(&json!({"auth_url": url, "variables": variables, "token_headers": {"X": "${v}"}}), "auth_url");
    }
    check(&json!({"auth_params": {"request": "authorize"}}), "auth_params.request");
}

#[test]
fn a4_every_client_authentication_has_what_it_needs() {
    for field in ["token_auth_method", "refresh_auth_method", "revocation_auth_method"] {
        let with = |method: &str| config(&json!({field: method, "client_secret": ""})).unwrap_err().to_string();
        assert!(with("client_secret_basic").contains("client_secret"), "{field}");
        assert!(with("private_key_jwt").contains("client_key"), "{field}");
    }
}

#[test]
fn a4_renames_are_of_known_parameters_to_free_names() {
    for (names, field) in [
        (json!({"state": "canary"}), "param_names.state"),
        (json!({"other": "canary"}), "param_names.other"),
        (json!({"client_id": "state"}), "param_names.client_id"),
        (json!({"client_id": "client_assertion"}), "param_names.client_id"),
        (json!({"client_id": "token"}), "param_names.client_id"),
        (json!({"client_id": "canary canary"}), "param_names.client_id"),
        (json!({"client_id": "scope"}), "param_names"),
        (json!({"client_id": "canary", "scope": "canary"}), "param_names"),
    ] {
        check(&json!({"param_names": names}), field);
    }
    assert!(config(&json!({"param_names": {"client_id": "scope", "scope": "client_id"}})).is_ok());
    for code in ["state", "error", "iss", "", "canary canary"] {
        check(&json!({"code_param": code}), "code_param");
    }
}

#[test]
fn a4_a_login_may_set_only_the_listed_parameters() {
    for name in ["state", "client_id", "scope", "request", "code_challenge", "Response_Mode", "nonce", "a b", ""] {
        check(&json!({"login_params": [name]}), "login_params.0");
    }
    check(&json!({"login_params": "canary"}), "login_params");
    check(&json!({"login_params": ["own"], "param_names": {"authorize": {"client_id": "own"}}}), "login_params.0");
    let set = |name: &str, value: &str| {
        let more = json!({"login_params": ["login_hint", "prompt"], "auth_params": {"prompt": "consent"}});
        let params = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        config(&more).unwrap().with_login_params(params).map(|config| config.auth_params)
    };
    let expected =
        |pairs: [(&str, &str); 2]| BTreeMap::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let hint = set("login_hint", "ada@example.com").unwrap();
    assert_eq!(hint, expected([("login_hint", "ada@example.com"), ("prompt", "consent")]));
    assert_eq!(set("prompt", "none").unwrap()["prompt"], "none");
    for (name, value) in
        [("hd", "x"), ("state", "x"), ("prompt", "a\nb"), ("prompt", "${nonce}"), ("prompt", &"x".repeat(1025))]
    {
        assert!(set(name, value).is_err(), "{name}={value}");
    }
    let error = set("hd", "canary").unwrap_err().to_string();
    assert_eq!(error, "a login may not set the parameter hd; `login_params` of the config lists login_hint, prompt");
    let error = set("prompt", "canary\n").unwrap_err().to_string();
    assert!(error.starts_with("the parameter prompt must ") && !error.contains("canary"), "{error}");
}

#[test]
fn c4_a_signed_client_secret_needs_a_key_and_an_issuer() {
    let method = "signed_client_secret";
    check(&json!({"token_auth_method": method, "client_assertion_iss": "canary"}), "client_key");
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    check(&json!({"token_auth_method": method, "client_key": key}), "client_assertion_iss");
    let whole = json!({"token_auth_method": method, "client_key": key, "client_assertion_iss": "team"});
    assert_eq!(config(&whole).unwrap().client_key_alg, KeyAlgorithm::ES256);
}

#[test]
fn a4_refreshes_with_an_access_token_have_their_choices() {
    for (field, value) in [
        ("refresh_with", "canary"),
        ("refresh_method", "get"),
        ("refresh_grant_type", ""),
        ("refresh_grant_type", "${v}"),
    ] {
        check(&json!({field: value}), field);
    }
    check(&json!({"refresh_method": "GET", "token_body_format": "json"}), "token_body_format");
}

#[test]
fn a4_revocations_have_their_choices() {
    for (field, value) in [
        ("revoke_with", "both"),
        ("revoke_with", "canary"),
        ("revocation_method", "GET"),
        ("revocation_method", "delete"),
        ("revocation_auth_method", "canary"),
        ("token_auth_method", "bearer"),
        ("refresh_auth_method", "bearer"),
        ("token_method", "DELETE"),
        ("refresh_method", "DELETE"),
    ] {
        check(&json!({field: value}), field);
    }
    let url = "https://acme.example/x";
    check(&json!({"identity": {"url": url, "id": "id", "method": "DELETE"}}), "identity.method");
    let bearer = |more: Value| {
        let mut fields = json!({"revocation_url": url, "revocation_auth_method": "bearer"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    // A bearer token is an access token.
    check(&bearer(json!({"revoke_with": "refresh_token"})), "revoke_with");
    for (fields, kinds) in [
        (json!({}), (true, true)),
        (json!({"revocation_url": url, "revoke_with": "refresh_token"}), (true, false)),
        (json!({"revocation_url": url, "revoke_with": "access_token"}), (false, true)),
        (bearer(json!({})), (false, true)),
        (bearer(json!({"revoke_with": "access_token"})), (false, true)),
    ] {
        let config = config(&fields).unwrap();
        assert_eq!(
            (config.revokes(TokenKind::RefreshToken), config.revokes(TokenKind::AccessToken)),
            kinds,
            "{fields}"
        );
    }
    // The parameter may be absent only if the header has the token.
    let names = json!({"param_names": {"revoke": {"token": ""}}});
    assert!(config(&bearer(names.clone())).is_ok());
    check(&names, "param_names.revoke.token");
}
