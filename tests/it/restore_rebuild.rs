//! `tokenbus setup --rebuild`: queues and events get another persistence.

use async_nats::jetstream;
use async_nats::jetstream::stream::PersistenceMode;
use serde_json::Value;

use crate::backup::{Store, command, errors, text};
use crate::bus::Bus;
use crate::provider::Provider;
use crate::restore::{consumers, create_cut, held};
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::support::wait::eventually;
use crate::world::World;

const REBUILT: [&str; 3] = ["OAUTH_COMMANDS", "OAUTH_SCHEDULE", "OAUTH_EVENTS"];

async fn persistence(nats: &Nats) -> Vec<Option<PersistenceMode>> {
    let bus = Bus::of(nats).await;
    let mut found = Vec::new();
    for stream in REBUILT {
        found.push(bus.info(stream).await.config.persist_mode);
    }
    found
}

/// A store whose queues and events have the persistence that the settings do not ask for, with two connections. Nothing runs.
async fn old_store() -> Store {
    old_store_on(Nats::start().await).await
}

async fn old_store_on(nats: Nats) -> Store {
    let mut world = World::on(nats, Provider::generous().await).await;
    Bus::of(&world.tokenbus.nats).await.idle().await;
    world.tokenbus.kill().await;
    let setup = jetstream::new(world.tokenbus.nats.connect("setup").await);
    for stream in REBUILT {
        let mut config = Bus::of(&world.tokenbus.nats).await.info(stream).await.config;
        let is_async = config.persist_mode == Some(PersistenceMode::Async);
        config.persist_mode = (!is_async).then_some(PersistenceMode::Async);
        setup.delete_stream(stream).await.expect("deleted");
        setup.create_stream(config).await.expect("created");
    }
    world.tokenbus.start_again().await;
    for name in ["one", "two"] {
        assert_eq!(world.connect(name).await.0, 200);
    }
    Bus::of(&world.tokenbus.nats).await.idle().await;
    world.tokenbus.kill().await;
    Store { world, folder: tempfile::tempdir().expect("a temporary folder") }
}

async fn messages(nats: &Nats) -> Vec<(Vec<String>, Vec<String>)> {
    let mut found = Vec::new();
    for stream in REBUILT {
        let (mut messages, _) = held(nats, stream).await;
        messages.retain(|message| !message.contains("store_set_up"));
        found.push((messages, consumers(nats, stream).await));
    }
    found
}

#[tokio::test]
async fn a_rebuild_changes_the_persistence_of_streams_keeps_all_messages_and_continues_after_a_crash() {
    let mut store = old_store().await;
    let as_setup = store.as_setup_of(&store.world.tokenbus.nats);
    let nats = &store.world.tokenbus.nats;
    let (old, before) = (persistence(nats).await, messages(nats).await);
    let doctor = command(&as_setup, &["doctor", "--role", "setup"], &[]).await;
    let printed = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(printed.contains("! persistence ") && printed.contains("streams have an older shape"), "{printed}");
    assert!(printed.contains("OAUTH_COMMANDS: ") && printed.contains("setup --rebuild DIR"), "{printed}");

    let path = text(&store.path("rebuild"));
    died(&store, &path).await;
    assert!(Bus::of(nats).await.try_info("OAUTH_COMMANDS").await.is_none(), "it was deleted");
    for (arguments, user) in [(&["setup"][..], "setup"), (&["serve", "--role", "worker"], "worker")] {
        let mut process = tokio::process::Command::new(PROGRAM);
        process.args(arguments).envs(settings(nats, user, &store.world.tokenbus.keys_file())).kill_on_drop(true);
        let log = store.path(user);
        process.stderr(std::fs::File::create(&log).expect("a log"));
        let running = process.spawn().expect("the program starts");
        eventually("the store is refused", async || {
            let log = std::fs::read_to_string(&log).expect("a log");
            log.contains(&format!("run `tokenbus setup --rebuild {path}` again"))
        })
        .await;
        drop(running);
    }
    let other = command(&as_setup, &["setup", "--rebuild", &text(&store.path("other"))], &[]).await;
    assert!(errors(&other).contains(&format!("its backup is in {path}")), "{}", errors(&other));
    assert!(Bus::of(nats).await.try_info("OAUTH_COMMANDS").await.is_none(), "nothing has created it");

    let done = command(&as_setup, &["setup", "--rebuild", &path], &[]).await;
    assert!(done.status.success(), "{}", errors(&done));
    assert!(
        errors(&done).contains("created again, with all messages and consumers: OAUTH_COMMANDS"),
        "{}",
        errors(&done)
    );
    assert!(!store.path("rebuild").exists());
    assert_eq!(messages(nats).await, before);
    assert!(persistence(nats).await.iter().zip(old).all(|(new, old)| *new != old), "all have changed");
    let again = command(&as_setup, &["setup", "--rebuild", &path], &[]).await;
    assert!(errors(&again).contains("all streams have the shape of the settings"), "{}", errors(&again));
    let doctor = command(&as_setup, &["doctor", "--role", "setup"], &[]).await;
    let printed = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(printed.contains("✓ persistence") && printed.contains("never add a `cluster` block"), "{printed}");

    store.world.tokenbus.start_again().await;
    assert_eq!(store.world.read("one").await.0, 200);
    assert_eq!(store.world.connect("three").await.0, 200);
}

