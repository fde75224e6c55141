//! The bare chains of a callback and of a refresh: a plain client that stores as many messages of the same sizes as the program,
//! in the same order, in the same streams, and does nothing else: no expected sequences, and no message ids. The program cannot
//! be faster.
//!
//! 1. The command, which a client then takes from the queue.
//! 2. The marker of the consumed login. A refresh has none.
//! 3. The record.
//! 4. The entry in the bucket, the event and the schedule, all three at the same time.
//! 5. The ack of the command, confirmed.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt as _;

use crate::load;
use crate::program::INTEGRATION;
use crate::support::tokenbus::ACCOUNT;

/// Bytes of each message, as the program writes them for a short token.
const CALLBACK: usize = 900;
const REFRESH: usize = 400;
const MARKER: usize = 200;
const RECORD: usize = 900;
const ENTRY: usize = 1_600;
const EVENT: usize = 300;
const SCHEDULE: usize = 60;
/// Longest time of a pull, as in the program.
const PULL: Duration = Duration::from_secs(4);

/// A kind of command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Callback,
    Refresh,
}

/// The chain. Numbers of callbacks must differ from those of earlier callbacks on the same server; refreshes replace what the
/// callbacks with their numbers have stored.
pub(crate) async fn chain(client: async_nats::Client, kind: Kind, first: usize) -> load::Send {
    let jetstream = jetstream::new(client);
    let queue = jetstream.get_stream("OAUTH_COMMANDS").await.expect("the queue");
    let verb = if kind == Kind::Callback { "exchange" } else { "refresh" };
    let consumer: PullConsumer = queue.get_consumer(verb).await.expect("the consumer of these commands");
    Arc::new(move |number| {
        let (jetstream, consumer) = (jetstream.clone(), consumer.clone());
        Box::pin(async move {
            one(&jetstream, &consumer, kind, first + number).await;
            true
        })
    })
}

async fn one(jetstream: &Context, consumer: &PullConsumer, kind: Kind, number: usize) {
    let path = format!("{ACCOUNT}.{INTEGRATION}.bare{number}");
    let (verb, bytes, event) = match kind {
        Kind::Callback => ("exchange", CALLBACK, "connected"),
        Kind::Refresh => ("refresh", REFRESH, "refreshed"),
    };
    store(jetstream, format!("ms.integration.oauth.{path}.{verb}"), bytes).await;
    // Any client's command: all are alike.
    let mut taken = consumer.batch().max_messages(1).expires(PULL).messages().await.expect("a pull");
    let command = taken.next().await.expect("a command is queued").expect("a message");
    if kind == Kind::Callback {
        store(jetstream, format!("$KV.oauth_states.bare{number}.{ACCOUNT}"), MARKER).await;
    }
    store(jetstream, format!("oauth.record.{path}"), RECORD).await;
    tokio::join!(
        store(jetstream, format!("$KV.oauth_connections.{path}"), ENTRY),
        store(jetstream, format!("ms.oauth.{ACCOUNT}.event.{INTEGRATION}.bare{number}.{event}"), EVENT),
        schedule(jetstream, &path),
    );
    command.double_ack().await.expect("the server confirms the ack");
}

async fn store(jetstream: &Context, subject: String, bytes: usize) {
    let stored = jetstream.publish(subject, vec![b'x'; bytes].into()).await.expect("sent").await;
    stored.expect("stored");
}

async fn schedule(jetstream: &Context, path: &str) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Schedule", "@at 2999-01-01T00:00:00Z");
    headers.insert("Nats-Schedule-Target", format!("ms.integration.oauth.{path}.refresh.due").as_str());
    let subject = format!("ms.integration.oauth.{path}.refresh.at");
    let stored =
        jetstream.publish_with_headers(subject, headers, vec![b'x'; SCHEDULE].into()).await.expect("sent").await;
    stored.expect("stored");
}
