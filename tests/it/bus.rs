//! The contents of the bus, read as the workers' user.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::client::Request;
use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamError;
use async_nats::jetstream::stream::{self, Stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::connection::StoredConnection;
use tokenbus::internals::seal::Keyring;
use tokenbus::internals::{Nats as Connection, Patience, Store, config};
use tokenbus::subject::ConnectionKey;
use tokio::time::timeout;

use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::{PATIENCE, eventually};
use crate::world::INTEGRATION;

/// Time after which a question is asked again. The servers drop questions about a stream that elects its leader.
const ONE_TRY: Duration = Duration::from_secs(5);

/// The limit by which a stream refuses writes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// No message may have more than a byte.
    Size,
    /// The stream holds as many messages as it may: replacements are accepted.
    Messages,
    Bytes,
}

/// Reads the stored messages as the workers' NATS user.
pub(crate) struct Bus {
    pub(crate) client: Client,
    jetstream: jetstream::Context,
    /// The program's own connection.
    own: Connection,
}

impl Bus {
    pub(crate) async fn of(nats: &Nats) -> Self {
        let client = nats.connect("worker").await;
        let mut settings = config::load(None).expect("the defaults are whole").nats;
        nats.url.clone_into(&mut settings.url);
        "worker".clone_into(&mut settings.user);
        settings.password = Secret::new(nats.password("worker"));
        let own = Connection::connect(&settings, "test", Patience::Once).await.expect("the bus is there");
        Self { jetstream: Nats::jetstream(client.clone()), client, own }
    }

    async fn stream(&self, name: &str) -> Result<Stream, GetStreamError> {
        let tries = async {
            loop {
                if let Ok(answer) = timeout(ONE_TRY, self.jetstream.get_stream(name)).await {
                    return answer;
                }
            }
        };
        timeout(PATIENCE, tries).await.expect("a server answers")
    }

