//! API keys over HTTP: made, listed, revoked, by admins and for their own account.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::ask::{Answer, ask, get, ids, new_account};
use crate::bus::Bus;
use crate::fleet::eventually;
use crate::provider::Provider;
use crate::support::tokenbus::{ACCOUNT, Tokenbus};
use crate::world::World;

async fn world() -> World {
    World::with(Provider::generous().await).await
}

/// Sends a request to `/hub/api-keys` or a path below it.
async fn at_keys(tokenbus: &Tokenbus, method: Method, key: &str, rest: &str, body: Option<&Value>) -> Answer {
    let request = tokenbus.request(method, &format!("hub/api-keys{rest}")).header("x-api-key", key);
    ask(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

/// A new key: its id and itself.
async fn made(tokenbus: &Tokenbus, admin: &str, body: Value) -> (String, String) {
    let answer = at_keys(tokenbus, Method::POST, admin, "", Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let made = answer.json();
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    (text("id"), text("key"))
}

async fn listed(tokenbus: &Tokenbus, admin: &str) -> Value {
    at_keys(tokenbus, Method::GET, admin, "?limit=1000", None).await.json()
}

/// The entry of a key in the list.
async fn entry(tokenbus: &Tokenbus, id: &str) -> Option<Value> {
    let page = listed(tokenbus, &tokenbus.admin_key).await;
    page["results"].as_array().expect("a list").iter().find(|entry| entry["id"] == id).cloned()
}

async fn is_valid(tokenbus: &Tokenbus, key: &str) -> bool {
    let answer = get(tokenbus, key, "oauth-connections").await;
    assert!([200, 401].contains(&answer.status), "{}", answer.text);
    answer.status == 200
}

/// The id within a key.
fn id_of(key: &str) -> &str {
    key.split('_').nth(1).expect("a key has an id")
}

#[tokio::test]
async fn g2_a_key_is_created_listed_and_revoked_and_each_change_has_an_event() {
    let world = World::with_settings(Provider::generous().await, &[("LOG__FILTER", "trace")]).await;
    let (tokenbus, admin) = (&world.tokenbus, &world.tokenbus.admin_key);
    let wanted = json!({ "name": "billing", "expires_days": 3, "rate_limit": 50 });
    let answer = at_keys(tokenbus, Method::POST, admin, "", Some(&wanted)).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{}", answer.text);
    let made = answer.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(is_valid(tokenbus, key).await);

    let entry = entry(tokenbus, id).await.expect("a new key is listed");
    for (field, expected) in [("account", ACCOUNT), ("role", "member"), ("name", "billing")] {
        assert_eq!(entry[field], expected);
    }
    assert_eq!(entry["rate_limit"], 50);
    for field in ["created", "expires"] {
        assert_eq!(entry[field], made[field]);
    }
    let all = listed(tokenbus, admin).await.to_string();
    for key in [key, admin, &tokenbus.key] {
        assert!(all.contains(id_of(key)) && !all.contains(key.splitn(3, '_').nth(2).unwrap()), "{all}");
    }
    assert!(!all.contains("hash"), "{all}");

    let path = format!("/{id}");
    let revoked = at_keys(tokenbus, Method::DELETE, admin, &path, None).await;
    assert_eq!((revoked.status, revoked.json()), (200, json!({ "message": "success" })));
    eventually("the key is refused", async || !is_valid(tokenbus, key).await).await;
    assert!(super::api_keys::entry(tokenbus, id).await.is_none());
    for gone in [path.as_str(), "/ffffffffffff", "/x", "/*", "/%3E", key] {
        let gone = if gone.starts_with('/') { gone.to_owned() } else { format!("/{gone}") };
        at_keys(tokenbus, Method::DELETE, admin, &gone, None).await.assert_error(404, "no API key with that id");
    }

    let bus = Bus::of(&tokenbus.nats).await;
    for (name, who) in [("api_key_created", admin), ("api_key_revoked", admin)] {
        let subject = format!("ms.oauth.{ACCOUNT}.event._._.{name}");
        assert!(bus.messages("OAUTH_EVENTS").await.iter().any(|event| event.subject.as_str() == subject));
        let events = bus.events(name).await;
        let event = events.iter().find(|event| event["key_id"] == id).unwrap_or_else(|| panic!("{events:?}"));
        assert_eq!((&event["account"], &event["actor"]), (&json!(ACCOUNT), &json!(format!("key:{}", id_of(who)))));
        assert!(!event.to_string().contains(key.splitn(3, '_').nth(2).unwrap()), "{event}");
    }
    let log = tokenbus.log();
    assert!(log.contains("/hub/api-keys/{key_id}"), "{log}");
    for key in [key, admin] {
        assert!(!log.contains(key.splitn(3, '_').nth(2).unwrap()), "a key is in the log");
    }
    let created = tokenbus.tool(&["api-keys", "create", "--account", ACCOUNT]).await;
    let by_cli = bus.events("api_key_created").await;
    assert!(
        by_cli.iter().any(|event| event["actor"] == "cli" && event["key_id"] == id_of(created.trim())),
        "{by_cli:?}"
    );
}

#[tokio::test]
async fn key_lists_have_pages() {
    let world = world().await;
    let (tokenbus, admin) = (&world.tokenbus, &world.tokenbus.admin_key);
    let mut expected = vec![id_of(admin).to_owned(), id_of(&tokenbus.key).to_owned()];
    for _ in 0..3 {
        expected.push(made(tokenbus, admin, json!({})).await.0);
    }
    expected.sort();
    let first = at_keys(tokenbus, Method::GET, admin, "?limit=3", None).await.json();
    let cursor = first["next_cursor"].as_str().expect("there is more");
    let rest = at_keys(tokenbus, Method::GET, admin, &format!("?limit=3&cursor={cursor}"), None).await.json();
    assert_eq!([ids(&first, "id"), ids(&rest, "id")].concat(), expected);
    assert_eq!((&first["results_total"], &rest["results_total"]), (&json!(5), &json!(5)));
    assert!(rest.get("next_cursor").is_none(), "{rest}");
}

#[tokio::test]
async fn e4_keys_of_another_account_are_neither_seen_nor_revoked() {
    let other = new_account();
    let admins = json!([ACCOUNT, other]).to_string();
    let world = World::with_settings(Provider::generous().await, &[("AUTH__ADMIN_ACCOUNTS", &admins)]).await;
    let tokenbus = &world.tokenbus;
    let theirs = tokenbus.api_key(&other, "admin").await;
    assert_eq!(ids(&listed(tokenbus, &theirs).await, "id"), [id_of(&theirs)]);
    assert!(!listed(tokenbus, &tokenbus.admin_key).await.to_string().contains(id_of(&theirs)));
    let mine = format!("/{}", id_of(&tokenbus.key));
    at_keys(tokenbus, Method::DELETE, &theirs, &mine, None).await.assert_error(404, "no API key with that id");
    assert!(is_valid(tokenbus, &tokenbus.key).await);
    // A new key belongs to the credential's account, and the answer names it.
    let (_, new) = made(tokenbus, &theirs, json!({ "role": "admin" })).await;
    assert_eq!(ids(&listed(tokenbus, &new).await, "id").len(), 2);
    // A global admin may name another account, whose keys it still does not see.
    let (id, _) = made(tokenbus, &theirs, json!({ "account": ACCOUNT })).await;
    assert!(!listed(tokenbus, &theirs).await.to_string().contains(&id));
    assert!(listed(tokenbus, &tokenbus.admin_key).await.to_string().contains(&id));
}

#[tokio::test]
async fn only_admins_of_listed_accounts_manage_keys() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let unlisted = tokenbus.api_key(&new_account(), "admin").await;
    let own = format!("/{}", id_of(&tokenbus.key));
    let (no_scope, no_account) = ("the credential lacks the scope `keys:write`", "only admins may do this");
    for (key, error) in [(&tokenbus.key, no_scope), (&unlisted, no_account)] {
        for (method, rest, body) in
            [(Method::GET, "", None), (Method::POST, "", Some(json!({}))), (Method::DELETE, own.as_str(), None)]
        {
            let answer = at_keys(tokenbus, method, key, rest, body.as_ref()).await;
            answer.assert_error(401, error);
        }
    }
    let open = ask(tokenbus.request(Method::GET, "hub/api-keys")).await;
    open.assert_error(401, "X-Api-Key");
    assert!(is_valid(tokenbus, &tokenbus.key).await);
}

#[tokio::test]
async fn invalid_key_requests_are_refused() {
    let world = world().await;
    let (tokenbus, admin) = (&world.tokenbus, &world.tokenbus.admin_key);
    for (body, error) in [
        (json!([]), "JSON object"),
        (json!({ "expires_days": 0 }), "expires_days must be 1 to 3650"),
        (json!({ "expires_days": 3651 }), "expires_days must be 1 to 3650"),
        (json!({ "expires_days": -1 }), "invalid value"),
        (json!({ "rate_limit": 0 }), "invalid value"),
        (json!({ "role": "root" }), "unknown variant"),
        (json!({ "name": "a\u{1b}[2J" }), "control characters"),
        (json!({ "name": "a".repeat(129) }), "at most 128"),
        (json!({ "names": "a" }), "unknown field"),
    ] {
        at_keys(tokenbus, Method::POST, admin, "", Some(&body)).await.assert_error(400, error);
    }
    let post = tokenbus.request(Method::POST, "hub/api-keys").header("x-api-key", admin);
    ask(post.body("{")).await.assert_error(400, "JSON object");
    assert_eq!(listed(tokenbus, admin).await["results_total"], 2);
}

#[tokio::test]
async fn g3_rate_limits_are_per_key() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let (_, key) = made(tokenbus, &tokenbus.admin_key, json!({ "rate_limit": 1 })).await;
    let answers = join_all((0..20).map(|_| get(tokenbus, &key, "oauth-connections"))).await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    let limited: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!limited.is_empty());
    for answer in limited {
        answer.assert_error(429, "too many requests with this credential");
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    }
    let others = join_all((0..20).map(|_| get(tokenbus, &tokenbus.key, "oauth-connections"))).await;
    assert!(others.iter().all(|answer| answer.status == 200));
    eventually("the key works again", async || get(tokenbus, &key, "oauth-connections").await.status == 200).await;
}

