//! The calls of nodes on the bus, as the tenant's own NATS user makes them.

use std::time::Duration;

use async_nats::{Client, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::ask::new_account;
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::PATIENCE;
use crate::world::{INTEGRATION, World, state_of};

/// An answer of the micro service.
struct Answer {
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.as_str())
    }

    /// The code, empty for a success.
    fn code(&self) -> &str {
        self.header("Nats-Service-Error-Code")
    }
}

async fn ask(node: &Client, subject: String, payload: String) -> Answer {
    let answer = timeout(PATIENCE, node.request(subject, payload.into())).await.expect("in time").expect("an answer");
    let body = if answer.payload.is_empty() { Value::Null } else { serde_json::from_slice(&answer.payload).unwrap() };
    Answer { headers: answer.headers.unwrap_or_default(), body }
}

async fn call(node: &Client, call: &str, question: &Value) -> Answer {
    ask(node, format!("ms.oauth.{ACCOUNT}.{call}"), question.to_string()).await
}

fn params(name: &str) -> Value {
    json!({ "integration_id": INTEGRATION, "connection_id": name })
}

async fn connected(provider: Provider) -> (World, Client) {
    let world = World::with(provider).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let node = world.tokenbus.nats.connect("demo").await;
    (world, node)
}

#[tokio::test]
async fn e5_node_calls_return_the_same_as_the_gateway_without_the_refresh_token() {
    let (world, node) = connected(Provider::generous().await).await;
    let (_, mut shown) = world.read("one").await;
    assert_eq!(shown.as_object_mut().unwrap().remove("refresh_token"), Some(json!("rt-0")), "the gateway shows it");

    let token = call(&node, "token", &params("one")).await;
    assert_eq!((token.code(), &token.body), ("", &shown));
    let page = json!({ "results": [shown], "results_total": 1 });
    for question in ["", "{}", r#"{"integration_id": "odd"}"#] {
        let list = ask(&node, format!("ms.oauth.{ACCOUNT}.list"), question.to_owned()).await;
        assert_eq!((list.code(), &list.body), ("", &page), "{question}");
    }

    // Older than `refresh.min_interval` by then.
    let refreshed = timeout(PATIENCE, async {
        loop {
            let refreshed = call(&node, "refresh", &params("one")).await;
            assert_eq!(refreshed.code(), "", "{}", refreshed.header("Nats-Service-Error"));
            assert!(refreshed.body.get("refresh_token").is_none(), "{}", refreshed.body);
            if refreshed.body["access_token"] != "at-0" {
                return refreshed.body;
            }
        }
    })
    .await
    .expect("the provider is asked once the token is old enough");
    assert_eq!(refreshed["access_token"], "at-1");
    assert!(refreshed["sequence"].as_u64() > token.body["sequence"].as_u64());

    let login = call(&node, "login", &params("two")).await;
    let state = state_of(&login.body["oauth_url"]);
    let callback = world.callback(&[("code", "canary-code"), ("state", &state)]);
    assert_eq!(world.tokenbus.arrive(&callback).await.0, StatusCode::OK);
    assert_eq!(call(&node, "token", &params("two")).await.body["access_token"], "at-2");

    assert_eq!(call(&node, "delete", &params("two")).await.body, json!({ "message": "success" }));
    assert_eq!(call(&node, "token", &params("two")).await.code(), "404");
    let bus = crate::bus::Bus::of(&world.tokenbus.nats).await;
    let revoked = &bus.events("revoked").await[0];
    assert_eq!(revoked["actor"], format!("node:{ACCOUNT}"));
}

