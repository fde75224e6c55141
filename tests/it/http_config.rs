//! Integrations' configs: permission to write them, valid fields, and the fields that answers show.

use async_nats::jetstream;
use reqwest::Method;
use serde_json::{Value, json};

use crate::ask::{Answer, ask, get, ids, new_account, send};
use crate::provider::Provider;
use crate::support::tokenbus::Tokenbus;
use crate::world::{INTEGRATION, World};

const SUCCESS: &str = r#"{"message":"success"}"#;

async fn world() -> World {
    World::with(Provider::generous().await).await
}

/// The answer to a PUT of that config by an admin.
async fn put(world: &World, integration: &str, config: &Value) -> Answer {
    put_text(world, integration, config.to_string()).await
}

async fn put_text(world: &World, integration: &str, body: String) -> Answer {
    let tokenbus = &world.tokenbus;
    let request = tokenbus.request(Method::PUT, &path(integration)).header("x-api-key", &tokenbus.admin_key);
    ask(request.body(body)).await
}

fn path(integration: &str) -> String {
    format!("hub/integrations/{integration}/oauth-config")
}

/// The world's config with one field changed; null removes it.
fn with(world: &World, field: &str, value: Value) -> Value {
    let mut config = world.config();
    let fields = config.as_object_mut().expect("a config is an object");
    if value.is_null() {
        fields.remove(field)
    } else {
        fields.insert(field.to_owned(), value)
    };
    config
}

#[tokio::test]
async fn a_config_is_put_read_listed_replaced_and_deleted() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let basic = json!({
        "integration_id": INTEGRATION, "name": "Odd", "scopes": "read,write",
        "subject": format!("ms.integration.oauth.config.{INTEGRATION}"),
    });
    for path in ["odd/oauth-config", "oauth-config/odd"] {
        let answer = get(tokenbus, &tokenbus.key, path).await;
        assert_eq!((answer.status, answer.json()), (200, basic.clone()));
    }
    let list = get(tokenbus, &tokenbus.key, "oauth-config").await;
    assert_eq!((list.status, list.json()), (200, json!({ "results": [basic], "results_total": 1 })));

    for path in ["odd/oauth-config?settings=true", "oauth-config/odd?settings=true"] {
        assert_eq!(get(tokenbus, &tokenbus.key, path).await.json(), basic, "only an admin sees URLs");
        let shown = get(tokenbus, &tokenbus.admin_key, path).await;
        assert!(!shown.text.contains("canary"), "{}", shown.text);
        let settings = &shown.json()["settings"];
        let of_config = world.config();
        for field in ["auth_url", "token_url", "redirect_url", "client_id", "scopes"] {
            assert_eq!(settings[field], of_config[field], "{field}");
        }
        assert_eq!((&settings["client_secret"], &settings["token_method"]), (&json!("set"), &json!("POST")));
    }
    assert_eq!(get(tokenbus, &tokenbus.admin_key, "odd/oauth-config?settings=false").await.json(), basic);
    get(tokenbus, &tokenbus.key, "odd/oauth-config?settings=1").await.assert_error(400, "settings must be");
    let replaced = put(&world, INTEGRATION, &with(&world, "name", json!("Odder"))).await;
    assert_eq!((replaced.status, replaced.text.as_str()), (200, SUCCESS));
    assert_eq!(get(tokenbus, &tokenbus.key, "odd/oauth-config").await.json()["name"], "Odder");

    assert_eq!(world.connect("kept").await.0, 200);
    let deleted = send(tokenbus, Method::DELETE, &tokenbus.admin_key, "odd/oauth-config").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, SUCCESS));
    for path in ["odd/oauth-config", "oauth-config/odd", "odd/oauth-login/one"] {
        get(tokenbus, &tokenbus.key, path).await.assert_error(404, "no config");
    }
    assert_eq!(get(tokenbus, &tokenbus.key, "oauth-config").await.json()["results_total"], 0);
    let kept = world.read("kept").await;
    assert_eq!((kept.0.as_u16(), &kept.1["access_token"]), (200, &json!("at-0")));
    send(tokenbus, Method::DELETE, &tokenbus.admin_key, "odd/oauth-config").await.assert_error(400, "no config");

    assert_eq!(put(&world, INTEGRATION, &world.config()).await.status, 200);
    assert_eq!(get(tokenbus, &tokenbus.key, "odd/oauth-config").await.status, 200);
}

