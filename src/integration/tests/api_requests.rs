//! Rules of `upgrade`, `identity` and `metadata_request`.

use super::*;

fn good(url: &str) -> Value {
    json!({ "url": url })
}

#[test]
fn a4_api_requests_have_a_form() {
    let url = "https://api.example/me";
    for value in [
        json!({ "identity": { "id": "sub" } }),
        json!({ "identity": { "id": ["a.id", "0.id"], "label": "email", "issuer": "https://id.example/{tid}" } }),
        json!({ "identity": { "url": url, "id": "id", "method": "POST", "body": { "query": "{ me { id } }" } } }),
        json!({ "metadata_request": { "url": url, "paths": ["0.id"], "headers": { "Authorization": "T ${access_token}" } } }),
        json!({ "upgrade": { "url": url, "params": { "t": "${access_token}", "s": "${client_secret}", "i": "${client_id}" } } }),
        json!({ "reconnect": "same_identity", "revoke_replaced": true, "identity": { "id": "sub" }, "revocation_url": url }),
        json!({ "variables": { "v": { "pattern": "[a-z]+" } }, "token_url": "https://${v}.acme.example/t",
                "identity": { "url": "https://${v}.acme.example/me", "id": "id", "params": { "x": "${v}" } } }),
    ] {
        assert!(config(&value).is_ok(), "{value}: {:?}", config(&value).err());
    }
    for (field, value, path) in [
        ("identity", json!("canary"), "identity"),
        ("identity", json!([]), "identity"),
        ("identity", json!({}), "identity.id"),
        ("identity", json!({ "id": 1 }), "identity.id"),
        ("identity", json!({ "id": "a", "lable": "canary" }), "identity.lable"),
        ("identity", json!({ "id": "a", "params": { "x": "y" } }), "identity.url"),
        ("identity", json!({ "id": "a", "url": url, "method": "PUT" }), "identity.method"),
        (
            "identity",
            json!({ "id": "a", "url": url, "headers": { "authorization": 1 } }),
            "identity.headers.authorization",
        ),
        ("metadata_request", json!({ "url": url }), "metadata_request.paths"),
        ("upgrade", json!({ "url": url, "token_param": "canary" }), "upgrade.token_param"),
        ("upgrade", json!({ "params": {} }), "upgrade.url"),
        ("reconnect", json!("canary"), "reconnect"),
        ("revoke_replaced", json!("true"), "revoke_replaced"),
    ] {
        check(&json!({ field: value }), path);
    }
}

#[test]
fn a4_settings_without_any_effect_are_refused() {
    let url = "https://api.example/me";
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
    for (value, field) in [
        (json!({ "metadata_request": { "url": url, "paths": [] } }), "metadata_request.paths"),
        (json!({ "metadata_request": { "url": url, "paths": ["a", "b", "a"] } }), "metadata_request.paths.2"),
        (json!({ "identity": { "id": [] } }), "identity.id"),
        (json!({ "identity": { "id": "id", "label": [] } }), "identity.label"),
        (json!({ "reconnect": "same_identity" }), "reconnect"),
        (json!({ "revoke_replaced": true }), "revoke_replaced"),
        (json!({ "revoke_replaced": true, "identity": { "id": "sub" } }), "revoke_replaced"),
        (json!({ "revocation_method": "DELETE" }), "revocation_method"),
        (json!({ "revocation_body_format": "json" }), "revocation_body_format"),
        (json!({ "revocation_auth_method": "none" }), "revocation_auth_method"),
        (json!({ "revoke_with": "access_token" }), "revoke_with"),
        (json!({ "param_names": { "revoke": { "token_type_hint": "" } } }), "param_names.revoke"),
        (json!({ "client_key": key }), "client_key"),
        (json!({ "client_key_id": "canary" }), "client_key_id"),
        (json!({ "client_key_alg": "EdDSA" }), "client_key_alg"),
        (json!({ "client_assertion_aud": "canary" }), "client_assertion_aud"),
        (json!({ "client_assertion_iss": "canary" }), "client_assertion_iss"),
        (json!({ "token_auth_method": "none", "client_secrets": ["canary"] }), "client_secrets"),
        (json!({ "basic_encoding": "raw" }), "basic_encoding"),
        (json!({ "login_params": ["prompt", "prompt"] }), "login_params.1"),
        (json!({ "metadata_paths": ["a", "a"] }), "metadata_paths.1"),
        (json!({ "callback_metadata": ["a", "a"] }), "callback_metadata.1"),
        (json!({ "variables": { "v": { "values": ["a", "a"], "metadata": true } } }), "variables.v.values.1"),
    ] {
        check(&value, field);
        let mut stored = body();
        stored.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        assert!(serde_json::from_value::<IntegrationOauthConfig<String>>(stored).is_ok(), "stored before: {value}");
    }
    let usual = json!({ "reconnect": "any", "revoke_replaced": false, "revocation_method": "POST",
        "client_key_alg": "RS256", "basic_encoding": "form", "client_secrets": [] });
    assert!(config(&usual).is_ok(), "defaults may be written out");
}

