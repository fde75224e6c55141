//! `tokenbus backup` and `tokenbus restore`: sealed snapshots of all streams.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use async_nats::jetstream::consumer::PullConsumer;
use serde_json::Value;
use tempfile::TempDir;

use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::child::{Running, signal};
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::support::wait::eventually;
use crate::wire::Wire;
use crate::world::World;

/// A store with two connections, and a place for backups.
pub(crate) struct Store {
    pub(crate) world: World,
    pub(crate) folder: TempDir,
}

impl Store {
    pub(crate) async fn filled() -> Self {
        let world = World::with(Provider::generous().await).await;
        for name in ["one", "two"] {
            assert_eq!(world.connect(name).await.0, 200);
        }
        Bus::of(&world.tokenbus.nats).await.idle().await;
        Self { world, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn as_setup(&self) -> HashMap<String, String> {
        settings(&self.world.tokenbus.nats, "setup", &self.world.tokenbus.keys_file())
    }

    /// `tokenbus backup` into a folder of that name.
    pub(crate) async fn backup(&self, name: &str, more: &[&str]) -> Output {
        let path = self.path(name);
        command(&self.as_setup(), &["backup", &text(&path)], more).await
    }

    /// Ends the program, and takes the last backup.
    pub(crate) async fn final_backup(&mut self, name: &str) {
        self.world.tokenbus.kill().await;
        // The server forgets the pulls of a killed worker after some seconds.
        eventually("no worker waits for commands", async || {
            let output = self.backup(name, &["--final"]).await;
            assert!(output.status.success() || errors(&output).contains("a worker runs"), "{output:?}");
            output.status.success()
        })
        .await;
    }
}

pub(crate) async fn command(settings: &HashMap<String, String>, arguments: &[&str], more: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(arguments).args(more).envs(settings).kill_on_drop(true);
    command.output().await.expect("the program starts")
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("a path of plain letters").to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("a file").path()).collect()
}

#[tokio::test]
async fn e3_a_backup_holds_no_secret_in_clear_and_is_for_its_owner_only() {
    let store = Store::filled().await;
    let as_worker = settings(&store.world.tokenbus.nats, "worker", &store.world.tokenbus.keys_file());
    let refused = command(&as_worker, &["backup", &text(&store.path("copy"))], &[]).await;
    assert!(errors(&refused).contains("run this command as NATS user `setup`"), "{}", errors(&refused));
    assert!(errors(&refused).len() < 400, "no list of permissions: {}", errors(&refused));
    let taken = store.backup("copy/", &["--json"]).await;
    assert!(taken.status.success(), "{}", errors(&taken));
    assert!(errors(&taken).contains("the keyring is not in the backup"), "{}", errors(&taken));
    let printed: Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert_eq!(printed["kind"], "running");
    assert!(printed["streams"]["OAUTH"]["messages"].as_u64().is_some_and(|messages| messages >= 3), "{printed}");

    let folder = store.path("copy");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let all = files(&folder);
    assert_eq!(all.len(), 12, "a manifest and 11 streams: {all:?}");
    let keyring = std::fs::read_to_string(store.world.tokenbus.keys_file()).expect("the keyring");
    let keys: Vec<&str> =
        keyring.lines().filter_map(|line| line.split('"').nth(1)).filter(|it| it.len() > 40).collect();
    assert_eq!(keys.len(), 2, "{keyring}");
    for path in all {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let content = std::fs::read(&path).expect("a file");
        let printed = [taken.stdout.clone(), taken.stderr.clone(), content].concat();
        for secret in ["canary", "generous-", "access_token", keys[0], keys[1]] {
            let found = printed.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} in {}", path.display());
        }
    }

    let inner = store.backup("missing/copy", &[]).await;
    assert!(errors(&inner).contains("missing does not exist: create it first"), "{}", errors(&inner));
    let again = store.backup("copy", &[]).await;
    assert!(errors(&again).contains("exists: name a folder that does not exist yet"), "{}", errors(&again));
}

