//! Sources of the keyring: a file, the setting itself (mostly from the environment), or a command that prints it.

use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::file::InvalidKeyring;
use crate::config;
use crate::secret::Secret;

/// Longest time for a command to print the keyring. A worker waits for it at its start.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest keyring that a command may print: more than two hundred keys.
const MAX_PRINTED_BYTES: usize = 32 * 1024;

/// A keyring that could not be read, created or changed. Holds no key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error(
        "no keyring: create one with `tokenbus keys generate` and name it in `secrets.keys_file`, or set `secrets.keys` or `secrets.key_command`"
    )]
    NotConfigured,
    #[error("{0} are both set: the keyring comes from one of them, leave the other empty")]
    Ambiguous(String),
    #[error("keyring {path}: {source}")]
    File { path: String, source: io::Error },
    #[error("`secrets.key_command` ({program}): {source}")]
    Command { program: String, source: CommandError },
    #[error("keyring {place} is not valid: {source}")]
    Invalid {
        /// File or setting.
        place: String,
        source: InvalidKeyring,
    },
}

/// A command that printed no keyring. Holds nothing of what it printed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("took longer than {0:?}")]
    Timeout(Duration),
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("printed more than {MAX_PRINTED_BYTES} bytes")]
    TooLong,
    #[error("failed: {0}")]
    Failed(ExitStatus),
    #[error("printed something that is not text: {0}")]
    NotText(#[from] std::str::Utf8Error),
}

impl KeyringError {
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.display().to_string(), source }
    }
}

#[derive(Clone)]
pub(super) enum Source {
    File(PathBuf),
    Text(Secret),
    /// Program and arguments.
    Command(Vec<String>),
}

impl Source {
    pub(super) fn of(settings: &config::Secrets) -> Result<Self, KeyringError> {
        let config::Secrets { keys_file, keys, key_command } = settings;
        let file = Some(keys_file).filter(|path| !path.as_os_str().is_empty());
        let text = Some(keys).filter(|keys| !keys.is_empty());
        let command = Some(key_command).filter(|command| !command.is_empty());
        match (file, text, command) {
            (Some(path), None, None) => Ok(Self::File(path.clone())),
            (None, Some(text), None) => Ok(Self::Text(text.clone())),
            (None, None, Some(command)) => Ok(Self::Command(command.clone())),
            (None, None, None) => Err(KeyringError::NotConfigured),
            (Some(_), Some(_), _) => Err(KeyringError::Ambiguous("`secrets.keys_file` and `secrets.keys`".to_owned())),
            (Some(_), None, Some(_)) => {
                Err(KeyringError::Ambiguous("`secrets.keys_file` and `secrets.key_command`".to_owned()))
            }
            (None, Some(_), Some(_)) => {
                Err(KeyringError::Ambiguous("`secrets.keys` and `secrets.key_command`".to_owned()))
            }
        }
    }

    pub(super) async fn read(&self) -> Result<Zeroizing<String>, KeyringError> {
        match self {
            Self::File(path) => read_file(path),
            Self::Text(text) => Ok(Zeroizing::new(text.expose().to_owned())),
            Self::Command(command) => printed_by(command, COMMAND_TIMEOUT).await,
        }
    }

    pub(super) fn invalid(&self, source: InvalidKeyring) -> KeyringError {
        let place = match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "of `secrets.keys`".to_owned(),
            Self::Command(_) => "of `secrets.key_command`".to_owned(),
        };
        KeyringError::Invalid { place, source }
    }
}

pub(super) fn read_file(path: &Path) -> Result<Zeroizing<String>, KeyringError> {
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| KeyringError::file(path, error))
}

/// Returns true if all users of this machine can read a file. Does not look at the permissions of its folders.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0)
}

/// Returns the standard output of a program. Its standard error is that of this process.
pub(super) async fn printed_by(command: &[String], time: Duration) -> Result<Zeroizing<String>, KeyringError> {
    let Some((program, arguments)) = command.split_first() else { return Err(KeyringError::NotConfigured) };
    let run = run(program, arguments, time).await;
    run.map_err(|source| KeyringError::Command { program: program.clone(), source })
}

/// A command that was started. Dropping it ends the command, and all processes that it has started, unless it has ended.
struct Running {
    child: Child,
    /// Its process group, until it has ended. `None` at a terminal: there the command may ask a person, and Ctrl-C reaches it anyway.
    group: Option<Pid>,
}

impl Running {
    fn start(program: &str, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let has_own_group = !io::stdin().is_terminal();
        if has_own_group {
            command.process_group(0);
        }
        let child = command.spawn()?;
        let id = child.id().filter(|_| has_own_group).and_then(|id| i32::try_from(id).ok());
        Ok(Self { child, group: id.and_then(Pid::from_raw) })
    }

    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // Another process may get this id from now on.
        self.group = None;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // An error means that no process is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn run(program: &str, arguments: &[String], time: Duration) -> Result<Zeroizing<String>, CommandError> {
    let mut running = Running::start(program, arguments).map_err(CommandError::Start)?;
    // Allocated at once: a growing buffer leaves copies of secrets in memory.
    let mut printed = Zeroizing::new(Vec::with_capacity(MAX_PRINTED_BYTES + 64));
    let most = u64::try_from(MAX_PRINTED_BYTES + 1).unwrap_or(u64::MAX);
    let finished = async {
        if let Some(output) = running.child.stdout.take() {
            output.take(most).read_to_end(&mut printed).await?;
        }
        // Don't wait for a program that prints more: it may be waiting for a reader.
        if printed.len() > MAX_PRINTED_BYTES { Ok(None) } else { running.ended().await.map(Some) }
    };
    let Ok(finished) = tokio::time::timeout(time, finished).await else { return Err(CommandError::Timeout(time)) };
    match finished.map_err(CommandError::Read)? {
        None => Err(CommandError::TooLong),
        Some(status) if !status.success() => Err(CommandError::Failed(status)),
        Some(_) => Ok(Zeroizing::new(std::str::from_utf8(&printed)?.to_owned())),
    }
}
