//! Scopes and networks of API keys: what a key may do, what its answers show, and which keys it makes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::ask::{Answer, ask, new_account, send};
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::{ACCOUNT, Tokenbus};
use crate::world::{INTEGRATION, World};

const ALL: [&str; 7] = [
    "connections:read",
    "tokens:read",
    "refresh_tokens:read",
    "connections:write",
    "configs:write",
    "keys:write",
    "audit:read",
];

/// Tokens that no other text contains.
async fn provider() -> Provider {
    Provider::start(|number, _| {
        let tokens = json!({
            "access_token": format!("canary-access-{number}"), "refresh_token": format!("canary-refresh-{number}"),
            "token_type": "Bearer", "expires_in": 3600,
        });
        Scripted::json(200, &tokens)
    })
    .await
}

async fn post(tokenbus: &Tokenbus, key: &str, body: Value) -> Answer {
    ask(tokenbus.request(Method::POST, "hub/api-keys").header("x-api-key", key).json(&body)).await
}

/// A new key that this key makes.
async fn made(tokenbus: &Tokenbus, key: &str, body: Value) -> Value {
    let answer = post(tokenbus, key, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn key_of(made: &Value) -> &str {
    made["key"].as_str().expect("a new key is shown")
}

/// All scopes but one.
fn without(left_out: &str) -> Vec<&'static str> {
    ALL.into_iter().filter(|scope| *scope != left_out).collect()
}

/// Each operation of the description, with names and a body that lead to an answer.
async fn operations(world: &World) -> Vec<(Method, String)> {
    let document = ask(world.tokenbus.request(Method::GET, "openapi.json")).await.json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{integration_id}", INTEGRATION).replace("{connection_id}", "one");
        let path = path.replace("{key_id}", "ffffffffffff");
        for method in methods.as_object().expect("methods").keys() {
            if let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes())
                && method != Method::from_bytes(b"PARAMETERS").expect("a name")
            {
                operations.push((method, path.clone()));
            }
        }
    }
    // A deletion last: the others need the connection.
    operations.sort_by_key(|(method, _)| *method == Method::DELETE);
    operations
}

#[tokio::test]
async fn h8_a_key_without_the_scope_sees_no_refresh_token_on_any_route() {
    let world = World::with(provider().await).await;
    let tokenbus = &world.tokenbus;
    assert_eq!(world.connect("one").await.0, 200);
    let made = made(tokenbus, &tokenbus.admin_key, json!({ "scopes": without("refresh_tokens:read") })).await;
    let key = key_of(&made);
    let seen = send(tokenbus, Method::GET, &tokenbus.admin_key, &format!("{INTEGRATION}/oauth-token/one")).await;
    assert!(seen.text.contains("canary-refresh-") && seen.text.contains("canary-access-"), "{}", seen.text);

    let (mut with_token, mut successes) = (0, 0);
    for (method, path) in operations(&world).await {
        let mut target = tokenbus.endpoint(path.trim_start_matches('/'));
        if path.ends_with("oauth-callback") {
            let login = world.login("one").await;
            target = world.callback(&[("code", "c"), ("state", &login.state)]);
        }
        let request = tokenbus.request(method.clone(), target.as_str()).header("x-api-key", key);
        let request = match (&method, path.as_str()) {
            (&Method::PUT, _) => request.json(&world.config()),
            (&Method::POST, "/hub/api-keys") => request.json(&json!({ "scopes": ["connections:read"] })),
            _ => request,
        };
        let answer = ask(request).await;
        assert!(!answer.text.contains("canary-refresh"), "{method} {path}: {}", answer.text);
        with_token += u32::from(answer.text.contains("canary-access"));
        successes += u32::from(answer.status == 200);
    }
    assert!(with_token >= 4 && successes >= 12, "{with_token} answers with a token, {successes} successes");
}