/// A worker that answers calls and takes no commands, because its clock is wrong.
async fn silent_worker(store: &Store) -> Running {
    let worker = settings(&store.world.tokenbus.nats, "worker", &store.world.tokenbus.keys_file());
    let log = store.path("worker.log");
    let running = Running::start(Path::new(PROGRAM), &log, |command| {
        command.envs(&worker).env("FAIL_CLOCK_AHEAD", "7200").args(["serve", "--role", "worker"]);
    });
    eventually("it takes no commands", async || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("ready for commands and calls") && log.contains("takes no commands")
    })
    .await;
    std::fs::remove_file(&log).expect("a log");
    let setup = async_nats::jetstream::new(store.world.tokenbus.nats.connect("setup").await);
    eventually("the pulls of the killed worker are over", async || {
        let mut waiting = 0;
        for verb in ["exchange", "refresh", "revoke", "put", "delete"] {
            let consumer: PullConsumer =
                setup.get_consumer_from_stream(verb, "OAUTH_COMMANDS").await.expect("workers made it");
            waiting += consumer.cached_info().num_waiting;
        }
        waiting == 0
    })
    .await;
    running
}

#[tokio::test]
async fn a_final_backup_is_refused_while_a_worker_runs_or_a_command_waits() {
    let mut store = Store::filled().await;
    let events =
        async |store: &Store| Bus::of(&store.world.tokenbus.nats).await.info("OAUTH_EVENTS").await.state.messages;
    let before = events(&store).await;
    let refused = store.backup("last", &["--final"]).await;
    assert_eq!(events(&store).await, before, "a refused backup has no event");
    assert!(!refused.status.success() && errors(&refused).contains("a worker runs"), "{}", errors(&refused));
    assert_eq!(files(store.folder.path()), [""; 0].map(PathBuf::from), "a refused backup leaves nothing");

    store.world.tokenbus.kill().await;
    let mut idle = silent_worker(&store).await;
    let refused = store.backup("last", &["--final"]).await;
    assert!(errors(&refused).contains("a worker runs"), "it takes no commands: {}", errors(&refused));
    signal(idle.pid(), "STOP");
    let refused = store.backup("last", &["--final"]).await;
    assert!(errors(&refused).contains("a worker runs"), "it is stopped: {}", errors(&refused));
    idle.kill().await;

    store.final_backup("last").await;
    let bus = Bus::of(&store.world.tokenbus.nats).await;
    let subject = format!("ms.integration.oauth.{}.odd.one.exchange", crate::support::tokenbus::ACCOUNT);
    bus.fill("OAUTH_COMMANDS", &subject).await;
    let refused = store.backup("more", &["--final"]).await;
    assert!(errors(&refused).contains("OAUTH_COMMANDS holds 1 commands"), "{}", errors(&refused));
    assert!(!store.path("more").exists());
}

/// The limit of a file's size stands for a full disk.
#[tokio::test]
async fn a_backup_that_cannot_be_written_leaves_nothing_and_one_that_was_killed_is_taken_again() {
    let store = Store::filled().await;
    let path = text(&store.path("full"));
    let script = format!("trap '' XFSZ; ulimit -f 1; exec {PROGRAM} backup {path}");
    let output = tokio::process::Command::new("bash").args(["-c", &script]).envs(store.as_setup()).output().await;
    let output = output.expect("bash starts");
    assert!(!output.status.success() && errors(&output).contains("File too large"), "{}", errors(&output));
    assert_eq!(files(store.folder.path()), [""; 0].map(PathBuf::from));

    let partial = store.path("full.partial");
    let mut dying = store.as_setup();
    dying.insert("FAIL_KILL_AT".to_owned(), "backup_stream_written".to_owned());
    assert!(!command(&dying, &["backup", &path], &[]).await.status.success());
    assert!(partial.exists() && !store.path("full").exists());
    let taken = store.backup("full", &[]).await;
    assert!(taken.status.success(), "{}", errors(&taken));
    assert!(!partial.exists());
}

#[tokio::test]
async fn e9_only_setup_asks_for_snapshots_and_restores_them() {
    let nats = Nats::start().await;
    for user in ["worker", "operator", "edge", "admin"] {
        let mut wire = Wire::connect(&nats, user).await;
        for subject in [
            "$JS.API.STREAM.SNAPSHOT.OAUTH",
            "$JS.SNAPSHOT.ACK.OAUTH.x.1.1",
            "$JS.API.STREAM.RESTORE.OAUTH",
            "$JS.SNAPSHOT.RESTORE.OAUTH.x",
        ] {
            assert!(!wire.may_publish(subject).await, "{user} may publish {subject}");
        }
    }
}
