//! The `nats` CLI as a person at a shell has it.

use super::install;
use crate::support::child::Running;
use crate::support::nats::Nats;
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;

/// The CLI with a separate home, so that it uses no saved contexts, and with the bus's address and passwords in the
/// environment.
pub(crate) struct NatsCli<'a> {
    nats: &'a Nats,
    home: TempDir,
}

impl<'a> NatsCli<'a> {
    /// The CLI on `nats`; `None`, with a printed reason, if it cannot be installed.
    pub(crate) fn on(nats: &'a Nats) -> Option<Self> {
        let program = install::nats_cli()?;
        let home = tempfile::tempdir().expect("a temporary folder");
        std::os::unix::fs::symlink(program, home.path().join("nats")).expect("a name for the program");
        Some(Self { nats, home })
    }

    /// Runs a command line, which must succeed, and returns its output.
    pub(crate) async fn prints(&self, line: &str) -> String {
        let (succeeded, printed) = self.tries(line).await;
        assert!(succeeded, "{line}: {printed}");
        printed
    }

    /// Runs a command line. Returns true if it succeeds, and its output, errors included.
    pub(crate) async fn tries(&self, line: &str) -> (bool, String) {
        let mut command = Command::new("bash");
        self.prepare(&mut command, line);
        let output = command.kill_on_drop(true).output().await.expect("bash starts");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).expect("the CLI prints text"))
    }

    /// Starts a command line that keeps running.
    pub(crate) fn start(&self, line: &str) -> Running {
        Running::start(Path::new("bash"), &self.home.path().join("log"), |command| {
            self.prepare(command, &format!("exec {line}"));
        })
    }

    fn prepare(&self, command: &mut Command, line: &str) {
        command.arg("-c").arg(format!(r#"PATH="$HOME:$PATH"; {line}"#));
        command.env("HOME", self.home.path()).env("XDG_CONFIG_HOME", self.home.path());
        command.env_remove("NATS_CONTEXT").env("NATS_URL", &self.nats.url);
        for user in ["worker", "setup", "operator", "admin", "edge", "demo"] {
            command.env(format!("NATS_{}_PASSWORD", user.to_uppercase()), self.nats.password(user));
        }
    }
}
