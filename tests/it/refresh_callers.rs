//! Concurrent callers of every kind, over HTTP and on the bus, that refresh or read near the expiry.

use std::time::Duration;

use async_nats::Client;
use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::world::{INTEGRATION, World};

/// Long enough for all callers to arrive before the provider answers the first.
const SLOW: Duration = Duration::from_secs(2);
const EACH: usize = 5;

/// Status and body of a request over HTTP.
async fn over_http(world: &World, path: &str) -> (String, Value) {
    let (status, body) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/{path}")).await;
    (status.as_str().to_owned(), body)
}

/// Status and body of a call on the bus.
async fn on_the_bus(node: &Client, call: &str, question: &Value) -> (String, Value) {
    let subject = format!("ms.oauth.{ACCOUNT}.{call}");
    let request = async_nats::client::Request::new().payload(question.to_string().into());
    let answer = node.send_request(subject, request.timeout(Some(Duration::from_mins(1)))).await.expect("an answer");
    let code = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    let code = code.map_or("200", |code| code.as_str()).to_owned();
    (code, serde_json::from_slice(&answer.payload).unwrap_or(Value::Null))
}

/// The answers to callers who refresh, and to readers who require a remaining lifetime of one day, by HTTP and bus.
async fn all(world: &World, node: &Client, name: &str) -> [Vec<(String, Value)>; 2] {
    let (refresh, read) = (format!("oauth-refresh-token/{name}"), format!("oauth-token/{name}?min_valid=86400"));
    let params = json!({ "integration_id": INTEGRATION, "connection_id": name });
    let soon = json!({ "integration_id": INTEGRATION, "connection_id": name, "min_valid": 86_400 });
    let refreshes = join(
        join_all((0..EACH).map(|_| over_http(world, &refresh))),
        join_all((0..EACH).map(|_| on_the_bus(node, "refresh", &params))),
    );
    let reads = join(
        join_all((0..EACH).map(|_| over_http(world, &read))),
        join_all((0..EACH).map(|_| on_the_bus(node, "token", &soon))),
    );
    let (refreshes, reads) = join(refreshes, reads).await;
    [refreshes, reads].map(|(http, bus)| [http, bus].concat())
}

#[tokio::test]
async fn d1_callers_of_every_kind_share_one_refresh_and_get_its_failure() {
    let provider = Provider::start(|number, received| match received.form().get("refresh_token").map(String::as_str) {
        None => Scripted::tokens(number),
        Some("rt-0") => Scripted::tokens(number).after(SLOW),
        Some(_) => Scripted::json(503, &json!({})).after(SLOW),
    })
    .await;
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "10m")]).await;
    for name in ["good", "bad"] {
        assert_eq!(world.connect(name).await.0, 200, "{name}");
        // A more recent record would answer the callers without a refresh.
        Bus::of(&world.tokenbus.nats).await.age(name, &world.tokenbus.keys_file()).await;
    }
    let node = world.tokenbus.nats.connect("demo").await;
    let (good, bad) = join(all(&world, &node, "good"), all(&world, &node, "bad")).await;

    let newest = good[0][0].1["sequence"].clone();
    for (status, body) in good.concat() {
        assert_eq!((status.as_str(), &body["sequence"]), ("200", &newest), "{body}");
        assert!(!["at-0", "at-1"].contains(&body["access_token"].as_str().expect("a token")), "{body}");
    }
    let [refreshes, reads] = bad;
    assert!(refreshes.iter().all(|(status, _)| status == "502"), "{refreshes:?}");
    for (status, body) in reads {
        assert_eq!((status.as_str(), &body["access_token"]), ("200", &json!("at-1")), "the old one, while it is good");
    }
    let sent = |token: &str| {
        world
            .provider
            .received()
            .iter()
            .filter(|received| received.form().get("refresh_token").is_some_and(|it| it == token))
            .count()
    };
    assert_eq!((sent("rt-0"), sent("rt-1")), (1, 1));
}