#[tokio::test]
async fn errors_of_node_calls_have_the_form_of_a_micro_service() {
    let tokens = json!({ "access_token": "at", "expires_in": 3600 });
    let (_world, node) = connected(Provider::start(move |_, _| Scripted::json(200, &tokens)).await).await;
    let node = &node;
    let check = async |name: &str, question: &str, code: &str, text: &str| {
        let answer = ask(node, format!("ms.oauth.{ACCOUNT}.{name}"), question.to_owned()).await;
        let said = answer.header("Nats-Service-Error").to_owned();
        assert_eq!((answer.code(), &answer.body), (code, &Value::Null), "{name} {question}: {said}");
        assert!(said.contains(text), "{name} {question}: {said}");
    };
    let unknown = params("unknown").to_string();
    check("token", &unknown, "404", "no connection").await;
    check("refresh", &unknown, "404", "no connection").await;
    check("delete", &unknown, "404", "no connection").await;
    check("refresh", &params("one").to_string(), "400", "no refresh token").await;
    check("login", r#"{"integration_id": "unknown", "connection_id": "x"}"#, "404", "no config").await;
    let bound = json!({ "integration_id": "odd", "connection_id": "x", "bind": "browser" }).to_string();
    check("login", &bound, "400", "begins at the gateway").await;
    check("token", "", "400", "integration_id").await;
    check("token", "not JSON", "400", "expected").await;
    check("token", r#" ["odd", "one"]"#, "400", "a JSON object, not an array").await;
    check("list", "[]", "400", "a JSON object, not an array").await;
    check("token", r#"{"integration_id": "a.b", "connection_id": "x"}"#, "400", "integration_id must be").await;
    check("list", r#"{"limit": 0}"#, "400", "limit must be").await;
    let long = "a".repeat(1_000_000);
    check("list", &format!("{{\"{long}\": 0}}"), "413", "at most").await;
    let long = "a".repeat(60_000);
    check("list", &format!("{{\"{long}\": 0}}"), "400", "unknown field").await;
    check("token", &format!("{{\"integration_id\": \"{long}\"}}"), "400", "integration_id must be").await;
    // The highest cursor.
    let past_the_end =
        ask(node, format!("ms.oauth.{ACCOUNT}.list"), json!({ "cursor": "MTg0NDY3NDQwNzM3MDk1NTE2MTU" }).to_string());
    let past_the_end = past_the_end.await;
    assert_eq!((past_the_end.code(), &past_the_end.body["results"]), ("", &json!([])));
    check("list", "{\"a\\nNats-Service-Error-Code: 200\": 0}", "400", "unknown field").await;
}

#[tokio::test]
async fn e4_a_node_can_only_call_for_its_own_account() {
    let (world, node) = connected(Provider::generous().await).await;
    let other = new_account();
    for name in ["token", "list", "login", "refresh", "delete"] {
        let error = node.request(format!("ms.oauth.{other}.{name}"), "{}".into()).await.expect_err("no responder");
        assert_eq!(error.kind(), async_nats::client::RequestErrorKind::NoResponders, "{name}");
    }
    // A user who may call for any account still gets an error for an invalid account.
    let admin = world.tokenbus.nats.connect("admin").await;
    let answer = ask(&admin, "ms.oauth.unknown.list".to_owned(), "{}".to_owned()).await;
    assert_eq!(answer.code(), "400");
    let answer = ask(&admin, format!("ms.oauth.{other}.list"), "{}".to_owned()).await;
    assert_eq!(answer.body, json!({ "results": [], "results_total": 0 }));
}

#[tokio::test]
async fn operators_see_the_service_and_count_its_calls() {
    let (world, node) = connected(Provider::generous().await).await;
    assert_eq!(call(&node, "token", &params("one")).await.code(), "");
    assert_eq!(call(&node, "token", &params("unknown")).await.code(), "404");
    let operator = world.tokenbus.nats.connect("operator").await;
    let operator = &operator;
    let ask = async |what: &str| ask(operator, format!("$SRV.{what}.tokenbus"), String::new()).await.body;

    let ping = ask("PING").await;
    assert_eq!((&ping["name"], &ping["version"]), (&json!("tokenbus"), &json!(env!("CARGO_PKG_VERSION"))));
    let info = ask("INFO").await;
    let mut endpoints: Vec<_> = info["endpoints"].as_array().unwrap().iter().map(|it| it["subject"].clone()).collect();
    endpoints.sort_by_key(ToString::to_string);
    let names = ["delete", "failures", "list", "login", "refresh", "token"];
    let expected = names.map(|name| json!(format!("ms.oauth.*.{name}")));
    assert_eq!(endpoints, expected);

    // A successful call is counted after its answer.
    let stats = timeout(PATIENCE, async {
        loop {
            let stats = ask("STATS").await;
            if stats["endpoints"].as_array().unwrap().iter().any(|it| it["num_requests"] == 2) {
                return stats;
            }
        }
    });
    let stats = stats.await.expect("both calls are counted");
    let of = |name: &str| stats["endpoints"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
    let token = of("token");
    assert_eq!((&token["num_requests"], &token["num_errors"]), (&json!(2), &json!(1)), "{token}");
    assert!(token["processing_time"].as_u64() > Some(0), "{token}");
    assert!(token["last_error"].as_str().unwrap().starts_with("404:"), "{token}");
    assert_eq!((&of("list")["num_requests"], &token["queue_group"]), (&json!(0), &json!("tokenbus")));
}

/// The number of reads that the events hold, by actor.
async fn reads(world: &World, actor: &str) -> u64 {
    let events = crate::bus::Bus::of(&world.tokenbus.nats).await.events("read").await;
    let text = serde_json::to_string(&events).unwrap();
    assert!(!text.contains("at-") && !text.contains("rt-"), "{text}");
    let events = events.iter().filter(|event| event["actor"] == actor && event["connection_id"] == "one");
    events.map(|event| event["count"].as_u64().expect("a read event counts")).sum()
}

/// The actor name of this world's API key.
fn key_actor(world: &World) -> String {
    format!("key:{}", world.tokenbus.key.split('_').nth(1).unwrap())
}

#[tokio::test]
async fn g2_reads_are_counted_per_credential_and_connection() {
    let settings = [("EVENTS__READS_INTERVAL", "1s")];
    let world = World::with_settings(Provider::generous().await, &settings).await;
    for name in ["one", "two"] {
        assert_eq!(world.connect(name).await.0, StatusCode::OK);
    }
    let node = world.tokenbus.nats.connect("demo").await;
    for _ in 0..20 {
        assert_eq!(world.read("one").await.0, StatusCode::OK);
        assert_eq!(call(&node, "token", &params("one")).await.code(), "");
    }
    // A page returns tokens, too. A refused call returns none.
    assert_eq!(call(&node, "list", &json!({})).await.code(), "");
    assert_eq!(call(&node, "token", &params("unknown")).await.code(), "404");
    let (key, node) = (key_actor(&world), format!("node:{ACCOUNT}"));
    timeout(PATIENCE, async {
        while (reads(&world, &key).await, reads(&world, &node).await) != (20, 21) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("all reads are written down");
    let events = crate::bus::Bus::of(&world.tokenbus.nats).await.events("read").await;
    assert!(events.len() < 41, "they are not summed up: {events:?}");
    assert!(events.iter().all(|event| event["sequence"].as_u64() > Some(0)), "{events:?}");
}

#[tokio::test]
async fn g2_each_read_has_its_event_before_the_token_is_returned_if_configured() {
    let world = World::with_settings(Provider::generous().await, &[("EVENTS__READS", "all")]).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let (key, node) = (key_actor(&world), world.tokenbus.nats.connect("demo").await);
    for number in 1..=3 {
        assert_eq!(world.read("one").await.0, StatusCode::OK);
        assert_eq!(reads(&world, &key).await, number);
        assert_eq!(call(&node, "token", &params("one")).await.code(), "");
        assert_eq!(reads(&world, &format!("node:{ACCOUNT}")).await, number);
    }
    let list = world.tokenbus.call(Method::GET, "oauth-connections").await;
    assert_eq!((list.0, reads(&world, &key).await), (StatusCode::OK, 4));
}
