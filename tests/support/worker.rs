//! A worker as a process.

use std::path::PathBuf;
use std::process::ExitStatus;

use crate::support::child::{Running, is_stopped, signal};
use crate::support::wait::eventually;

/// A process with the role `worker`.
pub(crate) struct Worker {
    pub(crate) process: Running,
    pub(super) log: PathBuf,
}

impl Worker {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it logs that it is ready.
    pub(crate) async fn ready(&self) {
        eventually("the worker is ready", async || self.log().contains("ready for commands and calls")).await;
    }

    /// Ends it with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until it is stopped by SIGSTOP.
    pub(crate) async fn stopped(&self) {
        eventually("the worker is stopped", async || is_stopped(self.pid())).await;
    }
}
