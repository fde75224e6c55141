//! `tokenbus restore`: a store made from a backup.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, message::StreamMessage, stream};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokenbus::internals::system::now;
use tokio::time::{sleep, timeout};

use crate::backup::{Store, command, errors, text};
use crate::bus::Bus;
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, settings};
use crate::support::wait::eventually;

/// All streams and buckets.
pub(crate) const STREAMS: [&str; 11] = [
    "OAUTH",
    "OAUTH_COMMANDS",
    "OAUTH_SCHEDULE",
    "OAUTH_DEAD",
    "OAUTH_EVENTS",
    "KV_oauth_connections",
    "KV_oauth_configs",
    "KV_oauth_states",
    "KV_oauth_api_keys",
    "KV_oauth_nonces",
    "KV_oauth_meta",
];

impl Store {
    /// The settings of `setup` on that server, with this store's keyring.
    pub(crate) fn as_setup_of(&self, nats: &Nats) -> HashMap<String, String> {
        let mut settings = settings(nats, "setup", &self.world.tokenbus.keys_file());
        let replicas = if nats.others() > 0 { "3" } else { "1" };
        settings.insert("TOKENBUS_NATS__REPLICAS".to_owned(), replicas.to_owned());
        settings
    }

    /// Restores the backup of that name on that server.
    pub(crate) async fn restore(&self, nats: &Nats, name: &str) -> Value {
        let output = command(&self.as_setup_of(nats), &["restore", &text(&self.path(name)), "--json"], &[]).await;
        assert!(output.status.success(), "{}", errors(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    async fn refused(&self, nats: &Nats, name: &str) -> String {
        let output = command(&self.as_setup_of(nats), &["restore", &text(&self.path(name))], &[]).await;
        assert!(!output.status.success());
        errors(&output)
    }
}

const CHANGED: &str = "was cut or changed after the backup was written";

/// What a stream holds, and its last sequence.
pub(crate) async fn held(nats: &Nats, stream: &str) -> (Vec<String>, u64) {
    let bus = Bus::of(nats).await;
    let describe = |it: StreamMessage| {
        let mut headers: Vec<String> = it.headers.iter().map(|header| format!("{header:?}")).collect();
        headers.sort();
        format!("{} {} {} {headers:?} {:?}", it.sequence, it.subject, it.time, it.payload)
    };
    let messages = bus.messages(stream).await.into_iter().map(describe).collect();
    (messages, bus.last_sequence(stream).await)
}

/// Checks that two servers hold the same messages and consumers. Leaves out schedules, which may be due.
pub(crate) async fn compare(old: &Nats, new: &Nats) {
    for stream in STREAMS.into_iter().filter(|stream| *stream != "OAUTH_SCHEDULE") {
        let ((mut before, _), (mut after, _)) = (held(old, stream).await, held(new, stream).await);
        if stream == "OAUTH_EVENTS" {
            // Tries of the last backup, and the restore.
            let is_old = |event: &String| !event.contains("store_set_up");
            before.retain(is_old);
            after.retain(is_old);
        }
        assert_eq!(before, after, "{stream}");
        let before = consumers(old, stream).await;
        // A cluster lists a consumer once it has elected the consumer's leader.
        let listed = async {
            while consumers(new, stream).await != before {
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(Duration::from_mins(1), listed).await.is_err() {
            assert_eq!(before, consumers(new, stream).await, "{stream}");
        }
    }
}

/// The consumers of a stream, with the messages that they have yet to deliver or that wait for an ack. In a work queue without
/// messages the server raises positions to the stream's end when it restores or restarts, so positions say less.
pub(crate) async fn consumers(nats: &Nats, stream: &str) -> Vec<String> {
    let jetstream = Nats::jetstream(nats.connect("setup").await);
    let stream = jetstream.get_stream_no_info(stream).await.expect("a name");
    let mut found = Vec::new();
    let mut listed = stream.consumers();
    while let Some(consumer) = futures_util::StreamExt::next(&mut listed).await {
        let it = consumer.expect("the server answers");
        // The server deletes the others some time after their reader is gone.
        if it.config.durable_name.is_none() {
            continue;
        }
        found.push(format!("{} {} {}", it.name, it.num_pending, it.num_ack_pending));
    }
    found.sort();
    found
}

async fn streams(nats: &Nats) -> Vec<String> {
    let names = jetstream::new(nats.connect("setup").await).stream_names();
    let names: Vec<_> = futures_util::StreamExt::collect(names).await;
    names.into_iter().map(|name| name.expect("the server answers")).collect()
}

/// Schedules a refresh of the connection in some seconds.
async fn schedule(store: &Store, connection: &str) {
    let nats = &store.world.tokenbus.nats;
    let bus = Bus::of(nats).await;
    bus.age(connection, &store.world.tokenbus.keys_file()).await;
    let stored = bus.stored(connection, &store.world.tokenbus.keys_file()).await;
    let subject = |end: &str| format!("ms.integration.oauth.{ACCOUNT}.odd.{connection}.refresh.{end}");
    let at = now() + SignedDuration::from_secs(10);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Schedule", format!("@at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
    headers.insert("Nats-Schedule-Target", subject("due"));
    let body = json!({ "sequence": stored.connection.sequence }).to_string();
    let jetstream = jetstream::new(nats.connect("worker").await);
    let sent = jetstream.publish_with_headers(subject("at"), headers, body.into()).await;
    sent.expect("sent").await.expect("stored");
}

#[tokio::test]
async fn a_store_moves_to_another_server_and_loses_nothing() {
    let mut store = Store::filled().await;
    let pending = store.world.login("three").await;
    Bus::of(&store.world.tokenbus.nats).await.idle().await;
    store.world.tokenbus.kill().await;
    schedule(&store, "one").await;
    store.final_backup("last").await;

    let new = Nats::start().await;
    let printed = store.restore(&new, "last").await;
    assert_eq!((&printed["kind"], &printed["checks"]), (&json!("final"), &json!([])));
    compare(&store.world.tokenbus.nats, &new).await;
    assert_eq!(consumers(&new, "OAUTH_COMMANDS").await.len(), 5);
    assert_eq!(Bus::of(&new).await.info("OAUTH_SCHEDULE").await.state.messages, 2);
    // A second run changes nothing.
    store.restore(&new, "last").await;

    let requests = store.world.provider.received().len();
    store.world.tokenbus.serve_on(new).await;
    assert!(store.world.tokenbus.log().contains("making a repair pass"), "{}", store.world.tokenbus.log());
    assert_eq!(store.world.read("two").await.0, 200);
    eventually("the schedule has fired", async || store.world.provider.received().len() > requests).await;
    let callback = store.world.callback(&[("code", "canary-code"), ("state", &pending.state)]);
    assert_eq!(store.world.tokenbus.arrive(&callback).await.0, 200, "a login that began before the move ends after it");
    store.world.tokenbus.crash_and_restart().await;
    assert!(!store.world.tokenbus.log().contains("making a repair pass"), "only the first start repairs");
    let refused = store.refused(&store.world.tokenbus.nats, "other").await;
    assert!(refused.contains("holds no backup: name the folder"), "{refused}");
}

#[tokio::test]
async fn a_backup_taken_while_workers_ran_brings_back_neither_commands_nor_pending_logins() {
    let store = Store::filled().await;
    store.world.login("three").await;
    assert!(store.backup("copy", &[]).await.status.success());
    let new = Nats::start().await;
    let output = command(&store.as_setup_of(&new), &["restore", &text(&store.path("copy"))], &[]).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", errors(&output));
    for part in ["3, left out", "rotated", "revoke them again", "deleted", "have to begin again"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let old = &store.world.tokenbus.nats;
    for stream in ["OAUTH_COMMANDS", "KV_oauth_states"] {
        let ((_, last), (messages, new_last)) = (held(old, stream).await, held(&new, stream).await);
        assert_eq!((messages, new_last), (Vec::new(), last), "{stream} continues above its old sequences");
    }
    assert_eq!(held(old, "OAUTH").await, held(&new, "OAUTH").await);
}

#[tokio::test]
async fn e1_a_damaged_or_foreign_backup_is_refused_before_the_first_write() {
    let store = Store::filled().await;
    assert!(store.backup("copy", &[]).await.status.success());
    let new = Nats::start().await;
    let path = |file: &str| store.path("copy").join(file);
    let manifest = std::fs::read_to_string(path("manifest.json")).expect("the manifest");
    let refused = async |file: &str, content: &[u8], reason: &str| {
        let before = std::fs::read(path(file)).expect("a file");
        std::fs::write(path(file), content).expect("it can be written");
        let refused = store.refused(&new, "copy").await;
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(streams(&new).await, [""; 0]);
        std::fs::write(path(file), before).expect("it can be written");
    };
    let records = std::fs::read(path("OAUTH.sealed")).expect("a file");
    let mut changed = records.clone();
    changed[100] ^= 1;
    refused("OAUTH.sealed", &changed, CHANGED).await;
    refused("OAUTH.sealed", &records[..records.len() - 1], CHANGED).await;
    refused("OAUTH.sealed", &std::fs::read(path("OAUTH_DEAD.sealed")).expect("a file"), CHANGED).await;
    refused("manifest.json", manifest.replace("\"running\"", "\"final\"").as_bytes(), CHANGED).await;
    refused("manifest.json", &manifest.as_bytes()[..100], "is not the manifest of a backup").await;
    refused("manifest.json", manifest.replace("\"form\": 1", "\"form\": 2").as_bytes(), "install a newer release")
        .await;

    // Another keyring.
    let keys = text(&store.path("other-keys"));
    let mut other = store.as_setup_of(&new);
    other.insert("TOKENBUS_SECRETS__KEYS_FILE".to_owned(), keys.clone());
    assert!(command(&other, &["keys", "generate", "--out", &keys], &[]).await.status.success());
    let output = command(&other, &["restore", &text(&store.path("copy"))], &[]).await;
    assert!(errors(&output).contains("which is not in the keyring"), "{}", errors(&output));
    assert_eq!(streams(&new).await, [""; 0]);

    // A store in use.
    let refused = store.refused(&store.world.tokenbus.nats, "copy").await;
    assert!(refused.contains("restore into a server or cluster without streams of tokenbus"), "{refused}");
    assert_eq!(store.world.read("one").await.0, 200);
}

#[tokio::test]
async fn a_restore_that_broke_off_is_refused_by_workers_and_setup_and_continues() {
    let mut store = Store::filled().await;
    store.final_backup("last").await;
    let new = Nats::start().await;
    let mut dying = store.as_setup_of(&new);
    dying.insert("FAIL_KILL_AT".to_owned(), "restore_stream_created".to_owned());
    let path = text(&store.path("last"));
    assert!(!command(&dying, &["restore", &path], &[]).await.status.success());
    assert_eq!(streams(&new).await, ["OAUTH"]);
    let setup = command(&store.as_setup_of(&new), &["setup"], &[]).await;
    assert!(errors(&setup).contains("a restore broke off"), "{}", errors(&setup));
    let as_worker = settings(&new, "worker", &store.world.tokenbus.keys_file());
    let mut worker =
        crate::support::child::Running::start(std::path::Path::new(PROGRAM), &store.path("early.log"), |command| {
            command.envs(&as_worker).args(["serve", "--role", "worker"]);
        });
    let log = || std::fs::read_to_string(store.path("early.log")).unwrap_or_default();
    eventually("the worker waits for the restore", async || log().contains("a restore broke off")).await;
    assert_eq!(streams(&new).await, ["OAUTH"]);

    // The server has no room for one of the streams.
    let mut narrow = store.as_setup_of(&new);
    narrow.insert("TOKENBUS_NATS__MAX_BYTES__EVENTS".to_owned(), "1000GiB".to_owned());
    let output = command(&narrow, &["restore", &path], &[]).await;
    assert!(errors(&output).contains("lower `nats.max_bytes.events`"), "{}", errors(&output));
    assert!(streams(&new).await.len() > 1);
    store.restore(&new, "last").await;
    assert_eq!(held(&store.world.tokenbus.nats, "OAUTH").await, held(&new, "OAUTH").await);
    eventually("the worker is ready", async || log().contains("ready for commands and calls")).await;
    worker.kill().await;
}

/// Creates an empty stream that the backup has, as a server that died during a restore leaves one.
pub(crate) async fn create_cut(nats: &Nats, mut config: stream::Config, mark: &str, backup: &str) {
    config.metadata.retain(|key, _| !key.starts_with("tokenbus_"));
    config.metadata.insert(mark.to_owned(), backup.to_owned());
    jetstream::new(nats.connect("setup").await).create_stream(config).await.expect("created");
}

/// Begins to restore the backup `last` on a new server, and dies at the failpoint. Returns the server and the backup's id.
async fn died_at(store: &Store, failpoint: &str, mark: &str) -> (Nats, String) {
    let new = Nats::start().await;
    let mut dying = store.as_setup_of(&new);
    dying.insert("FAIL_KILL_AT".to_owned(), failpoint.to_owned());
    let output = command(&dying, &["restore", &text(&store.path("last"))], &[]).await;
    assert!(!output.status.success());
    let metadata = Bus::of(&new).await.info("OAUTH").await.config.metadata;
    let backup = metadata.get(mark).expect("the stream is marked").clone();
    (new, backup)
}

#[tokio::test]
async fn a_stream_that_a_broken_restore_left_in_part_never_counts_as_restored() {
    let mut store = Store::filled().await;
    store.final_backup("last").await;
    let old = &store.world.tokenbus.nats;

    // All messages of a stream are there.
    let (new, _) = died_at(&store, "restore_stream_sent", "tokenbus_restore").await;
    store.restore(&new, "last").await;
    compare(old, &new).await;

    // A part of the records is missing.
    let (new, _) = died_at(&store, "restore_stream_sent", "tokenbus_restore").await;
    let setup = jetstream::new(new.connect("setup").await);
    setup.get_stream("OAUTH").await.expect("it is there").purge().keep(1).await.expect("purged");
    let refused = store.refused(&new, "last").await;
    assert!(refused.contains("stream OAUTH was cut") && refused.contains("empty their store folders"), "{refused}");

    // Streams that `setup` may delete are restored again.
    let (new, backup) = died_at(&store, "restore_stream_created", "tokenbus_backup").await;
    let config = async |stream| Bus::of(old).await.info(stream).await.config;
    create_cut(&new, config("OAUTH_EVENTS").await, "tokenbus_restore", &backup).await;
    create_cut(&new, config("OAUTH_SCHEDULE").await, "tokenbus_backup", &backup).await;
    store.restore(&new, "last").await;
    compare(old, &new).await;

    // `oauth_meta` is the last.
    let (new, backup) = died_at(&store, "restore_stream_created", "tokenbus_backup").await;
    create_cut(&new, config("KV_oauth_meta").await, "tokenbus_restore", &backup).await;
    let setup = command(&store.as_setup_of(&new), &["setup"], &[]).await;
    assert!(errors(&setup).contains("a restore broke off"), "{}", errors(&setup));
    let refused = store.refused(&new, "last").await;
    assert!(refused.contains("stream KV_oauth_meta was cut"), "{refused}");
}

#[tokio::test]
async fn a_restore_whose_server_dies_ends_soon_and_says_to_run_it_again() {
    let store = Store::filled().await;
    assert!(store.backup("copy", &[]).await.status.success());
    let new = Nats::start().await;
    let mut killing = store.as_setup_of(&new);
    let place = "restore_stream_begun";
    killing.insert("FAIL_KILL_NATS_AT".to_owned(), format!("{place} {}", new.pid()));
    let began = Instant::now();
    let output = command(&killing, &["restore", &text(&store.path("copy"))], &[]).await;
    assert!(!output.status.success());
    assert!(errors(&output).contains("run the same command again"), "{}", errors(&output));
    assert!(began.elapsed() < Duration::from_secs(20), "a chunk is waited for longer: {:?}", began.elapsed());
}
