//! The permissions of each NATS user, with the shipped configuration.

use async_nats::client::RequestErrorKind;
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::bus::{BUCKETS, Bus};

use crate::nats_operator::ROOT;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;
use crate::world::World;

/// Subjects that other users must not publish on: a message would change stored data or read foreign data.
pub(crate) const INNER: [&str; 14] = [
    "oauth.record.A.odd.one",
    "oauth.record.config.odd",
    "ms.integration.oauth.A.odd.one",
    "oauth.dead.exchange.A.odd.one",
    "oauth.reply.edge.x",
    "$KV.oauth_connections.A.odd.one",
    "$KV.oauth_configs.odd",
    "$KV.oauth_states.x.A",
    "$JS.API.STREAM.MSG.GET.OAUTH",
    "$JS.API.DIRECT.GET.OAUTH.x",
    "$JS.API.CONSUMER.CREATE.OAUTH.x",
    "$JS.API.CONSUMER.MSG.NEXT.OAUTH_COMMANDS.exchange",
    "$JS.API.STREAM.DELETE.OAUTH",
    "$JS.API.STREAM.PURGE.OAUTH",
];

pub(crate) async fn world() -> World {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    world
}

/// Last sequence of every stream and bucket, without those that the commands themselves write.
pub(crate) async fn stored(bus: &Bus) -> Vec<(&'static str, u64)> {
    let mut sequences = Vec::new();
    // A worker may write the last use of an API key at any time.
    let buckets = BUCKETS.into_iter().filter(|name| *name != "KV_oauth_api_keys");
    for name in buckets.chain(["OAUTH", "OAUTH_SCHEDULE", "OAUTH_EVENTS"]) {
        sequences.push((name, bus.last_sequence(name).await));
    }
    sequences
}

#[tokio::test]
async fn e9_the_edge_reaches_commands_and_calls_and_nothing_stored() {
    let nats = Nats::edited(&[ROOT], &["root"]).await;
    let (mut edge, mut root) = (Wire::connect(&nats, "edge").await, Wire::connect(&nats, "root").await);
    let more = [
        "oauth.reply.worker.x.y",
        "ms.oauth.A.event.odd.one.connected",
        "$KV.oauth_api_keys.x",
        "$KV.oauth_meta.keys",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.INFO.OAUTH",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.DIRECT.GET.KV_oauth_connections.x",
        "$JS.API.STREAM.MSG.GET.KV_oauth_api_keys",
        "$JS.API.CONSUMER.CREATE.KV_oauth_connections.x.$KV.oauth_connections.>",
        "$JS.API.CONSUMER.INFO.OAUTH_COMMANDS.exchange",
        "$JS.ACK.OAUTH_COMMANDS.exchange.1.1.1.1.0",
        "$JS.FC.OAUTH.x",
        "ms.integration.oauth.config.odd",
        "ms.integration.oauth.A.odd.one.refresh",
        "ms.integration.oauth.A.odd.one.revoke",
        "ms.integration.oauth.A.odd.one.refresh.at",
        "ms.integration.oauth.A.odd.one.refresh.due",
        "ms.integration.oauth.A.odd.one.nothing",
        "ms.oauth.A.token",
        "_INBOX_worker.x",
        "_INBOX_operator.x",
        "_INBOX_edge.x",
        "_R_.x",
        "$SRV.INFO",
        "$SRV.PING.tokenbus",
    ];
    for subject in INNER.into_iter().chain(more) {
        assert!(!edge.may_publish(subject).await, "the edge may publish {subject}");
        assert!(root.may_publish(subject).await, "no user may publish {subject}");
    }
    for subject in [
        ">",
        "*",
        "*.>",
        "ms.>",
        "ms.integration.oauth.*.*.*",
        "ms.integration.oauth.*.*.*.*",
        "ms.integration.oauth.A.>",
        "ms.integration.oauth.>",
        "oauth.>",
        "oauth.record.>",
        "oauth.edge.*",
        "oauth.again.*",
        "oauth.reply.>",
        "oauth.reply.worker.*.*",
        "$KV.>",
        "$JS.>",
        "$SRV.>",
        "_INBOX.>",
        "_INBOX_worker.>",
        "_R_.>",
        "ms.oauth.>",
    ] {
        for pattern in [subject.to_owned(), format!("{subject} mine")] {
            assert!(!edge.may_subscribe(&pattern).await, "the edge may subscribe {pattern}");
            assert!(root.may_subscribe(&pattern).await, "no user may subscribe {pattern}");
        }
    }
    for subject in ["oauth.edge.whoami", "ms.integration.oauth.A.odd.one.exchange", "$SYS.REQ.USER.INFO"] {
        assert!(edge.may_publish(subject).await, "the edge may not publish {subject}");
    }
    for subject in ["oauth.reply.*.*", "_INBOX_edge.>"] {
        assert!(edge.may_subscribe(subject).await, "the edge may not subscribe {subject}");
    }
}

