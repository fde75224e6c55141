//! What operators do to the store: its limits and its sealing keys.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use async_nats::jetstream;
use serde_json::Value;
use tokio::process::Command;

use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run};
use crate::support::wait::eventually;

/// The setting of the limit of the stream of records.
const LIMIT: &str = "TOKENBUS_NATS__MAX_BYTES__OAUTH";

pub(crate) struct Store {
    as_setup: HashMap<String, String>,
    as_worker: HashMap<String, String>,
    folder: PathBuf,
    /// A key that seals nothing yet.
    new_key: Option<String>,
    /// `keys rotate`. A new one ends the one before.
    rotation: Option<Running>,
    keys: usize,
}

impl Store {
    pub(crate) fn new(as_setup: HashMap<String, String>, as_worker: HashMap<String, String>, folder: PathBuf) -> Self {
        Self { as_setup, as_worker, folder, new_key: None, rotation: None, keys: 0 }
    }

    /// Creates the streams, and returns the limits to their usual values.
    pub(crate) async fn set_up(&self) {
        // A cluster refuses it until it has elected a leader, and a server may be about to start.
        eventually("`tokenbus setup` succeeds", async || self.succeeds(&["setup"], &self.as_setup).await).await;
    }

    /// Takes the room of the stream of records. Does nothing while no server answers.
    pub(crate) async fn fill(&self, nats: &Nats) {
        let jetstream = jetstream::new(nats.connect("setup").await);
        let Ok(stream) = jetstream.get_stream("OAUTH").await else { return };
        let mut full = self.as_setup.clone();
        full.insert(LIMIT.to_owned(), stream.cached_info().state.bytes.to_string());
        let is_full = self.succeeds(&["setup"], &full).await;
        println!("         OAUTH is full: {is_full}");
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
                self.succeeds(&["keys", "rotate"], &self.as_worker).await
            })
            .await;
        }
    }

    fn keyring(&self) -> String {
        self.folder.join("keys").display().to_string()
    }

    async fn succeeds(&self, arguments: &[&str], settings: &HashMap<String, String>) -> bool {
        let output = Command::new(PROGRAM).args(arguments).envs(settings).kill_on_drop(true).output().await;
        let output = output.expect("the program starts");
        if !output.status.success() {
            println!("         tokenbus {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        output.status.success()
    }
}
