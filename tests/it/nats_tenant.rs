//! The subjects that tenants receive and reach, and those to which answers can be directed.

use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;

use crate::ask::{new_account, send};
use crate::bus::Bus;
use crate::nats_operator::ROOT;
use crate::nats_permissions::{INNER, stored, world};
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;
use crate::world::World;

#[tokio::test]
async fn e4_a_tenant_only_receives_its_own_records_and_events() {
    let world = World::on(Nats::edited(&[ROOT], &["root"]).await, Provider::generous().await).await;
    let (other, bus) = (new_account(), Bus::of(&world.tokenbus.nats).await);
    let tenant = world.tokenbus.nats.connect("demo").await;
    let patterns = [
        format!("ms.integration.oauth.{other}.*.*"),
        format!("ms.integration.oauth.{other}.>"),
        format!("ms.oauth.{other}.>"),
        format!("ms.oauth.{other}.event.*.*.*"),
        "ms.integration.oauth.*.*.*".to_owned(),
        "ms.integration.oauth.*.odd.>".to_owned(),
        "ms.integration.oauth.>".to_owned(),
        "ms.integration.oauth.*.*.*.*".to_owned(),
        "ms.oauth.*.event.*.*.*".to_owned(),
        "ms.oauth.*.*".to_owned(),
        "ms.oauth.>".to_owned(),
        "ms.>".to_owned(),
        "oauth.>".to_owned(),
        "oauth.record.>".to_owned(),
        "oauth.edge.*".to_owned(),
        "oauth.again.*".to_owned(),
        "oauth.reply.>".to_owned(),
        "$JS.>".to_owned(),
        "$JS.API.>".to_owned(),
        "$KV.>".to_owned(),
        "$SRV.>".to_owned(),
        "_INBOX_worker.>".to_owned(),
        "_R_.>".to_owned(),
        ">".to_owned(),
    ];
    let root = world.tokenbus.nats.connect("root").await;
    let (mut heard, mut control) = (SelectAll::new(), root.subscribe(">").await.unwrap());
    for pattern in patterns {
        heard.push(tenant.subscribe(pattern.clone()).await.unwrap());
        heard.push(tenant.queue_subscribe(pattern.clone(), pattern.replace(['.', '*', '>', '$'], "_")).await.unwrap());
    }
    Nats::flush(&tenant).await;
    Nats::flush(&root).await;

    // The other account's record, event and pending login, and a config; then the tenant's own message.
    bus.record(&format!("oauth.record.{other}.odd.one"), "theirs", 0, "at-theirs").await;
    let key = world.tokenbus.api_key(&other, "member").await;
    send(&world.tokenbus, reqwest::Method::GET, &key, "odd/oauth-login/two").await;
    world.tokenbus.configure(&world.config()).await;
    assert_eq!(world.connect("last").await.0, 200);
    let last = format!("ms.integration.oauth.{ACCOUNT}.odd.last");
    let end = format!("ms.oauth.{ACCOUNT}.event.odd.last.end");
    bus.client.publish(end.clone(), "".into()).await.unwrap();
    // An unlimited user receives all of it.
    let mut theirs = 0;
    while let Some(message) = control.next().await.filter(|message| message.subject.as_str() != end) {
        theirs += usize::from(message.subject.contains(&other));
    }
    assert!(theirs >= 3, "theirs were not on the bus: {theirs}");
    // Four patterns match the tenant's own events, each plain and in a queue group; each receives the last event.
    let (mut ends, mut records) = (0, 0);
    while ends < 8 {
        let message = tokio::time::timeout(std::time::Duration::from_mins(1), heard.next()).await;
        let message = message.unwrap_or_else(|_| panic!("own events: {ends}")).expect("the connection stays");
        let subject = message.subject.to_string();
        assert!(!subject.contains(&other) && !message.payload.windows(9).any(|part| part == b"at-theirs"), "{subject}");
        let tokens: Vec<&str> = subject.split('.').collect();
        match tokens.as_slice() {
            ["ms", "integration", "oauth", account, _, _] | ["ms", "oauth", account, "event", _, _, _] => {
                assert_eq!(*account, ACCOUNT, "{subject}");
            }
            // The request that waited for the subscriptions, and its answer.
            ["$SYS", "REQ", "USER", "INFO"] | ["_INBOX_demo", ..] => {}
            _ => panic!("a tenant got {subject}"),
        }
        ends += usize::from(subject == end);
        records += usize::from(subject == last);
    }
    assert!(records > 0, "the tenant's own record did not come");
}