/// Even a gateway's user without limits cannot cross the account's border.
#[tokio::test]
async fn e9_the_edges_account_keeps_even_an_unlimited_edge_user_from_stored_data() {
    let open = (
        "        publish: { allow: [\n          \"oauth.edge.*\", \"oauth.again.*\", \"$SYS.REQ.USER.INFO\"",
        "        publish: { allow: [ \">\"",
    );
    let heard = ("subscribe: { allow: [\"oauth.reply.*.*\", \"_INBOX_edge.>\"] }", "");
    let world = World::on(Nats::edited(&[open, heard], &[]).await, Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let (edge, bus) = (world.tokenbus.nats.connect("edge").await, Bus::of(&world.tokenbus.nats).await);
    let before = stored(&bus).await;
    for subject in INNER.into_iter().filter(|subject| !subject.starts_with("oauth.reply")) {
        let subject = subject.replace(".A.", &format!(".{ACCOUNT}."));
        match edge.request(subject.clone(), "{}".into()).await {
            Ok(answer) => assert!(String::from_utf8_lossy(&answer.payload).contains("\"error\""), "{subject}"),
            Err(error) => assert_eq!(error.kind(), RequestErrorKind::NoResponders, "{subject}: {error}"),
        }
    }
    assert_eq!(stored(&bus).await, before);
    // Subscribers of the account receive a token, but no answer to a gateway.
    let mut all = edge.subscribe(">").await.unwrap();
    Nats::flush(&edge).await;
    assert_eq!(world.connect("two").await.0, 200);
    bus.client.publish("oauth.reply.x.end", "".into()).await.unwrap();
    loop {
        let message = all.next().await.expect("the end comes");
        if message.subject.as_str() == "oauth.reply.x.end" {
            break;
        }
        let is_its_own = ["$SYS.REQ.USER.INFO", "_INBOX_edge", "oauth.reply."];
        let is_its_own = is_its_own.iter().any(|start| message.subject.starts_with(start));
        assert!(is_its_own, "the edge got {}", message.subject);
    }
}

#[tokio::test]
async fn e3_the_operator_sees_stream_states_and_sealed_values_but_no_record() {
    let world = world().await;
    let mut operator = Wire::connect(&world.tokenbus.nats, "operator").await;
    let more = [
        "oauth.edge.whoami",
        "ms.oauth.A.token",
        "ms.integration.oauth.A.odd.one.exchange",
        "$KV.oauth_api_keys.x",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.UPDATE.OAUTH",
        "$JS.API.DIRECT.GET.OAUTH",
        "$JS.API.CONSUMER.CREATE.OAUTH",
        "$JS.API.CONSUMER.DURABLE.CREATE.OAUTH.x",
        "$JS.API.CONSUMER.CREATE.OAUTH_COMMANDS.x",
        "$JS.API.STREAM.MSG.GET.OAUTH_COMMANDS",
        "$JS.API.STREAM.MSG.GET.OAUTH_SCHEDULE",
        "$JS.API.STREAM.MSG.GET.KV_oauth_states",
        "$JS.API.STREAM.MSG.GET.KV_oauth_api_keys",
        "$JS.API.STREAM.MSG.DELETE.OAUTH_DEAD",
        "$JS.API.STREAM.SNAPSHOT.OAUTH",
    ];
    for subject in INNER.into_iter().chain(more) {
        assert!(!operator.may_publish(subject).await, "the operator may publish {subject}");
    }
    for subject in [">", "ms.>", "ms.integration.oauth.>", "oauth.>", "_INBOX.>", "_INBOX_worker.>", "$KV.>"] {
        assert!(!operator.may_subscribe(subject).await, "the operator may subscribe {subject}");
    }

    let client = world.tokenbus.nats.connect("operator").await;
    let bucket = async_nats::jetstream::new(client).get_key_value("oauth_connections").await.unwrap();
    let value = bucket.get(format!("{ACCOUNT}.odd.one")).await.unwrap().expect("the connection is there");
    let value: Value = serde_json::from_slice(&value).unwrap();
    assert_eq!(value["status"], "active");
    assert!(value["sealed"].as_str().is_some_and(|sealed| sealed.starts_with("v1.")), "{value}");
    assert!(value.get("access_token").is_none() && value.get("refresh_token").is_none(), "{value}");
}

#[tokio::test]
async fn e9_the_workers_themselves_cannot_publish_a_token_or_delete_a_stream() {
    let nats = Nats::start().await;
    let mut worker = Wire::connect(&nats, "worker").await;
    for subject in [
        "ms.integration.oauth.A.odd.one",
        "ms.integration.oauth.config.odd",
        "$JS.API.STREAM.DELETE.OAUTH",
        "$JS.API.STREAM.PURGE.OAUTH",
        "$JS.API.STREAM.MSG.DELETE.OAUTH",
    ] {
        assert!(!worker.may_publish(subject).await, "the worker may publish {subject}");
    }
}

/// Only calls reach the workers, and they write the events.
#[tokio::test]
async fn g2_the_admin_user_publishes_no_event_and_reaches_no_stream() {
    let nats = Nats::start().await;
    let mut admin = Wire::connect(&nats, "admin").await;
    let more =
        ["ms.oauth.A.event._._.api_key_revoked", "ms.oauth.A.event.odd.one.connected", "$SRV.INFO", "$JS.API.INFO"];
    for subject in INNER.into_iter().chain(more) {
        assert!(!admin.may_publish(subject).await, "the admin may publish {subject}");
    }
    for subject in [">", "ms.>", "ms.integration.oauth.*.*.*", "oauth.>", "oauth.reply.*.*", "_INBOX.>", "$KV.>"] {
        assert!(!admin.may_subscribe(subject).await, "the admin may subscribe {subject}");
    }
    for subject in ["oauth.admin.keys", "ms.oauth.A.token", "oauth.edge.whoami"] {
        assert!(admin.may_publish(subject).await, "the admin may not publish {subject}");
    }
    for user in ["worker", "operator", "edge", "setup"] {
        let mut other = Wire::connect(&nats, user).await;
        for subject in ["oauth.admin.keys", "oauth.admin.keys-create", "oauth.node.A.token"] {
            assert!(!other.may_publish(subject).await, "{user} may publish {subject}");
        }
    }
}
