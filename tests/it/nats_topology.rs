//! Streams and buckets: declared once, compared afterwards.

use std::collections::HashMap;

use async_nats::jetstream::{self, stream};
use tempfile::TempDir;
use tokio::process::Command;

use crate::bus::{BUCKETS, Bus};

use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run, settings};

const STREAMS: [&str; 5] = ["OAUTH", "OAUTH_COMMANDS", "OAUTH_SCHEDULE", "OAUTH_DEAD", "OAUTH_EVENTS"];

/// A bus with nothing on it, and the settings for `tokenbus setup`.
async fn empty() -> (Nats, HashMap<String, String>, TempDir) {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().expect("a temporary folder"));
    let settings = settings(&nats, "setup", &folder.path().join("keys"));
    (nats, settings, folder)
}

async fn configs(bus: &Bus) -> Vec<stream::Config> {
    let mut all = Vec::new();
    for name in STREAMS.into_iter().chain(BUCKETS) {
        all.push(bus.info(name).await.config);
    }
    all
}

#[tokio::test]
async fn setup_can_be_repeated_and_changes_nothing() {
    let (nats, settings, _folder) = empty().await;
    let bus = Bus::of(&nats).await;
    run(&settings, &["setup"]).await;
    let declared = configs(&bus).await;
    run(&settings, &["setup"]).await;
    assert_eq!(configs(&bus).await, declared);
}

#[tokio::test]
async fn setup_changes_the_maximum_age_of_pending_logins() {
    let (nats, mut settings, _folder) = empty().await;
    let bus = Bus::of(&nats).await;
    run(&settings, &["setup"]).await;
    for seconds in [30, 3_600] {
        settings.insert("TOKENBUS_OAUTH__LOGIN_TTL".to_owned(), format!("{seconds}s"));
        run(&settings, &["setup"]).await;
        assert_eq!(bus.info("KV_oauth_states").await.config.max_age.as_secs(), seconds);
    }
}

#[tokio::test]
async fn a_stream_with_other_settings_is_named_and_left_unchanged() {
    let (nats, settings, _folder) = empty().await;
    let bus = Bus::of(&nats).await;
    run(&settings, &["setup"]).await;
    let theirs = stream::Config { max_messages: 7, ..bus.info("OAUTH_EVENTS").await.config };
    let jetstream = jetstream::new(nats.connect("setup").await);
    jetstream.update_stream(theirs).await.expect("setup may change streams");
    let before = bus.info("OAUTH_EVENTS").await.config;

    let output = Command::new(PROGRAM).arg("setup").envs(&settings).kill_on_drop(true).output().await;
    let output = output.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("OAUTH_EVENTS") && errors.contains("`max_msgs` = 7"), "{errors}");
    assert_eq!(bus.info("OAUTH_EVENTS").await.config, before);
}

#[tokio::test]
async fn setup_enables_direct_reads_on_an_existing_stream_and_loses_nothing() {
    let (nats, mut settings, folder) = empty().await;
    let bus = Bus::of(&nats).await;
    run(&settings, &["setup"]).await;
    let subject = "ms.integration.oauth.A.odd.w.refresh.at";
    bus.fill("OAUTH_SCHEDULE", subject).await;
    let older = stream::Config { allow_direct: false, ..bus.info("OAUTH_SCHEDULE").await.config };
    let jetstream = jetstream::new(nats.connect("setup").await);
    jetstream.update_stream(older).await.expect("setup may change streams");

    let keys = folder.path().join("keys");
    run(&settings, &["keys", "generate", "--out", keys.to_str().expect("a plain path")]).await;
    let (user, password) = ("TOKENBUS_NATS__USER".to_owned(), "TOKENBUS_NATS__PASSWORD".to_owned());
    let as_setup = settings.clone();
    settings.extend([(user, "worker".to_owned()), (password, nats.password("worker").to_owned())]);
    let mut command = Command::new(PROGRAM);
    let output = command.args(["serve", "--role", "worker"]).envs(&settings).kill_on_drop(true).output();
    let output = tokio::time::timeout(std::time::Duration::from_mins(1), output).await;
    let output = output.expect("it ends by itself").expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("OAUTH_SCHEDULE") && errors.contains("`tokenbus setup` adjusts them"), "{errors}");

    run(&as_setup, &["setup"]).await;
    let schedule = bus.info("OAUTH_SCHEDULE").await;
    assert!(schedule.config.allow_direct);
    assert_eq!(schedule.state.messages, 1);
}

#[tokio::test]
async fn a_user_may_be_an_nkey() {
    let (user, stranger) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let (from, to) = ("user: setup, password: $NATS_SETUP_PASSWORD", format!("nkey: {}", user.public_key()));
    let nats = Nats::edited(&[(from, &to)], &[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = folder.path().join("seed");
    let mut settings = settings(&nats, "setup", &folder.path().join("keys"));
    for (name, value) in [
        ("USER", ""),
        ("PASSWORD", ""),
        ("NKEY", seed.to_str().expect("a plain path")),
        ("INBOX_PREFIX", "_INBOX_setup"),
    ] {
        settings.insert(format!("TOKENBUS_NATS__{name}"), value.to_owned());
    }
    std::fs::write(&seed, user.seed().expect("a key pair has a seed")).expect("the folder can be written");
    run(&settings, &["setup"]).await;
    assert_eq!(Bus::of(&nats).await.info("OAUTH").await.config.name, "OAUTH");

    std::fs::write(&seed, stranger.seed().expect("a key pair has a seed")).expect("the folder can be written");
    let output = Command::new(PROGRAM).arg("setup").envs(&settings).kill_on_drop(true).output().await;
    let output = output.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("refuses this user"), "{errors}");
}
