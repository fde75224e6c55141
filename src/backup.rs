//! Backups: a folder of sealed snapshots, one for each stream, with a manifest.
//!
//! The server hands out a snapshot in clear even if it encrypts its store, and the records hold access tokens. So each chunk is
//! sealed with a key of the keyring before it is written to disk. The keyring itself is not part of a backup.

mod folder;
mod manifest;
mod rebuild;
mod restore;
mod take;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::manifest::{Kind, Manifest, Part};
pub(crate) use self::rebuild::rebuild;
pub(crate) use self::restore::{Restored, open, restore};
pub(crate) use self::take::{Plan, prepare, take};
use crate::jetstream::NatsError;
use crate::protocol::topology::TopologyError;
use crate::seal::SealError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} exists: name a folder that does not exist yet", .0.display())]
    Exists(PathBuf),
    #[error("{} does not exist: create it first", .0.display())]
    NoParent(PathBuf),
    #[error("{} holds no backup: name the folder that `tokenbus backup` wrote", .0.display())]
    NoBackup(PathBuf),
    #[error("another backup writes to {}: wait for its end, or name another folder", .0.display())]
    Busy(PathBuf),
    #[error("a worker runs: stop all gateways, then all workers, and try again")]
    WorkersRun,
    #[error(
        "OAUTH_COMMANDS holds {0} commands, which would be lost: stop all gateways, let a worker run until no command waits, \
         stop it, and try again (docs/operations.md, \"Waiting for the queue\", has the command that counts them)"
    )]
    CommandsWait(u64),
    #[error("stream {0} has changed during the backup: stop all gateways, then all workers, and try again")]
    Written(String),
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("{0}; nothing was deleted")]
    NothingDeleted(#[source] TopologyError),
    #[error("{} is not the manifest of a backup: {source}", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("the backup has form {found}, and this release knows form {}: install a newer release", manifest::FORM)]
    Newer { found: u32 },
    #[error("{} was cut or changed after the backup was written: use another backup; nothing was restored", .0.display())]
    Changed(PathBuf),
    #[error("the backup holds stream {0}, which this release does not know: install the release that took the backup")]
    UnknownStream(String),
    #[error(
        "the backup holds no stream {0}: it was written by `tokenbus setup --rebuild`, and only that command uses it"
    )]
    Partial(String),
    #[error(
        "the server has stream {0}, which this backup did not restore: restore into a server or cluster without streams of \
         tokenbus. If this server has lost its data and a worker has made new streams, stop all gateways and workers, stop \
         nats-server, empty its store folder (`jetstream.store_dir`), start it, and run `tokenbus restore` again"
    )]
    NotEmpty(String),
    #[error(
        "stream {0} was cut when the restore broke off: stop all servers of the new store, empty their store folders \
         (`jetstream.store_dir`), start them, and run the same `tokenbus restore` again"
    )]
    Cut(String),
    #[error(
        "stream {stream} has {found} after the restore, and the backup {expected}: keep the backup, run the same command again, \
         and report this if the error stays"
    )]
    Incomplete { stream: String, found: String, expected: String },
    /// The streams may be in that backup alone.
    #[error(
        "an earlier `tokenbus setup --rebuild` broke off, and its backup is in {folder}: run it again with that folder, on the \
         same machine{}",
        source.as_ref().map_or(String::new(), |source| format!(" ({source})"))
    )]
    OtherRebuild { folder: String, source: Option<Box<BackupError>> },
    #[error("the manifest cannot be written: {0}")]
    Manifest(#[from] serde_json::Error),
}

impl BackupError {
    /// For `map_err`.
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Progress, for the person who waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// A stream begins, with so many bytes.
    Begins(&'a str, u64),
    /// So many more bytes are done.
    Bytes(u64),
}
