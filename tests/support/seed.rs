//! Connections stored by the worker's own code.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokenbus::Secret;
use tokenbus::connection::OauthConnection;
use tokenbus::internals::IssuedAt;
use tokenbus::internals::Store;
use tokenbus::internals::TokenSet;
use tokenbus::internals::command::{HEADER_COMMAND, HEADER_REFRESH, HEADER_SEALED_REFRESH, HEADER_STATUS};
use tokenbus::internals::connection::{GrantFacts, SealedPart, StoredConnection};
use tokenbus::internals::schedule;
use tokenbus::internals::seal::Keyring;
use tokenbus::internals::subject::{CONNECTIONS, kv_subject};
use tokenbus::internals::system;
use tokenbus::internals::{Nats, Patience};
use tokenbus::subject::ConnectionKey;

use crate::fleet::Fleet;

/// Writes sent without waiting before one whose answer is awaited, so that the server keeps up.
const UNANSWERED: usize = 200;

/// Writes connections.
pub(crate) struct Seed {
    store: Store,
    client: async_nats::Client,
    jetstream: jetstream::Context,
    token_url: String,
    records: u64,
    written: usize,
}

impl Seed {
    /// Writes on the fleet's bus, with its keys, for its provider.
    pub(crate) async fn on(fleet: &Fleet, provider_url: &str) -> Self {
        let mut config = tokenbus::internals::config::load(None).expect("the defaults are whole");
        config.secrets.keys_file = fleet.setting("TOKENBUS_SECRETS__KEYS_FILE").into();
        let mut settings = config.nats;
        fleet.nats.url.clone_into(&mut settings.url);
        "worker".clone_into(&mut settings.user);
        settings.password = Secret::new(fleet.nats.password("worker"));
        let nats = Nats::connect(&settings, "seed", Patience::Once).await.expect("the bus is there");
        let keyring = Keyring::load(&config.secrets).await.expect("the keyring");
        let store = Store::new(nats, Arc::new(keyring));
        let client = fleet.nats.connect("worker").await;
        let jetstream = jetstream::new(client.clone());
        let mut stream = jetstream.get_stream("OAUTH").await.expect("the stream");
        let records = stream.info().await.expect("its state").state.last_sequence;
        Self { store, client, jetstream, token_url: format!("{provider_url}/token"), records, written: 0 }
    }

    /// Writes one connection: its record, its entry in the bucket, its schedule. There is one writer, so the record's
    /// sequence is known before its answer.
    pub(crate) async fn connection(&mut self, key: &ConnectionKey, (lifetime, number): (i64, usize)) {
        let now = system::now();
        let connection = OauthConnection::issued(key.subject(), tokens(now, lifetime, number));
        let issued_at =
            IssuedAt { token_url: self.token_url.clone(), client_id: "client".to_owned(), ..IssuedAt::default() };
        let login_id = system::random_id();
        let mut record = connection.clone();
        let part = SealedPart {
            refresh_token: record.refresh_token.take(),
            issued_at: issued_at.clone(),
            login_id: login_id.clone(),
            grant: GrantFacts::default(),
            unknown: serde_json::Map::new(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_SEALED_REFRESH, self.store.seal_part(key, &login_id, &part).expect("sealed"));
        headers.insert(HEADER_COMMAND, login_id.as_str());
        headers.insert(HEADER_STATUS, "active");
        let body = serde_json::to_vec(&record).expect("JSON").into();
        self.records += 1;
        let sequence = self.write(key.record_subject(), headers, body).await;
        assert!(sequence.is_none_or(|sequence| sequence == self.records), "only this code writes records");

        let mut stored = StoredConnection {
            connection,
            issued_at,
            login_id,
            grant: GrantFacts::default(),
            refresh_failure: None,
            unknown: serde_json::Map::new(),
        };
        stored.connection.sequence = self.records;
        stored.connection.modified = u64::try_from(now.as_second()).expect("after 1970");
        let due_at =
            stored.connection.refresh_at(now, Duration::ZERO, system::random_share()).expect("it has a lifetime");
        let (headers, value) = self.store.sealed_connection(key, stored).expect("sealed");
        assert!(headers.get(HEADER_REFRESH).is_none(), "its token is refreshed");
        self.write(kv_subject(CONNECTIONS, &key.kv_key()), headers, value).await;
        let due = schedule::Due { sequence: self.records, slot_reserved: false };
        let schedule::ScheduleMessage { subject, headers, body } =
            schedule::message(key, due_at, due).expect("a schedule");
        self.write(subject, headers, body).await;
    }

    async fn write(&mut self, subject: String, headers: HeaderMap, body: Bytes) -> Option<u64> {
        self.written += 1;
        if self.written.is_multiple_of(UNANSWERED) {
            let answer = self.jetstream.publish_with_headers(subject, headers, body).await.expect("sent");
            Some(answer.await.expect("stored").sequence).filter(|_| self.written % 3 == 1)
        } else {
            self.client.publish_with_headers(subject, headers, body).await.expect("sent");
            None
        }
    }
}

/// Tokens as large as real ones: a JWT of 800 characters and a refresh token of 100.
fn tokens(now: Timestamp, lifetime: i64, number: usize) -> TokenSet {
    TokenSet {
        access_token: Secret::new(format!("{number:0>800}")),
        token_type: "Bearer".to_owned(),
        refresh_token: Some(Secret::new(format!("{number:0>100}"))),
        expires_in: Some(lifetime),
        expiry: now.checked_add(SignedDuration::from_secs(lifetime)).ok(),
        refresh_token_expiry: None,
        scope: Some("read write".to_owned()),
        identity: None,
        id_token: None,
        metadata: serde_json::Map::new(),
        left_out: Vec::new(),
    }
}
