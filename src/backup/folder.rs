//! A backup's folder. It has its name only when it is whole: until then its files are in `<folder>.partial`.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::manifest::{self, MANIFEST, file_of};
use super::{BackupError, Manifest, Part};
use crate::seal::Keyring;
use crate::seal::backup::{BackupKeys, SealedReader};

/// A folder that is being written. It is removed with its files if it is dropped before [`NewFolder::complete`].
pub(super) struct NewFolder {
    target: PathBuf,
    partial: PathBuf,
    /// Locked while this process writes.
    lock: File,
    is_complete: bool,
}

impl NewFolder {
    /// Creates the folder. Removes what a killed process has left of an earlier try.
    pub(super) fn create(target: &Path) -> Result<Self, BackupError> {
        // Without a slash at the end.
        let target: PathBuf = target.components().collect();
        if std::fs::symlink_metadata(&target).is_ok() {
            return Err(BackupError::Exists(target));
        }
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let failed = || BackupError::file(&partial);
        match DirBuilder::new().mode(0o700).create(&partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::NoParent(target.parent().unwrap_or(&target).to_owned()));
            }
            created => created.map_err(failed())?,
        }
        let lock = File::open(&partial).map_err(failed())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy(target)),
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
        remove_files(&partial).map_err(failed())?;
        Ok(Self { target, partial, lock, is_complete: false })
    }

    /// Creates a file that only its owner can read.
    pub(super) fn file(&self, name: &str) -> Result<HashedFile, BackupError> {
        let path = self.partial.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(BackupError::file(&path))?;
        Ok(HashedFile { file, hash: Sha256::new(), bytes: 0 })
    }

    /// The path of a file, for errors.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// Moves the folder to its name, once all of it is on disk.
    pub(super) fn complete(mut self) -> Result<(), BackupError> {
        let failed = || BackupError::file(&self.target);
        self.lock.sync_all().map_err(failed())?;
        if std::fs::symlink_metadata(&self.target).is_ok() {
            return Err(BackupError::Exists(self.target.clone()));
        }
        std::fs::rename(&self.partial, &self.target).map_err(failed())?;
        self.is_complete = true;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed())?;
        parent.sync_all().map_err(failed())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.is_complete {
            // A failure leaves sealed files, which the next try removes.
            drop(remove(&self.partial));
        }
    }
}

/// Removes a backup. Leaves a folder that holds anything else.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    remove_files(folder)?;
    std::fs::remove_dir(folder)
}

fn remove_files(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == MANIFEST) || path.extension().is_some_and(|it| it == "sealed") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A file whose hash is computed while it is written.
pub(super) struct HashedFile<W = File> {
    file: W,
    hash: Sha256,
    bytes: u64,
}

/// Hash and length of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// SHA-256 in base64url.
    pub sha256: String,
    pub bytes: u64,
}

impl HashedFile {
    /// Waits until the file is on disk.
    pub(super) fn finish(self) -> io::Result<Written> {
        self.file.sync_all()?;
        Ok(self.written())
    }
}

impl<W> HashedFile<W> {
    fn written(self) -> Written {
        Written { sha256: BASE64_URL_SAFE_NO_PAD.encode(self.hash.finalize()), bytes: self.bytes }
    }
}

impl<W: Write> Write for HashedFile<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A backup whose manifest and files are those that were written.
pub(super) struct Folder {
    path: PathBuf,
    pub manifest: Manifest,
    keys: BackupKeys,
}

impl Folder {
    /// Opens a backup and reads all of it.
    pub(super) fn open(path: &Path, keyring: &Keyring) -> Result<Self, BackupError> {
        let file = path.join(MANIFEST);
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::NoBackup(path.to_owned()));
            }
            read => read.map_err(BackupError::file(&file))?,
        };
        let (manifest, keys) = manifest::parse(&file, &text, keyring)?;
        let folder = Self { path: path.to_owned(), manifest, keys };
        for part in &folder.manifest.streams {
            folder.check(part)?;
        }
        Ok(folder)
    }

    fn check(&self, part: &Part) -> Result<(), BackupError> {
        let path = self.path.join(file_of(&part.stream));
        let failed = || BackupError::file(&path);
        let mut hash = HashedFile { file: io::sink(), hash: Sha256::new(), bytes: 0 };
        io::copy(&mut File::open(&path).map_err(failed())?, &mut hash).map_err(failed())?;
        let (found, expected) = (hash.written(), Written { sha256: part.sha256.clone(), bytes: part.bytes });
        if found == expected { Ok(()) } else { Err(BackupError::Changed(path)) }
    }

    /// Opens the snapshot of a stream.
    pub(super) fn snapshot<'a>(&self, part: &'a Part) -> Result<SnapshotReader<'a>, BackupError> {
        let path = self.path.join(file_of(&part.stream));
        let file = File::open(&path).map_err(BackupError::file(&path))?;
        let reader = self.keys.open_file(&part.stream, file).map_err(BackupError::file(&path))?;
        Ok(SnapshotReader { path, reader })
    }
}

/// Reads a snapshot in segments that fit into a message.
pub(super) struct SnapshotReader<'a> {
    path: PathBuf,
    reader: SealedReader<'a, File>,
}

impl SnapshotReader<'_> {
    pub(super) fn next_segment(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        match self.reader.next_segment() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(BackupError::Changed(self.path.clone())),
            read => read.map_err(BackupError::file(&self.path)),
        }
    }
}
