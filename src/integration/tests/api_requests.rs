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
        json!({ "reconnect": "same_identity", "revoke_replaced": true, "identity": { "id": "sub" } }),
        json!({ "variables": { "v": { "pattern": "[a-z]+" } }, "token_url": "https://${v}.acme.example/t",
                "identity": { "url": "https://${v}.acme.example/me", "id": "id", "params": { "x": "${v}" } } }),
    ] {
        assert!(config(&value).is_ok(), "{value}: {:?}", config(&value).err());
    }
    let wrong = |field: &str, value: Value| check(&json!({ field: value }), field);
    for value in [json!("canary"), json!([]), json!({}), json!({ "id": 1 }), json!({ "id": "a", "canary": "b" })] {
        wrong("identity", value);
    }
    for value in [json!({ "id": "a", "params": { "x": "y" } }), json!({ "id": "a", "url": url, "method": "PUT" })] {
        wrong("identity", value);
    }
    wrong("metadata_request", json!({ "url": url }));
    wrong("upgrade", json!({ "url": url, "token_param": "canary" }));
    wrong("upgrade", json!({ "params": {} }));
    wrong("reconnect", json!("canary"));
    wrong("revoke_replaced", json!("true"));
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
        check(&identity(json!({ "method": "POST", "body": { "a": [{ "b": value }] } })), "identity.body");
    }
    check(&identity(json!({ "body": {} })), "identity.body");
    check(&identity(json!({ "method": "POST", "body": {}, "params": { "a": "b" } })), "identity.body");
    check(&identity(json!({ "token_param": "a", "params": { "a": "b" } })), "identity.token_param");
    check(&json!({ "identity": { "id": "a..b" } }), "identity.id");
    check(&json!({ "identity": { "id": "id", "label": "data.0.access_token" } }), "identity.label");
    for path in ["data.0.access_token", "id_token", "code"] {
        let request = json!({ "url": "https://api.example/me", "paths": [path] });
        check(&json!({ "metadata_request": request }), "metadata_request.paths");
    }
    let long = json!({ "id": "id", "issuer": "canary".repeat(1_000) });
    check(&json!({ "identity": long }), "identity");
    check(&json!({ "identity": { "id": [] } }), "identity.id");
}
