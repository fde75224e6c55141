//! Where the keyring comes from: a file, the environment, or a command that prints it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::config;
use crate::secret::Secret;

/// How long a command may take to print the keyring.
const TIME: Duration = Duration::from_secs(10);
/// Largest keyring: more than two hundred keys.
const SIZE: usize = 32 * 1024;

/// Why a keyring could not be read, made or changed. Holds nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// No place is configured.
    #[error(
        "no keyring: make one with `tokenbus keys generate` and name it in `secrets.keys_file`, or set `secrets.keys` or `secrets.key_command`"
    )]
    NotConfigured,
    /// More than one place is configured.
    #[error("{0} are both set: the keyring comes from one of them, leave the other empty")]
    Ambiguous(String),
    /// The file cannot be read or written.
    #[error("keyring {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command gives no keyring.
    #[error("`secrets.key_command` ({program}): {reason}")]
    Command {
        /// What was to be run.
        program: String,
        /// What went wrong; nothing of what it printed.
        reason: String,
    },
    /// What is there is no keyring.
    #[error("keyring {place} is not valid: {reason}")]
    Invalid {
        /// Where it comes from.
        place: String,
        /// What is wrong; no key material.
        reason: &'static str,
    },
}

impl KeyringError {
    pub(super) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), source }
    }
}

/// Where the keyring comes from.
#[derive(Clone)]
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// The text itself.
    Text(Secret),
    /// A program with its arguments.
    Command(Vec<String>),
}

impl Source {
    /// The one that is set.
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

    /// The keyring's text.
    pub(super) async fn read(&self) -> Result<Zeroizing<String>, KeyringError> {
        match self {
            Self::File(path) => read_file(path),
            Self::Text(text) => Ok(Zeroizing::new(text.expose().to_owned())),
            Self::Command(command) => printed_by(command, TIME).await,
        }
    }

    pub(super) fn invalid(&self, reason: &'static str) -> KeyringError {
        let place = match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "of `secrets.keys`".to_owned(),
            Self::Command(_) => "of `secrets.key_command`".to_owned(),
        };
        KeyringError::Invalid { place, reason }
    }
}

pub(super) fn read_file(path: &Path) -> Result<Zeroizing<String>, KeyringError> {
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| KeyringError::file(path, error))
}

/// Whether all users of this machine can read a file. What its folders keep from them is not looked at.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0)
}

/// What a program prints on its standard output. Its standard error goes where ours goes.
pub(super) async fn printed_by(command: &[String], time: Duration) -> Result<Zeroizing<String>, KeyringError> {
    let Some((program, arguments)) = command.split_first() else { return Err(KeyringError::NotConfigured) };
    let failed = |reason: String| KeyringError::Command { program: program.clone(), reason };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    // All the room at once: a buffer that grows leaves copies behind.
    let mut printed = Zeroizing::new(Vec::with_capacity(SIZE + 64));
    let most = u64::try_from(SIZE + 1).unwrap_or(u64::MAX);
    let run = async {
        if let Some(output) = child.stdout.take() {
            output.take(most).read_to_end(&mut printed).await?;
        }
        // Whoever prints too much may be waiting for somebody to read it.
        if printed.len() > SIZE { Ok(None) } else { child.wait().await.map(Some) }
    };
    match tokio::time::timeout(time, run).await {
        Err(_) => Err(failed(format!("took longer than {time:?}"))),
        Ok(Err(error)) => Err(failed(format!("cannot be read: {error}"))),
        Ok(Ok(None)) => Err(failed(format!("printed more than {SIZE} bytes"))),
        Ok(Ok(Some(status))) if !status.success() => Err(failed(format!("failed: {status}"))),
        Ok(Ok(Some(_))) => match std::str::from_utf8(&printed) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(failed("printed something that is not text".to_owned())),
        },
    }
}
