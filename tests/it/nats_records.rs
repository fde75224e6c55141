//! Records: subscribers receive only stored records, and a node that follows the recipe never ends with an older token.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::timeout;

use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, Tokenbus};
use crate::world::{INTEGRATION, World};

/// The sequence and the token of a push.
fn pushed(message: &async_nats::Message) -> (u64, String) {
    let headers = message.headers.as_ref().expect("a push has headers");
    let sequence = headers.get("Nats-Sequence").expect("a push has its sequence").as_str();
    assert!(headers.get("Nats-Time-Stamp").is_some(), "a push has its time");
    let body: Value = serde_json::from_slice(&message.payload).expect("a push is JSON");
    assert!(body.get("refresh_token").is_none() && body.get("sequence").is_none(), "{body}");
    (sequence.parse().expect("a number"), body["access_token"].as_str().expect("a token").to_owned())
}

async fn subscribed(nats: &Nats) -> async_nats::Subscriber {
    let tenant = nats.connect("demo").await;
    let subscriber = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.*")).await.unwrap();
    Nats::flush(&tenant).await;
    subscriber
}

#[tokio::test]
async fn e8_refused_and_duplicate_records_push_nothing() {
    let tokenbus = Tokenbus::start(&[]).await;
    let bus = Bus::of(&tokenbus.nats).await;
    let mut tokens = subscribed(&tokenbus.nats).await;
    let subject = format!("oauth.record.{ACCOUNT}.{INTEGRATION}.one");

    let first = bus.record(&subject, "a", 0, "first").await["seq"].as_u64().expect("it is stored");
    for (id, replaces, token) in [("b", 0, "refused"), ("c", first + 7, "refused-too")] {
        let answer = bus.record(&subject, id, replaces, token).await;
        assert_eq!(answer["error"]["err_code"], 10071, "{answer}");
    }
    assert_eq!(bus.record(&subject, "a", first, "doubled").await["duplicate"], true);
    let second = bus.record(&subject, "d", first, "second").await["seq"].as_u64().expect("it is stored");

    for expected in [(first, "first".to_owned()), (second, "second".to_owned())] {
        assert_eq!(pushed(&tokens.next().await.unwrap()), expected);
    }
}

#[tokio::test]
async fn a_node_that_subscribes_then_reads_and_keeps_the_higher_sequence_never_ends_with_an_older_token() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let mut tokens = subscribed(&world.tokenbus.nats).await;
    let logins = async {
        let mut last = 0;
        for _ in 0..20 {
            let (status, connection) = world.connect("one").await;
            assert_eq!(status.as_u16(), 200, "{connection}");
            let sequence = connection["sequence"].as_u64().expect("a sequence");
            assert!(sequence > last, "sequences rise");
            last = sequence;
        }
        last
    };
    let node = async {
        let (mut kept, mut pushes) = ((0, String::new()), 0);
        while pushes < 20 {
            let push = pushed(&tokens.next().await.expect("pushes come"));
            pushes += 1;
            let (_, read) = world.read("one").await;
            let read = (read["sequence"].as_u64().unwrap(), read["access_token"].as_str().unwrap().to_owned());
            for seen in [push, read] {
                assert!(seen.0 != kept.0 || seen.1 == kept.1, "one sequence, one token");
                if seen.0 > kept.0 {
                    kept = seen;
                }
            }
        }
        kept
    };
    let both = async { tokio::join!(logins, node) };
    let (last, kept) = timeout(Duration::from_mins(1), both).await.expect("twenty logins are pushed");
    assert_eq!(kept, (last, "at-20".to_owned()));
}