    /// Everything that a stream holds, oldest first: subject, headers and body.
    pub(crate) async fn messages(&self, name: &str) -> Vec<jetstream::message::StreamMessage> {
        let stream = self.stream(name).await.expect("the stream is there");
        let state = &stream.cached_info().state;
        let mut found = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            // A sequence whose message was replaced is empty.
            found.extend(stream.get_raw_message(sequence).await);
        }
        found
    }

    /// Waits until no command is under way. Before that, an answered command may still lack its event and schedule.
    pub(crate) async fn idle(&self) {
        eventually("the queue is empty", async || self.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    }

    /// The bodies of the events of that name, oldest first. Waits until no command is under way, because a caller has its
    /// answer before the event is stored.
    pub(crate) async fn events(&self, name: &str) -> Vec<Value> {
        self.idle().await;
        let end = format!(".{name}");
        let messages = self.messages("OAUTH_EVENTS").await;
        let events = messages.into_iter().filter(|message| message.subject.ends_with(&end));
        events.map(|message| serde_json::from_slice(&message.payload).expect("an event is JSON")).collect()
    }

    /// The sequence of the newest message of a stream.
    pub(crate) async fn last_sequence(&self, name: &str) -> u64 {
        self.info(name).await.state.last_sequence
    }

    /// Deletes the messages of a subject from a stream.
    pub(crate) async fn purge(&self, name: &str, subject: &str) {
        let stream = self.stream(name).await.expect("the stream is there");
        stream.purge().filter(subject).await.expect("the stream can be purged");
    }

    /// Sets the most messages that a stream may hold; -1 for no limit.
    pub(crate) async fn limit(&self, nats: &Nats, name: &str, most: i64) {
        Self::configure(nats, stream::Config { max_messages: most, ..self.info(name).await.config }).await;
    }

    /// Makes a stream refuse every write from now on. Returns the config to restore.
    pub(crate) async fn refuse(&self, nats: &Nats, name: &str, limit: Limit) -> stream::Config {
        let stream::Info { config: before, state, .. } = self.info(name).await;
        let mut config = stream::Config { discard: stream::DiscardPolicy::New, ..before.clone() };
        match limit {
            Limit::Size => config.max_message_size = 1,
            Limit::Messages => config.max_messages = i64::try_from(state.messages).expect("a small number").max(1),
            Limit::Bytes => config.max_bytes = i64::try_from(state.bytes).expect("a small number").max(1),
        }
        Self::configure(nats, config).await;
        before
    }

    /// Sets a stream's config.
    pub(crate) async fn configure(nats: &Nats, config: stream::Config) {
        jetstream::new(nats.connect("setup").await).update_stream(config).await.expect("the stream can be changed");
    }

    /// Publishes a message on a subject of a stream.
    pub(crate) async fn fill(&self, name: &str, subject: &str) {
        let ack = self.jetstream.publish(subject.to_owned(), "x".into()).await.expect("sent").await;
        assert_eq!(ack.expect("stored").stream, name);
    }

    /// Makes a connection an hour older, so that it does not count as recently refreshed.
    pub(crate) async fn age(&self, name: &str, keys_file: &Path) {
        self.change(name, keys_file, |stored| stored.connection.modified -= 3_600).await;
    }

    /// Changes a stored connection as a worker would, with the keyring.
    pub(crate) async fn change(&self, name: &str, keys_file: &Path, change: impl FnOnce(&mut StoredConnection)) {
        let store = self.store(keys_file).await;
        let key = ConnectionKey::parse(ACCOUNT, INTEGRATION, name).expect("names");
        let mut stored = store.stored_connection(&key).await.expect("readable").expect("the connection is stored");
        change(&mut stored);
        let (headers, value) = store.sealed_connection(&key, stored).expect("it can be sealed");
        let subject = self.kept(name).await.0.subject;
        let sent = self.jetstream.publish_with_headers(subject, headers, value).await;
        sent.expect("sent").await.expect("the bucket takes it");
    }

    /// A stored connection, opened with the keyring.
    pub(crate) async fn stored(&self, name: &str, keys_file: &Path) -> StoredConnection {
        let key = ConnectionKey::parse(ACCOUNT, INTEGRATION, name).expect("names");
        self.store(keys_file).await.stored_connection(&key).await.expect("readable").expect("the connection is stored")
    }

    async fn store(&self, keys_file: &Path) -> Store {
        let mut config = config::load(None).expect("the defaults are whole");
        keys_file.clone_into(&mut config.secrets.keys_file);
        Store::new(self.own.clone(), Arc::new(Keyring::load(&config.secrets).await.expect("a keyring")))
    }

    /// Makes a connection's past longer by that many seconds, and so what is left of its future shorter.
    pub(crate) async fn advance(&self, name: &str, keys_file: &Path, seconds: i64) {
        let sooner = |time: &mut Option<Timestamp>| *time = time.map(|time| time - SignedDuration::from_secs(seconds));
        self.change(name, keys_file, |stored| {
            stored.connection.modified -= u64::try_from(seconds).expect("time goes forward");
            sooner(&mut stored.connection.expiry);
            sooner(&mut stored.connection.refresh_token_expiry);
            sooner(&mut stored.grant.reauthorization_warned);
            sooner(&mut stored.grant.refresh_token_since);
            if let Some(result) = &mut stored.grant.last_result {
                result.modified -= u64::try_from(seconds).expect("time goes forward");
            }
            if let Some(failure) = &mut stored.refresh_failure {
                failure.until -= SignedDuration::from_secs(seconds);
                sooner(&mut failure.since);
                sooner(&mut failure.refused_at);
                sooner(&mut failure.next_try);
            }
        })
        .await;
    }

    /// Replaces a connection's entry and record by values that no worker can read.
    pub(crate) async fn spoil(&self, name: &str) {
        for subject in [
            format!("$KV.oauth_connections.{ACCOUNT}.{INTEGRATION}.{name}"),
            format!("oauth.record.{ACCOUNT}.{INTEGRATION}.{name}"),
        ] {
            let body = json!({ "sequence": 1 }).to_string();
            self.jetstream.publish(subject, body.into()).await.expect("sent").await.expect("stored");
        }
    }

    /// A connection's entry in the bucket.
    async fn kept(&self, name: &str) -> (jetstream::message::StreamMessage, Value) {
        let subject = format!("$KV.oauth_connections.{ACCOUNT}.{INTEGRATION}.{name}");
        let bucket = self.jetstream.get_stream("KV_oauth_connections").await.expect("the bucket is there");
        let kept = bucket.get_last_raw_message_by_subject(&subject).await.expect("the connection is kept");
        let stored = serde_json::from_slice(&kept.payload).expect("a connection is kept in JSON");
        (kept, stored)
    }

    /// Publishes the due message of a connection, as its schedule would at its time.
    pub(crate) async fn due(&self, name: &str) {
        let sequence = self.kept(name).await.1["sequence"].clone();
        self.due_for(name, &sequence).await;
    }

    /// The same for the record with that sequence.
    pub(crate) async fn due_for(&self, name: &str, sequence: &Value) {
        self.due_with(name, &json!({ "sequence": sequence })).await;
    }

    /// Sets a connection's schedule with that body to a time in the past.
    pub(crate) async fn due_with(&self, name: &str, body: &Value) {
        let subject = |end: &str| format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.{name}.refresh.{end}");
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Schedule", "@at 2000-01-01T00:00:00Z");
        headers.insert("Nats-Schedule-Target", subject("due"));
        let sent = self.jetstream.publish_with_headers(subject("at"), headers, body.to_string().into()).await;
        sent.expect("sent").await.expect("the clock takes it");
    }

    /// The newest message of a subject.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Option<jetstream::message::StreamMessage> {
        let stream = self.stream(stream).await.expect("the stream is there");
        stream.get_last_raw_message_by_subject(subject).await.ok()
    }

    /// A stream's configuration and state.
    pub(crate) async fn info(&self, name: &str) -> stream::Info {
        self.stream(name).await.expect("the stream is there").cached_info().clone()
    }

    /// The same of a stream that may be missing.
    pub(crate) async fn try_info(&self, name: &str) -> Option<stream::Info> {
        self.stream(name).await.ok().map(|stream| stream.cached_info().clone())
    }

    /// Creation time of a consumer.
    pub(crate) async fn consumer(&self, stream: &str, name: &str) -> String {
        let stream = self.jetstream.get_stream_no_info(stream).await.expect("a stream's name");
        stream.consumer_info(name).await.expect("the consumer is there").created.to_string()
    }

    /// Publishes a record in place of the one with that sequence; the server's answer.
    pub(crate) async fn record(&self, subject: &str, id: &str, replaces: u64, token: &str) -> Value {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, replaces.to_string());
        let request = Request::new().headers(headers).payload(json!({ "access_token": token }).to_string().into());
        let answer = self.client.send_request(subject.to_owned(), request).await.expect("JetStream answers");
        serde_json::from_slice(&answer.payload).expect("JetStream answers in JSON")
    }
}

/// All buckets.
pub(crate) const BUCKETS: [&str; 6] = [
    "KV_oauth_connections",
    "KV_oauth_configs",
    "KV_oauth_states",
    "KV_oauth_api_keys",
    "KV_oauth_nonces",
    "KV_oauth_meta",
];
