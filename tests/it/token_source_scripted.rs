//! `TokenSource` with a test in the role of the worker, which sends answers and pushes in a chosen order.

use async_nats::{Client, HeaderMap, Message, Subscriber};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokenbus::client::TokenSource;
use tokenbus::connection::Status;
use tokenbus::subject::ConnectionKey;
use tokio::time::timeout;

use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, run, settings};
use crate::support::wait::PATIENCE;

/// A bus, and the calls of nodes as they arrive.
struct ScriptedBus {
    nats: Nats,
    worker: Client,
    calls: Subscriber,
}

impl ScriptedBus {
    async fn start() -> Self {
        let nats = Nats::start().await;
        let folder = tempfile::tempdir().unwrap();
        run(&settings(&nats, "setup", folder.path()), &["setup"]).await;
        let worker = nats.connect("worker").await;
        let calls = worker.subscribe("ms.oauth.*.token").await.unwrap();
        Nats::flush(&worker).await;
        Self { nats, worker, calls }
    }

    /// The next call, to be answered.
    async fn call(&mut self) -> Message {
        timeout(PATIENCE, self.calls.next()).await.expect("the source asks").unwrap()
    }

    async fn answer(&self, call: &Message, connection: &Value) {
        self.worker.publish(call.reply.clone().unwrap(), connection.to_string().into()).await.unwrap();
    }

    async fn unknown(&self, call: &Message) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Service-Error-Code", "404");
        headers.insert("Nats-Service-Error", "no connection");
        self.worker.publish_with_headers(call.reply.clone().unwrap(), headers, "".into()).await.unwrap();
    }

    /// Stores a record, which is pushed, and returns its sequence.
    async fn push(&self, token: &str) -> u64 {
        let subject = format!("oauth.record.{ACCOUNT}.odd.one");
        let answer = self.worker.request(subject, connection(0, token, 3600).to_string().into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        answer["seq"].as_u64().expect("the record is stored")
    }

    /// Opens a source and, after `before` has run, answers its first call.
    async fn opened(&mut self, answer: &Value, before: impl AsyncFnOnce(&Self)) -> TokenSource {
        let key = ConnectionKey::parse(ACCOUNT, "odd", "one").unwrap();
        let open = TokenSource::open(self.nats.connect("demo").await, key);
        let serve = async {
            let call = self.call().await;
            before(self).await;
            self.answer(&call, answer).await;
        };
        tokio::join!(open, serve).0.expect("the first question is answered")
    }
}

/// A connection whose token expires in so many seconds.
fn connection(sequence: u64, token: &str, seconds: i64) -> Value {
    let now = tokenbus::internals::system::now();
    let expiry: Timestamp = now + SignedDuration::from_secs(seconds);
    json!({
        "access_token": token, "token_type": "Bearer", "expiry": expiry, "expires_in": seconds, "sequence": sequence,
        "subject": format!("ms.integration.oauth.{ACCOUNT}.odd.one"), "modified": now.as_second(), "status": "active",
    })
}

/// Waits until the source has the token; until then it may only have the older of the two.
async fn wait_for_token(source: &mut TokenSource, before: &str, after: &str) {
    let wait = async {
        loop {
            let shown = source.current().and_then(|current| current.access_token).expect("a token");
            match shown.expose() {
                shown if shown == after => return,
                shown => assert_eq!(shown, before),
            }
            source.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never {after}"));
}

#[tokio::test]
async fn the_higher_sequence_is_kept_in_either_order_of_arrival() {
    let mut bus = ScriptedBus::start().await;
    let old = bus.push("old").await;
    // The push is newer than the answer.
    let push = async |bus: &ScriptedBus| {
        bus.push("new").await;
    };
    let mut source = bus.opened(&connection(old, "old", 3600), push).await;
    wait_for_token(&mut source, "old", "new").await;

    // The answer is newer than the push.
    let mut source = bus.opened(&connection(old + 10, "newest", 3), async |_| {}).await;
    bus.push("older").await;
    let call = bus.call().await;
    assert_eq!(source.current().unwrap().access_token.unwrap().expose(), "newest");
    bus.answer(&call, &connection(old + 11, "last", 3600)).await;
    wait_for_token(&mut source, "newest", "last").await;
}

#[tokio::test]
async fn an_expiring_token_is_requested_again_until_a_new_one_arrives() {
    let mut bus = ScriptedBus::start().await;
    let mut source = bus.opened(&connection(1, "first", 4), async |_| {}).await;
    for _ in 0..2 {
        let call = bus.call().await;
        bus.answer(&call, &connection(1, "first", 4)).await;
    }
    let call = bus.call().await;
    bus.answer(&call, &connection(2, "second", 3600)).await;
    wait_for_token(&mut source, "first", "second").await;
}

#[tokio::test]
async fn a_connection_deleted_meanwhile_is_reported_as_revoked() {
    let mut bus = ScriptedBus::start().await;
    let sequence = bus.push("first").await;
    let mut source = bus.opened(&connection(sequence, "first", 2), async |_| {}).await;
    let call = bus.call().await;
    bus.unknown(&call).await;
    // A single 404 may precede the bucket's entry of a pushed record, so the token stays.
    let call = bus.call().await;
    assert_eq!(source.current().unwrap().status, Status::Active);
    bus.unknown(&call).await;
    let gone = timeout(PATIENCE, source.changed()).await.expect("it is shown").unwrap().unwrap();
    assert!(gone.status == Status::Revoked && gone.access_token.is_none(), "{gone:?}");

    bus.push("again").await;
    let again = timeout(PATIENCE, source.token()).await.expect("a later login brings it back").unwrap();
    assert_eq!(again.access_token.unwrap().expose(), "again");
}
