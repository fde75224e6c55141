//! Junk under keys and subjects of stored data, and an operator who tries to put it there: by the reply subjects of its
//! requests and by the deliver subjects of its consumers.

use std::time::Duration;

use async_nats::Client;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::bus::Bus;
use crate::fleet::eventually;
use crate::provider::Provider;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, read, settings};
use crate::world::World;

const CONFIG: &str = "$KV.oauth_configs.odd";

fn entry(connection: &str) -> String {
    format!("$KV.oauth_connections.{ACCOUNT}.odd.{connection}")
}

struct Operator {
    client: Client,
    bus: Bus,
}

impl Operator {
    async fn of(world: &World) -> Self {
        Self { client: world.tokenbus.nats.connect("operator").await, bus: Bus::of(&world.tokenbus.nats).await }
    }

    /// Stores a value that is no value of ours, as a writer that is not the program.
    async fn place_junk(&self, subject: &str, stream: &str) {
        let before = self.bus.last_sequence(stream).await;
        self.bus.client.publish(subject.to_owned(), r#"{"junk":true}"#.into()).await.expect("sent");
        eventually("the junk is stored", async || self.bus.last_sequence(stream).await > before).await;
    }

    async fn request(&self, subject: &str, question: &str) {
        let answer = self.client.request(subject.to_owned(), question.to_owned().into()).await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
    }
}

async fn change_config(world: &World, method: Method) -> (StatusCode, Value) {
    let request = world.tokenbus.request(method.clone(), "hub/integrations/odd/oauth-config");
    let request = request.header("x-api-key", &world.tokenbus.admin_key);
    let request = if method == Method::PUT { request.json(&world.config()) } else { request };
    read(request.send().await.expect("tokenbus answers")).await
}

/// Names of the connections on the first page of the list.
async fn listed(world: &World) -> Vec<String> {
    let (status, body) = world.tokenbus.call(Method::GET, "oauth-connections").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let subjects = body["results"].as_array().expect("a list").iter().map(|found| found["subject"].as_str());
    let mut names: Vec<String> =
        subjects.map(|subject| subject.unwrap().rsplit('.').next().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Output of `tokenbus doctor` as a worker.
async fn doctor(world: &World) -> String {
    let settings = settings(&world.tokenbus.nats, "worker", &world.tokenbus.keys_file());
    let output = Command::new(PROGRAM).arg("doctor").envs(settings).output().await.expect("the program starts");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn h12_junk_in_a_config_is_replaced_by_the_next_put_or_delete() {
    let world = World::with(Provider::generous().await).await;
    let operator = Operator::of(&world).await;
    for change in [Method::PUT, Method::DELETE] {
        for record_too in [false, true] {
            change_config(&world, Method::PUT).await;
            operator.place_junk(CONFIG, "KV_oauth_configs").await;
            if record_too {
                operator.place_junk("oauth.record.config.odd", "OAUTH").await;
                let (status, body) = world.tokenbus.call(Method::GET, "oauth-config").await;
                assert_eq!((status, &body["results"]), (StatusCode::OK, &json!([])), "{body}");
                assert_eq!(body["unreadable"], json!(["ms.integration.oauth.config.odd"]), "{body}");
            }
            let (status, body) = change_config(&world, change.clone()).await;
            assert_eq!(status, StatusCode::OK, "{change} record {record_too}: {body}");
            let (status, body) = change_config(&world, Method::PUT).await;
            assert_eq!(status, StatusCode::OK, "after {change} record {record_too}: {body}");
            assert_eq!(world.connect("one").await.0, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn h12_junk_in_connections_is_skipped_named_and_replaced() {
    let world = World::with(Provider::generous().await).await;
    let operator = Operator::of(&world).await;
    for name in ["one", "two", "three"] {
        assert_eq!(world.connect(name).await.0, StatusCode::OK);
    }
    // An entry that has a record, a key without a record, a key that no connection can have, and a record.
    let odd_key = "$KV.oauth_connections.odd";
    for subject in [&entry("one"), &entry("none"), odd_key] {
        operator.place_junk(subject, "KV_oauth_connections").await;
    }
    operator.place_junk(&format!("oauth.record.{ACCOUNT}.odd.two"), "OAUTH").await;

    let report = doctor(&world).await;
    for name in ["odd.one", "odd.none", "oauth_connections/odd", "odd.two"] {
        assert!(report.contains(name), "{name}: {report}");
    }
    // The entry of `one` is restored from its record.
    assert_eq!(listed(&world).await, ["one", "three", "two"]);
    let log = world.tokenbus.log();
    assert!(log.contains(&format!("oauth_connections/{ACCOUNT}.odd.none")), "{log}");
    let none = json!([format!("ms.integration.oauth.{ACCOUNT}.odd.none")]);
    let body = world.tokenbus.call(Method::GET, "oauth-connections").await.1;
    assert_eq!((&body["unreadable"], &body["results_total"]), (&none, &json!(4)), "{body}");
    // Pages of one entry each: that of the junk has no connection, and leads to the next page.
    let (mut path, mut found, mut unreadable) = ("oauth-connections?limit=1".to_owned(), 0, 0);
    loop {
        let (status, page) = world.tokenbus.call(Method::GET, &path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        found += page["results"].as_array().expect("a list").len();
        unreadable += page.get("unreadable").and_then(Value::as_array).map_or(0, Vec::len);
        assert!(found + unreadable <= 4, "{page}");
        let Some(next) = page["next_cursor"].as_str() else { break };
        let before = std::mem::replace(&mut path, format!("oauth-connections?limit=1&cursor={next}"));
        assert_ne!(path, before, "each page has another cursor");
    }
    assert_eq!((found, unreadable), (3, 1));
    assert_eq!(world.read("one").await.0, StatusCode::OK);
    let (status, body) = world.connect("none").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    for name in ["one", "two", "none"] {
        let (status, body) = world.tokenbus.call(Method::DELETE, &format!("odd/oauth-connections/{name}")).await;
        assert_eq!(status, StatusCode::OK, "{name}: {body}");
    }
    assert_eq!(listed(&world).await, ["three"]);

    // Junk in place of a record does no harm to a refresh or a new login.
    let record = format!("oauth.record.{ACCOUNT}.odd.three");
    operator.place_junk(&record, "OAUTH").await;
    operator.bus.age("three", &world.tokenbus.keys_file()).await;
    let (status, body) = world.tokenbus.call(Method::GET, "odd/oauth-refresh-token/three").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    operator.place_junk(&record, "OAUTH").await;
    assert_eq!(world.connect("three").await.0, StatusCode::OK);
}

/// A request without a payload deletes or purges a stream, and some answers have none: of a missing message, and of a consumer
/// without messages.
#[tokio::test]
async fn h7_an_operators_reply_and_deliver_subjects_reach_nothing_stored() {
    let world = World::with(Provider::generous().await).await;
    let operator = Operator::of(&world).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let config = json!({ "name": "none", "ack_policy": "none", "deliver_policy": "new" });
    let question = json!({ "stream_name": "OAUTH_EVENTS", "config": config });
    operator.request("$JS.API.CONSUMER.CREATE.OAUTH_EVENTS.none", &question.to_string()).await;
    let targets = [CONFIG, "oauth.record.config.odd", &entry("none"), "$KV.oauth_meta.form"];
    let streams = ["OAUTH", "OAUTH_EVENTS", "KV_oauth_connections", "KV_oauth_configs", "KV_oauth_meta"];
    let mut before = Vec::new();
    for stream in streams {
        before.push(operator.bus.info(stream).await.state);
    }
    let missing = ("$JS.API.DIRECT.GET.KV_oauth_meta.$KV.oauth_meta.nothing", "");
    let nothing_new = ("$JS.API.CONSUMER.MSG.NEXT.OAUTH_EVENTS.none", r#"{"batch":1,"no_wait":true}"#);
    let state = ("$JS.API.STREAM.INFO.OAUTH_EVENTS", "");
    let requests =
        ["DELETE", "PURGE"].into_iter().flat_map(|act| streams.map(|name| format!("$JS.API.STREAM.{act}.{name}")));
    for reply in requests.chain(targets.map(str::to_owned)) {
        for (question, payload) in [missing, nothing_new, state] {
            let sent = operator.client.publish_with_reply(question, reply.clone(), payload.into());
            sent.await.expect("sent");
        }
    }
    for (number, target) in targets.into_iter().enumerate() {
        let name = format!("push{number}");
        let config = json!({ "name": name, "deliver_subject": target, "deliver_policy": "all", "ack_policy": "none" });
        let question = json!({ "stream_name": "OAUTH_EVENTS", "config": config });
        operator.request(&format!("$JS.API.CONSUMER.CREATE.OAUTH_EVENTS.{name}"), &question.to_string()).await;
    }
    operator.client.flush().await.expect("the server answers");
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (stream, before) in streams.into_iter().zip(before) {
        let now = operator.bus.info(stream).await.state;
        assert_eq!((now.messages, now.last_sequence), (before.messages, before.last_sequence), "{stream}");
    }
    assert_eq!(world.read("one").await.0, StatusCode::OK);
}