#[tokio::test]
async fn an_invalid_config_is_400_and_changes_nothing() {
    let world = world().await;
    for body in ["", "{", "[]", "null", "\"text\"", "\u{0}"] {
        assert_eq!(put_text(&world, INTEGRATION, body.to_owned()).await.status, 400, "{body}");
    }
    for (field, value, error) in [
        ("client_id", Value::Null, "missing field: client_id"),
        ("token_url", Value::Null, "missing field: token_url"),
        ("client_idd", json!("x"), "unknown field: client_idd"),
        ("name", json!(7), "name must be"),
        ("scopes", json!(["read"]), "scopes must be"),
        ("integration_id", json!("other"), "integration_id"),
        ("pkce", json!("plain"), "pkce must be"),
        ("auth_url", json!("https://provider.example/authorize#top"), "auth_url must be"),
        ("token_url", json!("https://provider.example/token#top"), "token_url must be"),
        ("redirect_url", json!("https://hub.example/callback#top"), "redirect_url must be"),
        ("auth_url", json!("/authorize"), "auth_url must be"),
        ("token_url", json!("http://provider.example/token"), "token_url must be"),
        ("redirect_url", json!("javascript:alert(1)"), "redirect_url must be"),
    ] {
        let answer = put(&world, INTEGRATION, &with(&world, field, value)).await;
        answer.assert_error(400, error);
        assert!(!answer.text.contains("canary"), "{}", answer.text);
    }
    let config = get(&world.tokenbus, &world.tokenbus.key, "odd/oauth-config").await.json();
    assert_eq!(config["name"], "Odd");
}

#[tokio::test]
async fn h17_a_variable_never_chooses_a_host_under_a_public_suffix() {
    let world = world().await;
    let (tokenbus, mut config) = (&world.tokenbus, world.config());
    for (host, shared, problem) in [
        ("${v}.github.io", false, Some("`shared_suffix`")),
        ("${v}.github.io", true, None),
        ("${v}.co.uk", true, Some("public suffix")),
        ("${v}.amazonaws.com", false, None),
    ] {
        config["token_url"] = json!(format!("https://{host}/token"));
        config["variables"] = json!({ "v": { "pattern": "[a-z0-9.]+" } });
        if shared {
            config["variables"]["v"]["shared_suffix"] = json!(true);
        }
        let answer = put(&world, INTEGRATION, &config).await;
        match problem {
            Some(problem) => answer.assert_error(400, problem),
            None => assert_eq!(answer.status, 200, "{host}: {}", answer.text),
        }
    }
    for (value, status) in [("acme", 200), ("s3", 400), ("evil.s3", 400)] {
        let answer = get(tokenbus, &tokenbus.key, &format!("odd/oauth-login/one?var.v={value}")).await;
        assert_eq!(answer.status, status, "{value}: {}", answer.text);
    }
}

#[tokio::test]
async fn c1_plain_http_is_refused_on_loopback_too_unless_it_is_allowed() {
    let tokenbus = Tokenbus::start(&[("OAUTH__ALLOW_INSECURE_URLS", "false")]).await;
    let mut config = json!({
        "integration_id": "odd", "name": "Odd", "scopes": "read", "client_id": "client", "client_secret": "s",
        "auth_url": "https://provider.example/authorize", "token_url": "https://provider.example/token",
        "redirect_url": "https://hub.example/callback",
    });
    tokenbus.configure(&config).await;
    for field in ["auth_url", "token_url", "redirect_url"] {
        let fine = config[field].clone();
        config[field] = json!("http://127.0.0.1:8080/x");
        let request = tokenbus.request(Method::PUT, &path("odd")).header("x-api-key", &tokenbus.admin_key);
        ask(request.json(&config)).await.assert_error(400, field);
        config[field] = fine;
    }
}

#[tokio::test]
async fn e4_names_that_could_widen_a_subject_are_refused() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    for name in ["a.b", "%2A", "%3E", "a%20b", "a%2Fb", "%C3%BC", "a%00", "oauth-x", "-a", "a%2Eb", &"a".repeat(65)] {
        let mut answers = vec![
            put(&world, name, &world.config()).await,
            send(tokenbus, Method::DELETE, &tokenbus.admin_key, &format!("{name}/oauth-config")).await,
        ];
        for path in ["oauth-config", "oauth-login/one", "oauth-token/one", "oauth-connections"] {
            answers.push(get(tokenbus, &tokenbus.key, &format!("{name}/{path}")).await);
        }
        for answer in answers {
            assert_eq!(answer.status, 400, "{name}: {}", answer.text);
        }
        if name != "oauth-x" {
            for path in ["oauth-login", "oauth-token"] {
                let answer = get(tokenbus, &tokenbus.key, &format!("odd/{path}/{name}")).await;
                assert_eq!(answer.status, 400, "{name}: {}", answer.text);
            }
        }
    }
}

#[tokio::test]
async fn a_request_needs_exactly_one_valid_and_unexpired_credential() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let expired = expired(tokenbus).await;
    let request = || tokenbus.request(Method::GET, "hub/integrations/oauth-config");
    for (case, request) in [
        ("none", request()),
        ("unknown", request().header("x-api-key", format!("tb_0123456789ab_{}", "s".repeat(43)))),
        ("no key", request().header("x-api-key", "secret")),
        ("empty", request().header("x-api-key", "")),
        ("another secret", request().header("x-api-key", with_wrong_secret(&tokenbus.key))),
        ("expired", request().header("x-api-key", expired)),
        ("no JWT", request().header("authorization", "Bearer nonsense")),
        ("Basic", request().header("authorization", "Basic dXNlcjpwdw==")),
    ] {
        let answer = ask(request).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{case}: {}", answer.text);
    }
    let both = request().header("x-api-key", &tokenbus.key).header("authorization", "Bearer a.b.c");
    ask(both).await.assert_error(400, "both");
    let doubled = request().header("x-api-key", &tokenbus.key).header("x-api-key", &tokenbus.key);
    ask(doubled).await.assert_error(400, "twice");
}