#[tokio::test]
async fn h8_each_call_needs_its_scope() {
    let world = World::with(provider().await).await;
    let tokenbus = &world.tokenbus;
    assert_eq!(world.connect("one").await.0, 200);
    let own = |path: &str| format!("hub/integrations/{INTEGRATION}/{path}");
    let table = [
        (Method::GET, "hub/integrations/oauth-connections".to_owned(), "connections:read"),
        (Method::GET, own("oauth-connections"), "connections:read"),
        (Method::GET, own("oauth-token/one"), "tokens:read"),
        (Method::GET, own("oauth-login/two"), "connections:write"),
        (Method::GET, own("oauth-refresh-token/one"), "connections:write"),
        (Method::PUT, own("oauth-config"), "configs:write"),
        (Method::GET, "hub/api-keys".to_owned(), "keys:write"),
        (Method::POST, "hub/api-keys".to_owned(), "keys:write"),
        (Method::DELETE, "hub/api-keys/ffffffffffff".to_owned(), "keys:write"),
        (Method::DELETE, own("oauth-connections/one"), "connections:write"),
    ];
    for (method, path, scope) in table {
        let send = async |scopes: Vec<&str>| {
            let made = made(tokenbus, &tokenbus.admin_key, json!({ "scopes": scopes })).await;
            let request = tokenbus.request(method.clone(), &path).header("x-api-key", key_of(&made));
            ask(match method {
                Method::PUT => request.json(&world.config()),
                Method::POST => request.json(&json!({ "scopes": [] })),
                _ => request,
            })
            .await
        };
        let refused = send(without(scope)).await;
        assert_eq!(refused.status, 401, "{method} {path}: {}", refused.text);
        let expected = if scope == "configs:write" { "only admins may change configs" } else { "lacks the scope" };
        assert!(refused.error().contains(expected), "{}", refused.text);
        let alone = send(vec![scope]).await;
        let expected = if path.contains("ffff") { 404 } else { 200 };
        assert_eq!(alone.status, expected, "{method} {path}: {}", alone.text);
        assert!(scope == "tokens:read" || !alone.text.contains("canary-"), "{method} {path}: {}", alone.text);
    }
}

#[tokio::test]
async fn h8_the_settings_say_which_scopes_members_have() {
    let members = json!(["connections:read", "tokens:read"]).to_string();
    let world = World::with_settings(provider().await, &[("AUTH__MEMBER_SCOPES", &members)]).await;
    let tokenbus = &world.tokenbus;
    let login = send(tokenbus, Method::GET, &tokenbus.key, &format!("{INTEGRATION}/oauth-login/one")).await;
    login.assert_error(401, "the credential lacks the scope `connections:write`");
    let login = send(tokenbus, Method::GET, &tokenbus.admin_key, &format!("{INTEGRATION}/oauth-login/one")).await;
    let state = crate::world::state_of(&login.json()["oauth_url"]);
    let (status, _) = tokenbus.arrive(&world.callback(&[("code", "c"), ("state", &state)])).await;
    assert_eq!(status, 200);
    let read = send(tokenbus, Method::GET, &tokenbus.key, &format!("{INTEGRATION}/oauth-token/one")).await;
    assert!(read.text.contains("canary-access") && !read.text.contains("canary-refresh"), "{}", read.text);

    let table = tokenbus.tool(&["api-keys", "list", "--json"]).await;
    let keys: Vec<Value> = table.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let scopes = |role: &str| &keys.iter().find(|key| key["role"] == role).expect("one of each")["scopes"];
    assert_eq!((scopes("member"), scopes("admin")), (&json!(["connections:read", "tokens:read"]), &json!(ALL)));
}

#[tokio::test]
async fn h8_no_key_makes_a_wider_key() {
    let world = World::with(provider().await).await;
    let tokenbus = &world.tokenbus;
    let narrow = json!({
        "scopes": ["keys:write", "connections:read"], "networks": ["127.0.0.0/8", "10.0.0.0/8"], "expires_days": 2,
    });
    let maker = made(tokenbus, &tokenbus.admin_key, narrow).await;
    assert!(maker.get("role").is_none(), "{maker}");
    for (body, error) in [
        (json!({}), "scopes that this credential lacks: tokens:read"),
        (json!({ "role": "admin" }), "scopes that this credential lacks"),
        (json!({ "role": "member", "scopes": [] }), "name either `role` or `scopes`"),
        (json!({ "scopes": ["tokens:read"] }), "scopes that this credential lacks: tokens:read"),
        (json!({ "scopes": ["root"] }), "unknown variant"),
        (json!({ "scopes": [], "networks": ["0.0.0.0/0"] }), "the network 0.0.0.0/0 is not within"),
        (json!({ "scopes": [], "networks": ["::1"] }), "the network ::1/128 is not within"),
        (json!({ "scopes": [], "networks": ["10.0.0.0/33"] }), "must be an address or a network"),
        (json!({ "scopes": [], "expires_days": 3 }), "outlive this credential"),
    ] {
        post(tokenbus, key_of(&maker), body).await.assert_error(400, error);
    }
    let child = made(tokenbus, key_of(&maker), json!({ "scopes": ["connections:read"] })).await;
    for field in ["networks", "expires"] {
        assert_eq!(child[field], maker[field], "{child}");
    }
    assert_eq!(child["scopes"], json!(["connections:read"]));
    let list = send(tokenbus, Method::GET, key_of(&child), "oauth-connections").await;
    assert_eq!(list.status, 200, "{}", list.text);
    let narrower = made(tokenbus, key_of(&maker), json!({ "scopes": [], "networks": ["10.1.0.0/16"] })).await;
    assert_eq!(narrower["networks"], json!(["10.1.0.0/16"]));
    send(tokenbus, Method::GET, key_of(&narrower), "oauth-config").await.assert_error(401, "not valid");
}

