//! An operator who names keys and subjects of stored data as the reply subjects of its requests, so that the server's
//! answers are stored there.

use async_nats::Client;
use reqwest::{Method, StatusCode};
use serde_json::Value;
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

    /// Lets the server's answer to a request land on a subject, and waits until the stream has stored it.
    async fn place_junk(&self, subject: &str, stream: &str) {
        let before = self.bus.last_sequence(stream).await;
        let question = "$JS.API.STREAM.INFO.OAUTH_EVENTS";
        self.client.publish_with_reply(question, subject.to_owned(), "".into()).await.expect("sent");
        eventually("the answer is stored", async || self.bus.last_sequence(stream).await > before).await;
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
