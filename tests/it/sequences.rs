//! `OAUTH` lost, restored alone or recreated: no worker starts until its sequences continue above all stored ones.

use std::path::{Path, PathBuf};

use async_nats::jetstream::stream;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::fleet::{Fleet, Worker, as_user, eventually};
use crate::provider::Provider;
use crate::support::tokenbus::{ACCOUNT, PROGRAM};

/// A fleet whose stream of records is about to be lost.
struct LosingFleet {
    fleet: Fleet,
    worker: Worker,
    provider: Provider,
}

impl LosingFleet {
    async fn start() -> Self {
        let provider = Provider::generous().await;
        let (fleet, worker) = Fleet::configured(&provider.url).await;
        Self { fleet, worker, provider }
    }

    /// Connects. A killed bus may have lost the work queue, and accepts no command until a worker has recreated
    /// it. In that case the login starts again; its code was not sent.
    async fn connect(&self, name: &str) -> u64 {
        let answer = std::cell::RefCell::new(Value::Null);
        eventually("a login is accepted", async || {
            let state = self.fleet.login(name).await;
            let (status, body) = self.fleet.arrive(&state, "code").await;
            assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status} {body}");
            *answer.borrow_mut() = body;
            status == StatusCode::OK
        })
        .await;
        self.fleet.idle().await;
        answer.into_inner()["sequence"].as_u64().expect("a sequence")
    }

    /// Stops the bus, calls `change` with the folder of the stream `OAUTH`, and starts the bus again.
    async fn with_stopped_bus(&mut self, change: impl FnOnce(&Path)) {
        self.fleet.nats.kill().await;
        change(&folder_of_records(&self.fleet.nats.store()));
        self.fleet.nats.restart_once_killed().await;
    }

    /// Waits for the bus and for the workers' queue. A killed server may lose the queue; a worker then recreates it.
    async fn ready(&self) {
        self.fleet.ready().await;
        let jetstream = self.fleet.jetstream("worker").await;
        eventually("the queue exists", async || match jetstream.get_stream("OAUTH_COMMANDS").await {
            Ok(queue) => queue.consumer_info("exchange").await.is_ok(),
            Err(_) => false,
        })
        .await;
    }

    /// Checks that a worker refuses to start with this error.
    async fn assert_start_fails(&self, expected: &str) {
        let mut command = Command::new(PROGRAM);
        let output = command.args(["serve", "--role", "worker"]).envs(&self.fleet.settings).kill_on_drop(true).output();
        let output = tokio::time::timeout(std::time::Duration::from_mins(1), output).await.expect("it ends").unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(expected), "`{expected}` is not in {errors}");
    }

    /// Checks that `tokenbus setup` fails with this error.
    async fn setup_fails(&self, arguments: &[&str], expected: &str) {
        let settings = as_user(&self.fleet.settings, &self.fleet.nats, "setup");
        let output = Command::new(PROGRAM).arg("setup").args(arguments).envs(&settings).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "`{expected}` is not in {errors}");
    }

    async fn reads(&self, name: &str) -> Option<u64> {
        let (status, body) = self.fleet.get(&format!("odd/oauth-token/{name}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["sequence"].as_u64()
    }
}

fn folder_of_records(store: &Path) -> PathBuf {
    let folder = store.join("jetstream/OAUTH/streams/OAUTH");
    assert!(folder.is_dir(), "{}", folder.display());
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn e7_start_is_refused_while_a_recreated_record_stream_would_go_backwards() {
    let mut lost = LosingFleet::start().await;
    let sequences = [lost.connect("one").await, lost.connect("two").await];
    lost.worker.kill().await;
    lost.with_stopped_bus(|records| std::fs::remove_dir_all(records).unwrap()).await;
    let text = "OAUTH ends at sequence 0, but a stored connection or config has 3";
    lost.assert_start_fails(text).await;
    lost.assert_start_fails("`tokenbus setup --first-seq 1003`").await;
    lost.setup_fails(&[], text).await;
    lost.setup_fails(&["--first-seq", "3"], "has sequence 3; name a higher one").await;

    lost.fleet.cli(&["setup", "--first-seq", "1003"]).await;
    let _worker = lost.fleet.worker().await;
    lost.fleet.ready().await;
    assert_eq!([lost.reads("one").await, lost.reads("two").await], sequences.map(Some));
    let newer = lost.connect("one").await;
    assert_eq!((newer, lost.reads("one").await), (1003, Some(1003)));
    assert_eq!(lost.provider.received().len(), 3);
}

#[tokio::test]
async fn e7_start_is_refused_after_only_the_record_stream_was_restored() {
    let mut lost = LosingFleet::start().await;
    lost.connect("one").await;
    let backup = tempfile::tempdir().unwrap();
    lost.with_stopped_bus(|records| copy_folder(records, backup.path())).await;
    lost.ready().await;
    let (two, one) = (lost.connect("two").await, lost.connect("one").await);
    lost.worker.kill().await;
    lost.with_stopped_bus(|records| {
        std::fs::remove_dir_all(records).unwrap();
        copy_folder(backup.path(), records);
    })
    .await;
    let text = format!("OAUTH ends at sequence 2, but a stored connection or config has {one}");
    lost.assert_start_fails(&text).await;
    lost.setup_fails(&["--first-seq", "1004"], "OAUTH holds 2 records, which must be dropped for that").await;

    lost.fleet.cli(&["setup", "--first-seq", "1004", "--drop-records"]).await;
    lost.fleet.cli(&["setup", "--first-seq", "1004"]).await;
    let _worker = lost.fleet.worker().await;
    lost.fleet.ready().await;
    assert_eq!((lost.reads("one").await, lost.reads("two").await), (Some(one), Some(two)));
    assert_eq!((lost.connect("one").await, lost.reads("one").await), (1004, Some(1004)));
}

#[tokio::test]
async fn e7_a_running_worker_reports_a_record_stream_that_went_backwards() {
    let mut lost = LosingFleet::start().await;
    let stored = lost.connect("one").await;
    let records = lost.fleet.jetstream("setup").await.get_stream("OAUTH").await.unwrap().cached_info().config.clone();
    lost.with_stopped_bus(|records| std::fs::remove_dir_all(records).unwrap()).await;
    // Someone recreates the stream by hand.
    let made = stream::Config { first_sequence: None, ..records };
    lost.fleet.jetstream("setup").await.create_stream(made).await.unwrap();
    lost.ready().await;
    let state = lost.fleet.login("one").await;
    let arrived = lost.fleet.arrive(&state, "code");
    let told = async {
        let text = format!("OAUTH ends at sequence 1, but a stored connection or config has {stored}");
        eventually("the worker logs the error", async || lost.worker.log().contains(&text)).await;
    };
    let ((status, body), ()) = tokio::join!(arrived, told);
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{body}");
}

#[tokio::test]
async fn e7_a_checkpoint_covers_only_the_entries_read_before_it() {
    let mut lost = LosingFleet::start().await;
    lost.worker.kill().await;
    let jetstream = lost.fleet.jetstream("worker").await;
    for hundred in 0..101_u32 {
        let mut acks = Vec::new();
        for number in hundred * 100..(hundred + 1) * 100 {
            let key = format!("$KV.oauth_connections.{ACCOUNT}.odd.n{number}");
            acks.push(jetstream.publish(key, json!({ "sequence": 10_100 - number }).to_string().into()).await.unwrap());
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }
    lost.assert_start_fails("ends at sequence 1, but a stored connection or config has 10100").await;
    let marks: Value = {
        let stream = jetstream.get_stream("KV_oauth_meta").await.unwrap();
        let marks = stream.get_last_raw_message_by_subject("$KV.oauth_meta.marks").await.expect("a mark is set");
        serde_json::from_slice(&marks.payload).unwrap()
    };
    let mark = &marks["oauth_connections"];
    assert_eq!((&mark["upto"], &mark["highest"]), (&json!(10_100), &json!(10_100)));

    // A lower one overwrites the highest one, which the checkpoint does not notice, and another one is even higher.
    for (name, sequence) in [("n0", 7), ("n1", 10_200)] {
        let key = format!("$KV.oauth_connections.{ACCOUNT}.odd.{name}");
        jetstream.publish(key, json!({ "sequence": sequence }).to_string().into()).await.unwrap().await.unwrap();
    }
    lost.assert_start_fails("ends at sequence 1, but a stored connection or config has 10200").await;
}