#[tokio::test]
async fn only_admins_of_listed_accounts_may_write() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let elsewhere = tokenbus.api_key(&new_account(), "admin").await;
    for key in [&tokenbus.key, &elsewhere] {
        let request = tokenbus.request(Method::PUT, &path("odd")).header("x-api-key", key);
        ask(request.json(&with(&world, "name", json!("Stolen")))).await.assert_error(401, "only admins");
        send(tokenbus, Method::DELETE, key, "odd/oauth-config").await.assert_error(401, "only admins");
    }
    let open = tokenbus.request(Method::PUT, &path("odd")).json(&world.config());
    assert_eq!(ask(open).await.status, 401);
    assert_eq!(get(tokenbus, &elsewhere, "odd/oauth-config").await.json()["name"], "Odd");
}

#[tokio::test]
async fn no_answer_contains_a_secret_or_a_url() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let answers = [
        put(&world, INTEGRATION, &world.config()).await,
        put(&world, INTEGRATION, &with(&world, "client_secrets", json!("canary-too"))).await,
        get(tokenbus, &tokenbus.admin_key, "odd/oauth-config").await,
        get(tokenbus, &tokenbus.admin_key, "oauth-config").await,
        send(tokenbus, Method::DELETE, &tokenbus.admin_key, "odd/oauth-config").await,
    ];
    for answer in answers {
        assert!(!answer.text.contains("canary") && !answer.text.contains("http"), "{}", answer.text);
    }
    assert!(!tokenbus.log().contains("canary"));
}

#[tokio::test]
async fn config_lists_have_pages_and_a_total() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    for name in ["a", "b", "c", "d"] {
        assert_eq!(put(&world, name, &with(&world, "integration_id", json!(name))).await.status, 200);
    }
    let first = get(tokenbus, &tokenbus.key, "oauth-config?limit=2").await.json();
    assert_eq!((ids(&first, "integration_id"), &first["results_total"]), (vec!["a".into(), "b".into()], &json!(5)));
    let cursor = first["next_cursor"].as_str().expect("there is more").to_owned();
    let rest = get(tokenbus, &tokenbus.key, &format!("oauth-config?limit=3&cursor={cursor}")).await.json();
    assert_eq!((ids(&rest, "integration_id").join(" "), &rest["results_total"]), ("c d odd".into(), &json!(5)));
    assert!(rest.get("next_cursor").is_none(), "{rest}");
    for query in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=", "cursor=!", "page=2", "limit=1&limit=2"] {
        let answer = get(tokenbus, &tokenbus.key, &format!("oauth-config?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
    }
}

/// The key with another secret part.
fn with_wrong_secret(key: &str) -> String {
    let last = if key.ends_with('A') { 'B' } else { 'A' };
    format!("{}{last}", &key[..key.len() - 1])
}

/// An expired key.
async fn expired(tokenbus: &Tokenbus) -> String {
    let key = tokenbus.api_key(&new_account(), "member").await;
    let id = key.split('_').nth(1).expect("a key has an id");
    let subject = format!("$KV.oauth_api_keys.{id}");
    let jetstream = jetstream::new(tokenbus.nats.connect("setup").await);
    let stream = jetstream.get_stream("KV_oauth_api_keys").await.expect("the bucket is there");
    let stored = stream.get_last_raw_message_by_subject(&subject).await.expect("the key is there");
    let mut value: Value = serde_json::from_slice(&stored.payload).expect("a key is kept in JSON");
    value["expires"] = json!("2020-01-01T00:00:00Z");
    let ack = jetstream.publish(subject, value.to_string().into()).await.expect("setup may write keys");
    ack.await.expect("the bucket takes it");
    key
}

#[tokio::test]
async fn a_config_with_a_duplicate_field_is_refused() {
    let world = World::with(Provider::generous().await).await;
    let config = world.config().to_string();
    let twice = [
        config.replacen('{', r#"{"client_id":"another","#, 1),
        config.replacen('{', r#"{"auth_params":{"a":"1","a":"2"},"#, 1),
    ];
    for body in twice {
        let put = world.tokenbus.request(Method::PUT, &format!("hub/integrations/{INTEGRATION}/oauth-config"));
        let answer = ask(put.header("x-api-key", &world.tokenbus.admin_key).body(body)).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.error().contains("duplicate field (line 1"), "{}", answer.text);
    }
}