#[tokio::test]
async fn an_expired_key_is_refused_even_if_cached() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let (id, key) = made(tokenbus, &tokenbus.admin_key, json!({})).await;
    assert!(is_valid(tokenbus, &key).await);
    let client = tokenbus.nats.connect("setup").await;
    let bucket = async_nats::jetstream::new(client).get_key_value("oauth_api_keys").await.unwrap();
    let stored = bucket.get(&id).await.unwrap().expect("the key is there");
    let mut value: Value = serde_json::from_slice(&stored).unwrap();
    value["expires"] = json!("2020-01-01T00:00:00Z");
    bucket.put(&id, value.to_string().into()).await.unwrap();
    eventually("the key is refused", async || !is_valid(tokenbus, &key).await).await;
    assert_eq!(entry(tokenbus, &id).await.expect("it is still listed")["expires"], "2020-01-01T00:00:00Z");
    assert!(tokenbus.tool(&["api-keys", "list"]).await.contains("2020-01-01, expired"));
}

#[tokio::test]
async fn the_last_use_of_a_key_is_shown_and_rarely_written() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let (id, key) = made(tokenbus, &tokenbus.admin_key, json!({})).await;
    assert!(entry(tokenbus, &id).await.unwrap().get("last_used").is_none());
    let bus = Bus::of(&tokenbus.nats).await;
    let before = bus.last_sequence("KV_oauth_api_keys").await;
    for _ in 0..20 {
        assert!(is_valid(tokenbus, &key).await);
    }
    let noted = async || entry(tokenbus, &id).await.unwrap().get("last_used").is_some();
    eventually("the last use is stored", noted).await;
    // The last use of this key, and possibly of the admin's.
    let written = bus.last_sequence("KV_oauth_api_keys").await - before;
    assert!((1..=2).contains(&written), "{written}");
}

