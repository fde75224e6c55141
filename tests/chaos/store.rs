//! What operators do to the store: its limits and its sealing keys.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use async_nats::jetstream;
use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run};
use crate::support::wait::{PATIENCE, eventually};

/// The setting of the limit of the stream of records.
const LIMIT: &str = "TOKENBUS_NATS__MAX_BYTES__OAUTH";

pub(crate) struct Store {
    as_setup: HashMap<String, String>,
    as_worker: HashMap<String, String>,
    folder: PathBuf,
    /// Changes the limits. A new change ends the one before.
    limiting: Option<JoinSet<()>>,
    /// A key that seals nothing yet.
    new_key: Option<String>,
    /// `keys rotate`. A new one ends the one before.
    rotation: Option<Running>,
    keys: usize,
}

impl Store {
    pub(crate) fn new(as_setup: HashMap<String, String>, as_worker: HashMap<String, String>, folder: PathBuf) -> Self {
        Self { as_setup, as_worker, folder, limiting: None, new_key: None, rotation: None, keys: 0 }
    }

    /// Creates the streams, and returns the limits to their usual values.
    pub(crate) async fn set_up(&mut self) {
        self.limiting = None;
        until_set_up(self.as_setup.clone()).await;
    }

    /// Takes the room of the stream of records, unless no server answers. Does not wait: a later step may start the servers.
    pub(crate) fn fill(&mut self, nats: &Nats) {
        let (login, servers) = (nats.login_of("setup"), nats.url.clone());
        let mut full = self.as_setup.clone();
        self.limiting = Some(in_background(async move {
            let Ok(client) = login.connect(servers.split(',').collect::<Vec<_>>()).await else { return };
            let Ok(stream) = jetstream::new(client).get_stream("OAUTH").await else { return };
            full.insert(LIMIT.to_owned(), stream.cached_info().state.bytes.to_string());
            let is_full = succeeds(&["setup"], &full).await;
            println!("         OAUTH is full: {is_full}");
        }));
    }

    /// Returns the limits to their usual values as soon as the servers allow it. Does not wait, as [`Store::fill`].
    pub(crate) fn empty(&mut self) {
        self.limiting = Some(in_background(until_set_up(self.as_setup.clone())));
    }

    /// Adds a key to the keyring.
    pub(crate) async fn add_key(&mut self) {
        let added = run(&self.as_worker, &["keys", "add", "--file", &self.keyring(), "--json"]).await;
        let added: Value = serde_json::from_str(&added).expect("`keys add` prints JSON");
        self.new_key = added["id"].as_str().map(str::to_owned);
    }

    /// Seals with the new key from now on, and begins to seal everything again.
    pub(crate) async fn use_key(&mut self) {
        let key = self.new_key.take().expect("a key was added");
        run(&self.as_worker, &["keys", "promote", &key, "--file", &self.keyring()]).await;
        self.keys += 1;
        let log = self.folder.join(format!("rotate.{}.log", self.keys));
        self.rotation = Some(Running::start(Path::new(PROGRAM), &log, |command| {
            command.envs(&self.as_worker).args(["keys", "rotate"]);
        }));
    }

    /// Seals everything with the newest key, if there is one. The command is run again after an interruption.
    pub(crate) async fn rotate(&mut self) {
        self.rotation = None;
        if self.keys > 0 {
            eventually("`tokenbus keys rotate` succeeds", async || {
                succeeds(&["keys", "rotate"], &self.as_worker).await
            })
            .await;
        }
    }

    fn keyring(&self) -> String {
        self.folder.join("keys").display().to_string()
    }
}

/// A task that ends when this is dropped.
fn in_background(task: impl Future<Output = ()> + Send + 'static) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    tasks
}

async fn until_set_up(as_setup: HashMap<String, String>) {
    // A cluster refuses it until it has elected a leader, and a server may be about to start.
    let end = Instant::now() + PATIENCE;
    while !succeeds(&["setup"], &as_setup).await {
        assert!(Instant::now() < end, "`tokenbus setup` succeeds");
    }
}

async fn succeeds(arguments: &[&str], settings: &HashMap<String, String>) -> bool {
    let output = Command::new(PROGRAM).args(arguments).envs(settings).kill_on_drop(true).output().await;
    let output = output.expect("the program starts");
    if !output.status.success() {
        println!("         tokenbus {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    output.status.success()
}