#[test]
fn a4_an_error_about_a_placeholder_lists_the_allowed_ones() {
    let error = |field: &str, place: &str| {
        let mut request = good("https://${shop}.acme.example/me");
        request[place] = json!({ "x": "${canary}" });
        if field == "identity" {
            request["id"] = json!("id");
        }
        let more = json!({ field: request, "variables": { "shop": { "pattern": "[a-z]+" } } });
        config(&more).unwrap_err().to_string()
    };
    let of_request = "`${shop}`, `${scope}`, `${redirect_url}`, `${nonce}`";
    let start = |field: &str| format!("{field}.x must be a text in which every `${{…}}` is one of {of_request}");
    assert_eq!(error("identity", "params"), start("identity.params"));
    assert_eq!(error("identity", "headers"), format!("{}, `${{access_token}}`", start("identity.headers")));
    let of_client = ", `${access_token}`, `${client_id}`, `${client_secret}`";
    assert_eq!(error("upgrade", "params"), format!("{}{of_client}", start("upgrade.params")));
}

#[test]
fn a4_api_requests_name_their_hosts_headers_and_placeholders() {
    let with = |more: Value| {
        let mut request = good("https://api.example/me");
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for url in
        ["http://api.example/", "https://u@api.example/", "/me", "https://${v}/me", "https://${x}.api.example/me"]
    {
        check(&json!({ "upgrade": good(url) }), "upgrade.url");
    }
    for header in ["Host", "Cookie", "Content-Type", "Transfer-Encoding"] {
        check(
            &json!({ "upgrade": with(json!({ "headers": { header: "canary" } })) }),
            &format!("upgrade.headers.{header}"),
        );
    }
    for value in ["canary\r\nx: y", "${client_secret}", "${canary}", "${", "${access_token"] {
        check(&json!({ "upgrade": with(json!({ "headers": { "X-A": value } })) }), "upgrade.headers.X-A");
    }
    let identity = |more: Value| {
        let mut identity = with(more);
        identity["id"] = json!("id");
        json!({ "identity": identity })
    };
    for value in ["${access_token}", "${client_secret}", "${canary}"] {
        check(&identity(json!({ "params": { "a": value } })), "identity.params.a");
        check(&identity(json!({ "method": "POST", "body": { "a": [{ "b": value }] } })), "identity.body.a.0.b");
    }
    check(&identity(json!({ "body": {} })), "identity.body");
    for body in [json!({ "${access_token}": 1 }), json!({ "a": [{ "${x}": "b" }] })] {
        check(&identity(json!({ "method": "POST", "body": body })), "identity.body");
    }
    check(&identity(json!({ "issuer": "https://id.example" })), "identity.issuer");
    for issuer in ["${canary}", "${scope}", "${access_token}", "{tid", "tid}", "{a}}", "{a{b}}", "{}"] {
        check(
            &json!({ "identity": { "id": "sub", "issuer": format!("https://id.example/{issuer}") } }),
            "identity.issuer",
        );
    }
    check(&identity(json!({ "method": "POST", "body": {}, "params": { "a": "b" } })), "identity.body");
    check(&identity(json!({ "token_param": "a", "params": { "a": "b" } })), "identity.token_param");
    check(&json!({ "identity": { "id": "a..b" } }), "identity.id");
    check(&json!({ "identity": { "id": "id", "label": "data.0.access_token" } }), "identity.label");
    for path in ["data.0.access_token", "id_token", "code"] {
        let request = json!({ "url": "https://api.example/me", "paths": [path] });
        check(&json!({ "metadata_request": request }), "metadata_request.paths.0");
    }
    let long = json!({ "id": "id", "issuer": "canary".repeat(1_000) });
    check(&json!({ "identity": long }), "identity");
}

#[test]
fn a4_metadata_without_a_request_is_in_the_id_token_of_the_identity() {
    let claims = json!({ "paths": ["hd", "org.id"] });
    let with = |identity: Value| json!({ "identity": identity, "metadata_request": claims });
    let of_token = with(json!({ "id": "sub", "issuer": "https://id.example" }));
    let parsed = config(&of_token).unwrap();
    assert_eq!(parsed.metadata_request.as_ref().unwrap().paths, ["hd", "org.id"]);
    assert!(parsed.login_requests(&BTreeMap::new()).unwrap().metadata.is_none(), "no request to repeat");
    for identity in [json!({ "id": "sub" }), json!({ "id": "id", "url": "https://api.example/me" })] {
        check(&with(identity), "metadata_request.url");
    }
    check(&json!({ "metadata_request": claims }), "metadata_request.url");
    for field in ["method", "token_param", "headers", "params", "body"] {
        let value = match field {
            "method" => json!("POST"),
            "token_param" => json!("canary"),
            _ => json!({}),
        };
        let mut fields = of_token.clone();
        fields["metadata_request"][field] = value;
        check(&fields, "metadata_request.url");
    }
}