#[tokio::test]
async fn writing_the_last_use_does_not_revive_a_revoked_key() {
    let world = world().await;
    let (tokenbus, admin) = (&world.tokenbus, &world.tokenbus.admin_key);
    let mut revoked = Vec::new();
    for _ in 0..20 {
        let (id, key) = made(tokenbus, admin, json!({})).await;
        let path = format!("/{id}");
        let (_, answer) = tokio::join!(is_valid(tokenbus, &key), at_keys(tokenbus, Method::DELETE, admin, &path, None));
        assert_eq!(answer.status, 200, "{}", answer.text);
        revoked.push(key);
    }
    // Last uses are written one after another: when a later one is stored, all earlier ones have been decided.
    let (id, key) = made(tokenbus, admin, json!({})).await;
    assert!(is_valid(tokenbus, &key).await);
    let noted = async || entry(tokenbus, &id).await.unwrap().get("last_used").is_some();
    eventually("a later use is stored", noted).await;
    let list = listed(tokenbus, admin).await.to_string();
    for key in revoked {
        assert!(!list.contains(id_of(&key)), "{list}");
        eventually("a revoked key is refused", async || !is_valid(tokenbus, &key).await).await;
    }
}

#[tokio::test]
async fn lists_are_complete_during_concurrent_writes() {
    let world = world().await;
    let (tokenbus, admin) = (&world.tokenbus, &world.tokenbus.admin_key);
    for _ in 0..3 {
        made(tokenbus, admin, json!({})).await;
    }
    let before = Bus::of(&tokenbus.nats).await.messages("KV_oauth_api_keys").await;
    let writer = async_nats::jetstream::new(tokenbus.nats.connect("worker").await);
    let write = async {
        loop {
            let all = before.iter().map(|entry| writer.publish(entry.subject.clone(), entry.payload.clone()));
            for ack in join_all(all).await {
                ack.expect("the bus is there").await.expect("the bucket takes it");
            }
        }
    };
    let read = async {
        for _ in 0..50 {
            assert_eq!(listed(tokenbus, admin).await["results_total"], 5);
        }
    };
    tokio::select! {
        () = read => {}
        never = write => never,
    }
}