#[tokio::test]
async fn e4_a_tenants_requests_for_other_accounts_have_no_responder() {
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
            // An account without JetStream gets this error.
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.payload).into_owned();
                assert!(subject.starts_with("$JS.API") && text.contains("\"error\""), "{subject}: {text}");
            }
        }
    }
    assert_eq!(stored(&bus).await, before);
}

#[tokio::test]
async fn e6_no_answer_to_an_edge_or_a_tenant_can_be_directed_at_a_record_a_key_or_a_foreign_inbox() {
    let world = world().await;
    let nats = &world.tokenbus.nats;
    let bus = Bus::of(nats).await;
    let mut inbox = bus.client.subscribe("_INBOX_worker.mine.*").await.unwrap();
    let operator = nats.connect("operator").await;
    let mut foreign = operator.subscribe("_INBOX_operator.mine.*").await.unwrap();
    Nats::flush(&operator).await;
    let exchange = bus.consumer("OAUTH_COMMANDS", "exchange").await;
    let mut served = bus.client.subscribe("ms.oauth.*.*").await.unwrap();
    Nats::flush(&bus.client).await;
    let before = stored(&bus).await;

    let mut edge = Wire::connect(nats, "edge").await;
    let mut tenant = Wire::connect(nats, "demo").await;
    for reply in [
        format!("oauth.record.{ACCOUNT}.odd.one"),
        format!("ms.integration.oauth.{ACCOUNT}.odd.one"),
        format!("$KV.oauth_connections.{ACCOUNT}.odd.one"),
        "$KV.oauth_api_keys.0123456789ab".to_owned(),
        "$KV.oauth_meta.keys".to_owned(),
        "oauth.record.config.odd".to_owned(),
        format!("ms.integration.oauth.{ACCOUNT}.odd.one.refresh.at"),
        format!("ms.oauth.{ACCOUNT}.event.odd.one.connected"),
        "$JS.ACK.OAUTH_COMMANDS.exchange.1.1.1.1.0".to_owned(),
        "$JS.API.STREAM.PURGE.OAUTH_SCHEDULE".to_owned(),
        "$JS.API.CONSUMER.DELETE.OAUTH_COMMANDS.exchange".to_owned(),
        format!("oauth.reply.worker.{0}.{0}", "a".repeat(22)),
        "_INBOX_operator.mine.1".to_owned(),
        "_INBOX_admin.mine.1".to_owned(),
        "_INBOX_worker.mine.1".to_owned(),
    ] {
        // An answer of a call, and the PubAck of a command.
        edge.send_text(&format!("PUB oauth.edge.ready {reply} 2\r\n{{}}\r\n")).await;
        edge.send_text(&format!("PUB ms.integration.oauth.{ACCOUNT}.odd.one.exchange {reply} 2\r\n{{}}\r\n")).await;
        // The answer to a node's call goes to any reply subject that the node names. The server itself does not allow a
        // reply subject of an ack.
        let said = tenant.send_text(&format!("PUB ms.oauth.{ACCOUNT}.token {reply} 2\r\n{{}}\r\n")).await;
        if reply.starts_with("$JS.ACK.") {
            assert!(said.iter().any(|line| line.starts_with("-ERR 'Permissions Violation")), "{said:?}");
            continue;
        }
        assert!(!said.iter().any(|line| line.starts_with("-ERR")), "{reply}: {said:?}");
        let question = served.next().await.expect("a tenant's call arrives");
        bus.client.publish(question.reply.expect("it wants an answer"), "junk".into()).await.unwrap();
    }
    // All of them are handled once the next call and the next command are answered.
    bus.client.publish("_INBOX_worker.mine.end", "".into()).await.unwrap();
    assert_eq!(inbox.next().await.expect("the inbox works").subject.as_str(), "_INBOX_worker.mine.end");
    let connected = world.connect("two").await;
    assert_eq!(connected.0, 200, "{}", connected.1);
    assert_eq!(bus.consumer("OAUTH_COMMANDS", "exchange").await, exchange, "the consumer was made anew");
    operator.publish_with_reply("$JS.API.INFO", "_INBOX_operator.mine.end", "".into()).await.unwrap();
    let first = foreign.next().await.expect("the inbox works");
    assert!(first.subject.ends_with(".mine.end"), "{}", first.subject);
    for (name, sequence) in before.iter().filter(|(name, _)| ["OAUTH", "KV_oauth_connections"].contains(name)) {
        assert_eq!(bus.last_sequence(name).await, sequence + 1, "{name}");
    }
    for (name, sequence) in
        before.iter().filter(|(name, _)| ["KV_oauth_api_keys", "KV_oauth_configs", "KV_oauth_meta"].contains(name))
    {
        assert_eq!(bus.last_sequence(name).await, *sequence, "{name}");
    }
    assert_eq!(world.read("one").await.1["access_token"], "at-0");
}
