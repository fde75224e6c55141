//! A worker or gateway, which may be away.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenbus::internals::config::env;

use crate::links::Links;
use crate::support::child::{Running, signal};
use crate::support::tokenbus::PROGRAM;

pub(crate) struct Process {
    pub(crate) name: String,
    program: PathBuf,
    role: &'static str,
    settings: HashMap<String, String>,
    pub(crate) links: Links,
    /// The file with the seconds by which its clock is ahead.
    clock: PathBuf,
    folder: PathBuf,
    starts: usize,
    running: Option<Running>,
}

impl Process {
    /// A process with these settings, whose links lead to the servers in them.
    pub(crate) async fn new(
        role: &'static str,
        number: usize,
        mut settings: HashMap<String, String>,
        folder: &Path,
    ) -> Self {
        let (name, folder) = (format!("{role}-{number}"), folder.to_owned());
        let links = Links::to(&settings["TOKENBUS_NATS__URL"]).await;
        settings.insert("TOKENBUS_NATS__URL".to_owned(), links.urls.clone());
        let clock = folder.join(format!("{name}.clock"));
        settings.insert("FAIL_CLOCK_FILE".to_owned(), clock.display().to_string());
        let program = env("CHAOS_PROGRAM").map_or_else(|| PROGRAM.into(), PathBuf::from);
        let process = Self { name, program, role, settings, links, clock, folder, starts: 0, running: None };
        process.set_clock(0);
        process
    }

    pub(crate) fn start(&mut self) {
        self.starts += 1;
        self.running = Some(Running::start(&self.program, &self.log_file(), |command| {
            command.envs(&self.settings).args(["serve", "--role", self.role]);
        }));
    }

    /// The process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join(format!("{}.{}.log", self.name, self.starts))
    }

    /// The log since its last start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(crate) async fn kill_or_start(&mut self, is_begin: bool) {
        if !is_begin {
            self.start();
        } else if let Some(mut running) = self.running.take() {
            running.kill().await;
        }
    }

    pub(crate) fn stop(&self, is_begin: bool) {
        if let Some(running) = &self.running {
            signal(running.pid(), if is_begin { "STOP" } else { "CONT" });
        }
    }

    pub(crate) fn set_clock(&self, seconds: i64) {
        // Written beside it first: the process may read it at any time.
        let new = self.clock.with_extension("new");
        std::fs::write(&new, seconds.to_string()).expect("the folder can be written");
        std::fs::rename(&new, &self.clock).expect("the folder can be written");
    }

    /// Returns true if it is a gateway, or a worker that takes commands.
    pub(crate) fn is_ready(&self) -> bool {
        self.role == "edge" || self.log().contains("ready for commands and calls")
    }

    /// Ends it with SIGTERM, and starts it again.
    pub(crate) async fn restart(&mut self) {
        if let Some(mut running) = self.running.take() {
            signal(running.pid(), "TERM");
            running.ended().await;
        }
        self.start();
    }

    /// Its name if it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.running.as_mut().is_some_and(Running::has_ended).then(|| self.name.clone())
    }
}
