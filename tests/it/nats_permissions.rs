//! Who may do what on the bus, with the configuration that is shipped.

use async_nats::client::RequestErrorKind;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::bus::{BUCKETS, Bus};
use crate::nats_operator::ROOT;
use crate::provider::{Provider, Said};
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;
use crate::world::World;

/// What none of the others may publish, for it would change what is stored or read what is not theirs.
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

/// Sequences of every stream and bucket, but for what the commands themselves leave.
pub(crate) async fn stored(bus: &Bus) -> Vec<(&'static str, u64)> {
    let mut sequences = Vec::new();
    for name in BUCKETS.into_iter().chain(["OAUTH", "OAUTH_SCHEDULE", "OAUTH_EVENTS"]) {
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
        assert!(root.may_publish(subject).await, "nobody may publish {subject}");
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
            assert!(root.may_subscribe(&pattern).await, "nobody may subscribe {pattern}");
        }
    }
    for subject in ["oauth.edge.whoami", "ms.integration.oauth.A.odd.one.exchange", "$SYS.REQ.USER.INFO"] {
        assert!(edge.may_publish(subject).await, "the edge may not publish {subject}");
    }
    for subject in ["oauth.reply.*.*", "_INBOX_edge.>"] {
        assert!(edge.may_subscribe(subject).await, "the edge may not subscribe {subject}");
    }
}

/// A gateway's user without limits: the account is a border of its own.
#[tokio::test]
async fn e9_the_edges_account_alone_keeps_it_from_what_is_stored() {
    let open = (
        "        publish: { allow: [\n          \"oauth.edge.*\", \"$SYS.REQ.USER.INFO\"",
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
    // A token goes past it, and an answer to a gateway does not.
    let mut all = edge.subscribe(">").await.unwrap();
    Nats::heard(&edge).await;
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
async fn e3_the_operator_sees_states_and_sealed_values_and_no_message_of_a_record() {
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
    for field in ["access_token", "refresh_token"] {
        assert!(value[field].as_str().is_some_and(|sealed| sealed.starts_with("v1.")), "{field}: {value}");
    }
}

#[tokio::test]
async fn e3_no_bucket_event_or_header_holds_a_secret_in_clear() {
    let world = world().await;
    let pending = world.login("two").await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let verifier = world.provider.asked()[0].form()["code_verifier"].clone();
    let keys = [&world.tokenbus.key, &world.tokenbus.admin_key].map(|key| key.rsplit_once('_').unwrap().1);
    let secrets = ["at-0", "rt-0", "canary-client-secret", "canary-code", &verifier, &pending.state, keys[0], keys[1]];
    let mut looked_at = 0;
    for stream in BUCKETS.into_iter().chain(["OAUTH_EVENTS", "OAUTH_DEAD", "OAUTH_COMMANDS", "OAUTH"]) {
        for message in bus.messages(stream).await {
            let text = format!("{} {:?} {:?}", message.subject, message.headers, message.payload);
            for secret in secrets {
                // The access token is in clear in its own record alone.
                let is_record = stream == "OAUTH" && secret == "at-0";
                assert!(is_record || !text.contains(secret), "{secret} is in {stream}: {text}");
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 8, "{looked_at}");
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

#[tokio::test]
async fn e3_the_servers_files_hold_no_secret_in_clear() {
    let tokens = json!({ "access_token": "canary-access-token", "refresh_token": "canary-refresh-token" });
    let provider = Provider::start(move |_, _| Said::json(200, &tokens)).await;
    let mut world = World::with(provider).await;
    assert_eq!(world.connect("one").await.0, 200);
    let pending = world.login("two").await;
    let verifier = world.provider.asked()[0].form()["code_verifier"].clone();
    world.tokenbus.nats.kill().await;

    let secrets = ["canary-", verifier.as_str(), &pending.state, &world.tokenbus.key];
    let (mut folders, mut looked_at) = (vec![world.tokenbus.nats.store()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            looked_at += bytes.len();
            for secret in secrets {
                let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} is in {}", entry.path().display());
            }
        }
    }
    assert!(looked_at > 4096, "{looked_at}");
}
