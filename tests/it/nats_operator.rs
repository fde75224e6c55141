//! Requests that the NATS user `operator` must not make: each is refused, then succeeds for a user with the permission.

use async_nats::Client;
use async_nats::client::{Request, RequestErrorKind};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;

use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;
use crate::world::World;

/// A user without limits in the workers' account.
pub(crate) const ROOT: (&str, &str) = (
    "users: [\n      # The workers.",
    "users: [\n      { user: root, password: $NATS_ROOT_PASSWORD }\n      # The workers.",
);

struct Scene {
    world: World,
    operator: Wire,
    root: Client,
}

impl Scene {
    async fn start() -> Self {
        let world = World::on(Nats::edited(&[ROOT], &["root"]).await, Provider::generous().await).await;
        assert_eq!(world.connect("one").await.0, 200);
        let operator = Wire::connect(&world.tokenbus.nats, "operator").await;
        let root = world.tokenbus.nats.connect("root").await;
        Self { world, operator, root }
    }

    /// Checks that the server refuses the request to the operator and answers an unlimited user. Returns that answer.
    async fn refused(&mut self, subject: &str, payload: &Value) -> (String, bool) {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        let (refused, answered) = self.operator.request_on(subject, &payload, "_INBOX_operator.answer").await;
        assert!(refused.is_some() && !answered, "{subject} {payload}: {refused:?}, answered: {answered}");
        let request = Request::new().payload(payload.clone().into()).timeout(Some(Duration::from_mins(1)));
        let answer = self.root.send_request(subject.to_owned(), request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{subject} {payload}: {error}"));
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        let is_error = serde_json::from_str::<Value>(&text).is_ok_and(|value| value.get("error").is_some());
        let status = answer.status.is_some_and(|status| status.as_u16() >= 400);
        (text, !is_error && !status)
    }

    async fn check(&mut self, subject: &str, payload: Value) {
        let (text, is_fine) = self.refused(subject, &payload).await;
        assert!(is_fine, "{subject} {payload}: {text}");
    }
}

#[tokio::test]
async fn e3_the_operator_reads_no_record_by_any_api() {
    let mut scene = Scene::start().await;
    let token = format!("ms.integration.oauth.{ACCOUNT}.odd.one");
    let last = json!({ "last_by_subj": token });
    let sequence = json!({ "seq": Bus::of(&scene.world.tokenbus.nats).await.last_sequence("OAUTH").await });
    for (subject, payload) in [
        ("$JS.API.STREAM.MSG.GET.OAUTH", &last),
        ("$JS.API.STREAM.MSG.GET.OAUTH", &sequence),
        ("$JS.API.DIRECT.GET.OAUTH", &last),
        ("$JS.API.DIRECT.GET.OAUTH", &sequence),
        ("$JS.API.DIRECT.GET.OAUTH", &json!({ "multi_last": [token] })),
        ("$JS.API.DIRECT.GET.OAUTH", &json!({ "next_by_subj": "ms.>", "seq": 1, "batch": 10 })),
        (&format!("$JS.API.DIRECT.GET.OAUTH.{token}"), &Value::Null),
    ] {
        let (text, _) = scene.refused(subject, payload).await;
        let is_token = text.contains("at-0") || text.contains(&data_encoding("at-0"));
        assert!(is_token || payload.get("seq").is_some_and(|seq| *seq == 1), "{subject} {payload}: {text}");
    }
    let nats = &scene.world.tokenbus.nats;
    let sealed = nats.connect("operator").await;
    let read =
        sealed.request("$JS.API.STREAM.MSG.GET.KV_oauth_meta", r#"{"last_by_subj":"$KV.oauth_meta.keys"}"#.into());
    let read: Value = serde_json::from_slice(&read.await.expect("the operator reads that").payload).unwrap();
    assert!(read.get("error").is_none(), "{read}");
}

/// The token as JetStream's API may show it: in base64, at each of the three alignments.
fn data_encoding(text: &str) -> String {
    use base64::Engine as _;
    let body = format!(r#"{{"access_token":"{text}"#);
    base64::prelude::BASE64_STANDARD_NO_PAD.encode(&body.as_bytes()[..body.len() / 3 * 3])
}

#[tokio::test]
async fn e3_the_operator_makes_no_consumer_on_records_or_commands() {
    let mut scene = Scene::start().await;
    for stream in ["OAUTH", "OAUTH_SCHEDULE", "KV_oauth_states", "KV_oauth_api_keys"] {
        let consumer = |name: &str, filter: &str| {
            let ack = if stream == "OAUTH_SCHEDULE" { "explicit" } else { "none" };
            let config = json!({ "name": name, "filter_subject": filter, "ack_policy": ack, "inactive_threshold": 1_000_000_000_000_u64 });
            json!({ "stream_name": stream, "config": config })
        };
        let durable = json!({ "stream_name": stream, "config": { "durable_name": "d", "ack_policy": "explicit", "filter_subject": "ms.integration.oauth.a.b.c.refresh.at" } });
        let push = json!({ "stream_name": stream, "config": { "deliver_subject": "_INBOX_root.pushed", "ack_policy": "none" } });
        if stream != "OAUTH_SCHEDULE" {
            scene.check(&format!("$JS.API.CONSUMER.CREATE.{stream}"), push).await;
            scene.check(&format!("$JS.API.CONSUMER.CREATE.{stream}.named"), consumer("named", "")).await;
        }
        let filter = "ms.integration.oauth.z.b.c.refresh.at";
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.filtered.{filter}");
        let (text, _) = scene.refused(&subject, &consumer("filtered", filter)).await;
        assert!(!text.is_empty());
        let (text, _) = scene.refused(&format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.d"), &durable).await;
        assert!(!text.is_empty());
    }
    let (text, _) = scene
        .refused(
            "$JS.API.CONSUMER.CREATE.OAUTH_COMMANDS.mine",
            &json!({ "stream_name": "OAUTH_COMMANDS", "config": { "name": "mine", "ack_policy": "explicit" } }),
        )
        .await;
    assert!(!text.is_empty());
    scene.refused("$JS.API.CONSUMER.MSG.NEXT.OAUTH_COMMANDS.exchange", &json!({ "batch": 1, "no_wait": true })).await;
}

/// The right stream in the subject, another one within.
#[tokio::test]
async fn e3_an_operators_request_about_one_stream_reaches_no_other_stream() {
    let scene = Scene::start().await;
    let operator = scene.world.tokenbus.nats.connect("operator").await;
    let mut delivered = operator.subscribe("_INBOX_operator.smuggled").await.unwrap();
    let token = format!("ms.integration.oauth.{ACCOUNT}.odd.one");
    let push = |name: &str, more: Value| {
        let mut config = json!({ "name": name, "deliver_subject": "_INBOX_operator.smuggled", "ack_policy": "none" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "stream_name": "OAUTH", "config": config }).to_string()
    };
    let received = [
        ("$JS.API.CONSUMER.CREATE.OAUTH_EVENTS.a".to_owned(), push("a", json!({}))),
        (format!("$JS.API.CONSUMER.CREATE.OAUTH_EVENTS.b.{token}"), push("b", json!({ "filter_subject": token }))),
        ("$JS.API.CONSUMER.CREATE.OAUTH_DEAD.OAUTH".to_owned(), push("OAUTH", json!({}))),
        ("$JS.API.CONSUMER.CREATE.OAUTH_EVENTS.OAUTH.x".to_owned(), push("x", json!({ "filter_subject": "ms.>" }))),
        ("$JS.API.CONSUMER.CREATE.KV_oauth_meta.c".to_owned(), push("c", json!({ "filter_subjects": [token] }))),
        ("$JS.API.STREAM.MSG.GET.OAUTH_EVENTS".to_owned(), json!({ "last_by_subj": token }).to_string()),
        (format!("$JS.API.DIRECT.GET.OAUTH_EVENTS.{token}"), String::new()),
        ("$JS.API.DIRECT.GET.KV_oauth_meta".to_owned(), json!({ "multi_last": [token] }).to_string()),
    ];
    for (subject, payload) in received {
        match operator.request(subject.clone(), payload.clone().into()).await {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.payload).into_owned();
                let is_status = answer.status.is_some_and(|status| status.as_u16() >= 400);
                assert!(is_status || text.contains("\"error\""), "{subject} {payload}: {text}");
            }
            Err(error) => assert_eq!(error.kind(), RequestErrorKind::NoResponders, "{subject}: {error}"),
        }
    }
    // A consumer that it may have does deliver.
    let own = json!({ "stream_name": "OAUTH_EVENTS", "config": { "name": "own", "deliver_subject": "_INBOX_operator.smuggled", "ack_policy": "none" } });
    let made = operator.request("$JS.API.CONSUMER.CREATE.OAUTH_EVENTS.own", own.to_string().into()).await.unwrap();
    let made: Value = serde_json::from_slice(&made.payload).unwrap();
    assert!(made.get("error").is_none(), "{made}");
    let first = tokio::time::timeout(Duration::from_mins(1), delivered.next()).await;
    let first = first.expect("something comes").expect("an event comes");
    assert!(first.subject.starts_with("ms.oauth."), "{}", first.subject);
    let bus = Bus::of(&scene.world.tokenbus.nats).await;
    assert_eq!(bus.info("OAUTH").await.state.consumer_count, 0);
}

#[tokio::test]
async fn e9_the_operator_changes_nothing() {
    let mut scene = Scene::start().await;
    let bus = Bus::of(&scene.world.tokenbus.nats).await;
    let before = bus.last_sequence("OAUTH").await;
    let (copy, mirror) = (
        json!({ "name": "MINE", "sources": [{ "name": "OAUTH" }] }),
        json!({ "name": "OTHER", "mirror": { "name": "OAUTH" } }),
    );
    scene.check("$JS.API.STREAM.CREATE.MINE", copy).await;
    scene.check("$JS.API.STREAM.CREATE.OTHER", mirror).await;
    scene
        .check("$JS.API.STREAM.UPDATE.MINE", json!({ "name": "MINE", "max_msgs": 5, "sources": [{ "name": "OAUTH" }] }))
        .await;
    let pause = json!({ "pause_until": "2100-01-01T00:00:00Z" });
    scene.check("$JS.API.CONSUMER.PAUSE.OAUTH_COMMANDS.exchange", pause).await;
    scene.check("$JS.API.STREAM.SNAPSHOT.OAUTH", json!({ "deliver_subject": "_INBOX_root.snapshot" })).await;
    scene.check(&format!("$KV.oauth_connections.{ACCOUNT}.odd.one"), json!({ "status": "odd" })).await;
    scene.check(&format!("oauth.record.{ACCOUNT}.odd.one"), json!({ "access_token": "forged" })).await;
    scene.check("oauth.dead.exchange.A.odd.one", json!({})).await;
    scene.check(&format!("ms.oauth.{ACCOUNT}.event.odd.one.connected"), json!({})).await;
    // A single server answers these with an error, or not at all, but it is asked.
    for subject in [
        "$JS.API.STREAM.LEADER.STEPDOWN.OAUTH",
        "$JS.API.CONSUMER.LEADER.STEPDOWN.OAUTH_COMMANDS.exchange",
        "$JS.API.META.LEADER.STEPDOWN",
        "$JS.API.META.RESCUE",
        "$JS.API.SERVER.REMOVE",
        "$JS.API.SERVER.EVACUATE",
        "$JS.API.STREAM.PEER.REMOVE.OAUTH",
        "$JS.API.STREAM.PEER.EVACUATE.OAUTH",
        "$JS.API.STREAM.CANCEL_MOVE.OAUTH",
        "$JS.API.CONSUMER.PEER.REMOVE.OAUTH_COMMANDS.exchange",
        "$JS.API.CONSUMER.PEER.EVACUATE.OAUTH_COMMANDS.exchange",
        "$JS.API.CONSUMER.UNPIN.OAUTH_COMMANDS.exchange",
        "$JS.API.CONSUMER.RESET.OAUTH_COMMANDS.exchange",
        "$JS.API.ACCOUNT.PURGE.OAUTH",
        "$JS.API.ACCOUNT.STREAM.MOVE.OAUTH.OAUTH",
        "$JS.API.ACCOUNT.STREAM.CANCEL_MOVE.OAUTH.OAUTH",
        "$JS.API.STREAM.RESTORE.OAUTH",
        "$JS.ACK.OAUTH_COMMANDS.exchange.1.1.1.1.0",
        "$JS.FC.OAUTH_COMMANDS.exchange.x",
    ] {
        let mut root = Wire::connect(&scene.world.tokenbus.nats, "root").await;
        assert!(!scene.operator.may_publish(subject).await, "the operator may publish {subject}");
        assert!(root.may_publish(subject).await, "root may not publish {subject}");
    }
    assert_eq!(bus.last_sequence("OAUTH").await, before + 1, "only root's record was stored");
    // The destructive requests come last.
    scene.check("$JS.API.CONSUMER.DELETE.OAUTH_COMMANDS.exchange", Value::Null).await;
    scene.check("$JS.API.STREAM.MSG.DELETE.OAUTH", json!({ "seq": before + 1 })).await;
    scene.check("$JS.API.STREAM.MSG.DELETE.OAUTH_EVENTS", json!({ "seq": 1 })).await;
    for stream in ["OAUTH", "OAUTH_EVENTS", "KV_oauth_connections"] {
        scene.check(&format!("$JS.API.STREAM.PURGE.{stream}"), Value::Null).await;
        scene.check(&format!("$JS.API.STREAM.DELETE.{stream}"), Value::Null).await;
    }
}
