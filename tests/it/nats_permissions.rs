//! Who may do what on the bus, with the configuration that is shipped.

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::ask::{new_account, send};
use crate::bus::{BUCKETS, Bus};
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;
use crate::world::World;

/// What none of the others may publish, for it would change what is stored or read what is not theirs.
const INNER: [&str; 14] = [
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

async fn world() -> World {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    world
}

/// Sequences of every stream and bucket, but for what the commands themselves leave.
async fn stored(bus: &Bus) -> Vec<(&'static str, u64)> {
    let mut sequences = Vec::new();
    // When an API key was used is noted at any time.
    let buckets = BUCKETS.into_iter().filter(|name| *name != "KV_oauth_api_keys");
    for name in buckets.chain(["OAUTH", "OAUTH_SCHEDULE", "OAUTH_EVENTS"]) {
        sequences.push((name, bus.last_sequence(name).await));
    }
    sequences
}

#[tokio::test]
async fn e9_the_edge_reaches_commands_and_calls_and_nothing_stored() {
    let world = world().await;
    let mut edge = Wire::connect(&world.tokenbus.nats, "edge").await;
    let more = [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$KV.oauth_api_keys.x",
        "$KV.oauth_meta.keys",
        "$JS.API.DIRECT.GET.KV_oauth_connections.x",
        "ms.integration.oauth.A.odd.one.refresh.at",
        "ms.integration.oauth.A.odd.one.nothing",
        "ms.oauth.A.token",
        "_INBOX_worker.x",
        "$SRV.INFO",
    ];
    for subject in INNER.into_iter().chain(more) {
        assert!(!edge.may_publish(subject).await, "the edge may publish {subject}");
    }
    for subject in [
        ">",
        "ms.>",
        "ms.integration.oauth.*.*.*",
        "ms.integration.oauth.>",
        "oauth.record.>",
        "oauth.edge.*",
        "$KV.>",
        "$JS.>",
        "_INBOX.>",
        "_INBOX_worker.>",
        "ms.oauth.>",
    ] {
        assert!(!edge.may_subscribe(subject).await, "the edge may subscribe {subject}");
    }
    for subject in ["oauth.edge.whoami", "ms.integration.oauth.A.odd.one.exchange"] {
        assert!(edge.may_publish(subject).await, "the edge may not publish {subject}");
    }
    for subject in ["oauth.reply.*.*", "_INBOX_edge.>"] {
        assert!(edge.may_subscribe(subject).await, "the edge may not subscribe {subject}");
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
async fn e4_a_tenant_gets_its_own_records_and_events_alone() {
    let world = world().await;
    let (other, bus) = (new_account(), Bus::of(&world.tokenbus.nats).await);
    let tenant = world.tokenbus.nats.connect("demo").await;
    let mut everything = tenant.subscribe(">").await.unwrap();
    for subject in [
        format!("ms.integration.oauth.{other}.*.*"),
        format!("ms.integration.oauth.{other}.>"),
        "ms.integration.oauth.>".to_owned(),
        "ms.oauth.>".to_owned(),
        "oauth.>".to_owned(),
        "$JS.>".to_owned(),
        "$KV.>".to_owned(),
    ] {
        tenant.subscribe(subject).await.unwrap();
    }
    tenant.flush().await.unwrap();

    // A record and an event of theirs, a login under way, a config; then one of its own.
    bus.record(&format!("oauth.record.{other}.odd.one"), "theirs", 0, "at-theirs").await;
    let key = world.tokenbus.api_key(&other, "member").await;
    send(&world.tokenbus, reqwest::Method::GET, &key, "odd/oauth-login/two").await;
    world.tokenbus.configure(&world.config()).await;
    assert_eq!(world.connect("last").await.0, 200);
    let last = format!("ms.integration.oauth.{ACCOUNT}.odd.last");
    let mut subjects = Vec::new();
    while !subjects.contains(&last) {
        let message = everything.next().await.expect("the tenant's own record comes");
        let subject = message.subject.to_string();
        assert!(!subject.contains(&other) && !message.payload.windows(9).any(|part| part == b"at-theirs"), "{subject}");
        let tokens: Vec<&str> = subject.split('.').collect();
        match tokens.as_slice() {
            ["ms", "integration", "oauth", account, _, _] | ["ms", "oauth", account, "event", _, _, _] => {
                assert_eq!(*account, ACCOUNT, "{subject}");
            }
            _ => panic!("a tenant got {subject}"),
        }
        subjects.push(subject);
    }
}

#[tokio::test]
async fn e4_a_tenants_requests_elsewhere_find_nobody() {
    let world = world().await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let before = stored(&bus).await;
    let (other, tenant) = (new_account(), world.tokenbus.nats.connect("demo").await);
    let mut subjects: Vec<String> =
        INNER.into_iter().map(|subject| subject.replace(".A.", &format!(".{ACCOUNT}."))).collect();
    subjects.extend([
        "oauth.edge.whoami".to_owned(),
        "oauth.edge.state".to_owned(),
        "$JS.API.INFO".to_owned(),
        "$JS.API.STREAM.NAMES".to_owned(),
        "$JS.API.DIRECT.GET.KV_oauth_connections".to_owned(),
        format!("ms.integration.oauth.{ACCOUNT}.odd.one.exchange"),
        format!("ms.integration.oauth.{other}.odd.one.exchange"),
        format!("ms.oauth.{other}.token"),
        "$SRV.INFO".to_owned(),
    ]);
    for subject in subjects {
        let answer = tenant.request(subject.clone(), "{}".into()).await;
        match answer {
            Err(error) => {
                assert_eq!(error.kind(), async_nats::client::RequestErrorKind::NoResponders, "{subject}: {error}");
            }
            // An account without JetStream is told so.
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.payload).into_owned();
                assert!(subject.starts_with("$JS.API") && text.contains("\"error\""), "{subject}: {text}");
            }
        }
    }
    assert_eq!(stored(&bus).await, before);
}

#[tokio::test]
async fn e6_no_answer_of_the_edges_or_a_tenants_lands_on_a_record_a_key_or_a_foreign_inbox() {
    let world = world().await;
    let nats = &world.tokenbus.nats;
    let bus = Bus::of(nats).await;
    let mut inbox = bus.client.subscribe("_INBOX_worker.mine.*").await.unwrap();
    let mut served = bus.client.subscribe("ms.oauth.*.*").await.unwrap();
    bus.client.flush().await.unwrap();
    let before = stored(&bus).await;

    let mut edge = Wire::connect(nats, "edge").await;
    let tenant = nats.connect("demo").await;
    for reply in [
        format!("oauth.record.{ACCOUNT}.odd.one"),
        format!("ms.integration.oauth.{ACCOUNT}.odd.one"),
        format!("$KV.oauth_connections.{ACCOUNT}.odd.one"),
        "$KV.oauth_api_keys.0123456789ab".to_owned(),
        "_INBOX_worker.mine.1".to_owned(),
    ] {
        // An answer of a call, and the PubAck of a command.
        edge.say(&format!("PUB oauth.edge.ready {reply} 2\r\n{{}}\r\n")).await;
        edge.say(&format!("PUB ms.integration.oauth.{ACCOUNT}.odd.one.exchange {reply} 2\r\n{{}}\r\n")).await;
        // An answer of a call of a node; what serves such calls answers wherever it is told to.
        tenant.publish_with_reply(format!("ms.oauth.{ACCOUNT}.token"), reply, "{}".into()).await.unwrap();
        let question = served.next().await.expect("a tenant's call arrives");
        bus.client.publish(question.reply.expect("it wants an answer"), "junk".into()).await.unwrap();
    }
    // All of that is behind us once the next call and the next command are answered.
    bus.client.publish("_INBOX_worker.mine.end", "".into()).await.unwrap();
    assert_eq!(inbox.next().await.expect("the inbox works").subject.as_str(), "_INBOX_worker.mine.end");
    let connected = world.connect("two").await;
    assert_eq!(connected.0, 200, "{}", connected.1);
    for (name, sequence) in before.iter().filter(|(name, _)| ["OAUTH", "KV_oauth_connections"].contains(name)) {
        assert_eq!(bus.last_sequence(name).await, sequence + 1, "{name}");
    }
    for (name, sequence) in before.iter().filter(|(name, _)| *name == "KV_oauth_configs") {
        assert_eq!(bus.last_sequence(name).await, *sequence, "{name}");
    }
    let keys = bus.messages("KV_oauth_api_keys").await;
    assert!(keys.iter().all(|key| !key.subject.ends_with("0123456789ab")));
    assert_eq!(world.read("one").await.1["access_token"], "at-0");
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
async fn g2_the_admins_tool_leaves_events_of_keys_and_no_others() {
    let nats = Nats::start().await;
    let mut admin = Wire::connect(&nats, "admin").await;
    assert!(admin.may_publish("ms.oauth.A.event._._.api_key_revoked").await);
    for subject in ["ms.oauth.A.event.odd.one.connected", "ms.oauth.A.event.odd._.config_put"] {
        assert!(!admin.may_publish(subject).await, "the admin may publish {subject}");
    }
}
