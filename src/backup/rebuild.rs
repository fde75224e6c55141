//! Changes what the server fixes when it creates a stream: backs existing streams up, deletes them, and restores them.
//!
//! `oauth_meta` names the backup from before the first deletion until the last stream is restored. Until then workers and
//! `setup` refuse the store, and the same command continues.

use std::path::Path;
use std::sync::Arc;

use async_nats::jetstream::stream::{Config, Info, RetentionPolicy};
use fail::fail_point;

use super::folder::{self, Folder};
use super::restore::{check, check_all, send};
use super::take::{Plan, prepare, take};
use super::{BackupError, Kind, Manifest, Part, Step};
use crate::jetstream::Nats;
use crate::protocol::ask_workers::any_worker_runs;
use crate::protocol::topology::{self, Rebuild, Sizes};
use crate::seal::Keyring;
use crate::subject::OAUTH_SCHEDULE;

/// Creates the streams again that do not have the shape of the settings. Returns their names.
///
/// The folder holds their backup while it runs, and is removed after all restored streams were compared with it.
pub(crate) async fn rebuild(
    nats: &Nats,
    keyring: Arc<Keyring>,
    sizes: Sizes,
    folder: &Path,
    show: &impl Fn(Step<'_>),
) -> Result<Vec<String>, BackupError> {
    if any_worker_runs(nats).await? {
        return Err(BackupError::WorkersRun);
    }
    let folder = &std::path::absolute(folder).map_err(BackupError::file(folder))?;
    let begun = match topology::rebuild_under_way(nats).await? {
        Some(rebuild) => resume(&keyring, &rebuild, folder)?,
        None => match begin(nats, keyring, sizes, folder, show).await? {
            Some(begun) => begun,
            None => return Ok(Vec::new()),
        },
    };
    let mut rebuilt = Vec::new();
    for config in topology::streams(nats, sizes) {
        let Some(part) = begun.manifest.streams.iter().find(|part| part.stream == config.name) else { continue };
        let config = topology::with_unfinished(config, &begun.manifest.id);
        rebuild_stream(nats, sizes, &begun, (&config, part), show).await?;
        rebuilt.push((config, part));
    }
    check_all(nats, &rebuilt).await?;
    topology::end_rebuild(nats).await?;
    folder::remove(folder).map_err(BackupError::file(folder))?;
    Ok(begun.manifest.streams.into_iter().map(|part| part.stream).collect())
}

/// Backs up the streams that need another shape. Returns nothing if none does.
async fn begin(
    nats: &Nats,
    keyring: Arc<Keyring>,
    sizes: Sizes,
    folder: &Path,
    show: &impl Fn(Step<'_>),
) -> Result<Option<Folder>, BackupError> {
    remove_unused(folder, &keyring)?;
    let streams: Vec<String> = topology::old_shapes(nats, sizes).await?.into_iter().map(|old| old.stream).collect();
    if streams.is_empty() {
        return Ok(None);
    }
    for stream in &streams {
        topology::reserve(nats, sizes, stream).await.map_err(BackupError::NothingDeleted)?;
    }
    let plan = Plan { kind: Kind::Rebuild, streams: &streams, folder };
    let prepared = prepare(nats, plan).await?;
    let Manifest { id: backup, .. } = take(nats, Arc::clone(&keyring), prepared, show).await?;
    let begun = Folder::open(folder, &keyring)?;
    topology::begin_rebuild(nats, &Rebuild { backup, folder: folder.display().to_string() }).await?;
    Ok(Some(begun))
}

/// Removes the backup of a rebuild that ended before it deleted a stream, or after it restored the last.
fn remove_unused(folder: &Path, keyring: &Keyring) -> Result<(), BackupError> {
    if std::fs::symlink_metadata(folder).is_err() {
        return Ok(());
    }
    match Folder::open(folder, keyring) {
        Ok(found) if found.manifest.kind == Kind::Rebuild => folder::remove(folder).map_err(BackupError::file(folder)),
        Ok(_) | Err(BackupError::NoBackup(_)) => Err(BackupError::Exists(folder.to_owned())),
        Err(error) => Err(error),
    }
}

fn resume(keyring: &Keyring, rebuild: &Rebuild, folder: &Path) -> Result<Folder, BackupError> {
    let begun = Folder::open(folder, keyring);
    if begun.as_ref().is_ok_and(|begun| begun.manifest.id == rebuild.backup) {
        return begun;
    }
    Err(BackupError::OtherRebuild { folder: rebuild.folder.clone(), source: begun.err().map(Box::new) })
}

async fn rebuild_stream(
    nats: &Nats,
    sizes: Sizes,
    begun: &Folder,
    (config, part): (&Config, &Part),
    show: &impl Fn(Step<'_>),
) -> Result<(), BackupError> {
    if let Some(found) = nats.stream_info(&part.stream).await? {
        let backup = Some(begun.manifest.id.as_str());
        let is_restored = topology::restored_from(&found.config) == backup;
        if is_restored && check(config, part, &found.state).is_ok() {
            return Ok(());
        }
        let is_in_backup = is_restored || topology::begun_from(&found.config) == backup || is_unchanged(&found, part);
        if !is_in_backup && !is_empty_queue(&found) {
            return Err(BackupError::Written(part.stream.clone()));
        }
        // Again, because the rebuild may have been interrupted meanwhile, and the server changed.
        topology::reserve(nats, sizes, &part.stream).await?;
        nats.delete_stream(&part.stream).await?;
        fail_point!("rebuild_stream_deleted");
    }
    send(nats, sizes, begun, (config, part), show).await.map(drop)
}

/// Only the server itself may have written since the backup: it publishes due schedules.
fn is_unchanged(found: &Info, part: &Part) -> bool {
    let is_same = found.created.unix_timestamp_nanos().to_string() == part.created;
    is_same && (part.stream == OAUTH_SCHEDULE || found.state.last_sequence == part.last_sequence)
}

/// Workers create missing queues.
fn is_empty_queue(found: &Info) -> bool {
    found.config.retention == RetentionPolicy::WorkQueue && found.state.messages == 0
}