/// Runs `setup --rebuild` until it dies after the deletion of the first stream.
async fn died(store: &Store, folder: &str) {
    let mut dying = store.as_setup_of(&store.world.tokenbus.nats);
    dying.insert("FAIL_KILL_AT".to_owned(), "rebuild_stream_deleted".to_owned());
    eventually("no worker waits for commands", async || {
        let output = command(&dying, &["setup", "--rebuild", folder], &[]).await;
        output.status.code().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_rebuild_restores_a_stream_again_that_was_left_in_part_and_replaces_an_empty_queue() {
    let store = old_store().await;
    let nats = &store.world.tokenbus.nats;
    let (old, before) = (persistence(nats).await, messages(nats).await);
    let path = text(&store.path("rebuild"));
    let commands = Bus::of(nats).await.info("OAUTH_COMMANDS").await.config;
    died(&store, &path).await;
    let manifest = std::fs::read_to_string(store.path("rebuild").join("manifest.json")).expect("the manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let backup = manifest["manifest"]["id"].as_str().expect("an id");

    let setup = jetstream::new(nats.connect("setup").await);
    for (stream, mark) in [("OAUTH_SCHEDULE", "tokenbus_restore"), ("OAUTH_EVENTS", "tokenbus_backup")] {
        let config = Bus::of(nats).await.info(stream).await.config;
        setup.delete_stream(stream).await.expect("deleted");
        create_cut(nats, config, mark, backup).await;
    }
    // As a worker of an earlier release creates it.
    setup.create_stream(commands).await.expect("created");

    let done = command(&store.as_setup_of(nats), &["setup", "--rebuild", &path], &[]).await;
    assert!(done.status.success(), "{}", errors(&done));
    assert_eq!(messages(nats).await, before);
    assert!(persistence(nats).await.iter().zip(old).all(|(new, old)| *new != old), "all have changed");
    assert!(!store.path("rebuild").exists());
}

/// The server has no room for a limit of the settings, or for what it has already: it was started again with less storage.
#[tokio::test]
async fn a_rebuild_that_the_server_has_no_room_for_deletes_nothing() {
    let (large, small) = ("max_file_store: 100GB", "max_file_store: 100MB");
    let nats = Nats::edited(&[("sync_interval: always", &format!("sync_interval: always\n  {large}"))], &[]).await;
    let mut store = old_store_on(nats).await;
    let (as_setup, path) = (store.as_setup_of(&store.world.tokenbus.nats), text(&store.path("rebuild")));
    let nats = &mut store.world.tokenbus.nats;
    let (old, before) = (persistence(nats).await, messages(nats).await);
    for (limit, text) in [("1000GiB", "lower `nats.max_bytes.events`"), ("100MiB", "the server has no room for stream")]
    {
        let mut settings = as_setup.clone();
        settings.insert("TOKENBUS_NATS__MAX_BYTES__EVENTS".to_owned(), limit.to_owned());
        eventually("the killed worker is forgotten", async || {
            let refused = command(&settings, &["setup", "--rebuild", &path], &[]).await;
            let errors = errors(&refused);
            assert!(!refused.status.success(), "{limit}");
            assert!(errors.contains("a worker runs") || errors.contains("nothing was deleted"), "{limit}: {errors}");
            errors.contains(text)
        })
        .await;
        assert!(!std::path::Path::new(&path).exists(), "no backup was taken");
        assert_eq!((persistence(nats).await, messages(nats).await), (old.clone(), before.clone()), "{limit}");
        nats.stop().await;
        let config = nats.store().with_file_name("server.conf");
        let shown = std::fs::read_to_string(&config).expect("a copy");
        std::fs::write(&config, shown.replace(large, small)).expect("the folder can be written");
        nats.restart_once_killed().await;
    }
}

#[tokio::test]
async fn a_running_worker_creates_no_queue_during_a_rebuild() {
    let world = World::with(Provider::generous().await).await;
    let nats = &world.tokenbus.nats;
    let setup = jetstream::new(nats.connect("setup").await);
    let meta = setup.get_key_value("oauth_meta").await.expect("the bucket is there");
    let under_way = r#"{"backup":"some","folder":"/backups/rebuild"}"#;
    meta.put("rebuild", under_way.into()).await.expect("stored");
    setup.delete_stream("OAUTH_COMMANDS").await.expect("deleted");
    eventually("the worker waits for the rebuild", async || {
        world.tokenbus.log().contains("cannot restore the queues: a rebuild of streams broke off")
    })
    .await;
    assert!(Bus::of(nats).await.try_info("OAUTH_COMMANDS").await.is_none());
    meta.delete("rebuild").await.expect("stored");
    eventually("the worker creates the queue", async || Bus::of(nats).await.try_info("OAUTH_COMMANDS").await.is_some())
        .await;
}