#[tokio::test]
async fn h8_a_key_with_networks_works_from_these_alone() {
    let settings = [("HTTP__TRUSTED_PROXIES", "[127.0.0.1]")];
    let world = World::with_settings(provider().await, &settings).await;
    let tokenbus = &world.tokenbus;
    let made = made(tokenbus, &tokenbus.admin_key, json!({ "role": "admin", "networks": ["192.0.2.0/24"] })).await;
    let from = async |client: Option<&str>, method: Method, path: &str| {
        let request = tokenbus.request(method.clone(), path).header("x-api-key", key_of(&made));
        let request = if let Some(client) = client { request.header("x-forwarded-for", client) } else { request };
        ask(if method == Method::PUT { request.json(&world.config()) } else { request }).await
    };
    let list = "hub/integrations/oauth-connections";
    let config = "hub/integrations/odd/oauth-config";
    for client in [None, Some("198.51.100.1"), Some("192.0.2.1, 198.51.100.1")] {
        from(client, Method::GET, list).await.assert_error(401, "the credential is not valid or has expired");
        from(client, Method::PUT, config).await.assert_error(401, "the credential is not valid or has expired");
    }
    for client in ["192.0.2.1", "198.51.100.1, 192.0.2.200"] {
        assert_eq!(from(Some(client), Method::GET, list).await.status, 200);
        assert_eq!(from(Some(client), Method::PUT, config).await.status, 200);
    }
    assert!(tokenbus.log().contains("in none of the API key's networks"));
}

#[tokio::test]
async fn an_accounts_own_admin_makes_keys_for_it_if_the_settings_say_so() {
    let (settings, other) = ([("AUTH__SELF_SERVICE_KEYS", "true")], new_account());
    let world = World::with_settings(provider().await, &settings).await;
    let tokenbus = &world.tokenbus;
    let admin = tokenbus.api_key(&other, "admin").await;
    let own = made(tokenbus, &admin, json!({ "name": "own" })).await;
    assert_eq!((&own["account"], &own["role"]), (&json!(other), &json!("member")));
    let list = ask(tokenbus.request(Method::GET, "hub/api-keys").header("x-api-key", &admin)).await.json();
    assert_eq!(list["results_total"], 2, "{list}");
    let revoke = format!("hub/api-keys/{}", own["id"].as_str().expect("an id"));
    let revoked = ask(tokenbus.request(Method::DELETE, &revoke).header("x-api-key", &admin)).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);

    post(tokenbus, &admin, json!({ "account": ACCOUNT })).await.assert_error(401, "only admins may do this");
    let put = tokenbus.request(Method::PUT, "hub/integrations/odd/oauth-config").header("x-api-key", &admin);
    ask(put.json(&world.config())).await.assert_error(401, "only admins may change configs");
    let member = tokenbus.api_key(&other, "member").await;
    post(tokenbus, &member, json!({})).await.assert_error(401, "lacks the scope `keys:write`");
    // A global admin makes keys for every account.
    let theirs = made(tokenbus, &tokenbus.admin_key, json!({ "account": other, "role": "admin" })).await;
    assert_eq!(theirs["account"], json!(other));
}

#[tokio::test]
async fn h8_the_command_line_creates_keys_with_scopes_and_networks() {
    let world = World::with(provider().await).await;
    let create = ["api-keys", "create", "--account", ACCOUNT, "--json"];
    let limits = ["--scopes", "connections:read,keys:write", "--networks", "10.1.2.3/8,192.0.2.1", "--expires", "5"];
    let created = world.tokenbus.tool(&[&create[..], &limits].concat()).await;
    let created: Value = serde_json::from_str(&created).expect("JSON");
    assert_eq!(created["scopes"], json!(["connections:read", "keys:write"]));
    assert_eq!(created["networks"], json!(["10.0.0.0/8", "192.0.2.1/32"]));
    let id = created["id"].as_str().expect("an id");
    let table = world.tokenbus.tool(&["api-keys", "list"]).await;
    assert!(table.contains(id) && table.contains("keys:write"), "{table}");
    let outside = send(&world.tokenbus, Method::GET, key_of(&created), "oauth-connections").await;
    outside.assert_error(401, "not valid");
}
