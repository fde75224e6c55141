//! Makes a store from a backup, in the shape that the settings ask for.
//!
//! Each restored stream has the backup's id in its metadata, so a restore that broke off continues when it is run again. A stream
//! counts as restored after it was compared with the manifest. `oauth_meta` comes last: workers refuse a store without it.

use std::path::Path;

use async_nats::jetstream::stream::{Config, Info, State};
use fail::fail_point;

use super::folder::Folder;
use super::{BackupError, Kind, Manifest, Part, Step};
use crate::jetstream::Nats;
use crate::protocol::topology::{self, Sizes, TopologyError};
use crate::seal::Keyring;
use crate::subject::permission::DELETABLE;
use crate::subject::{META, OAUTH_COMMANDS, STATES, kv_stream};

/// A backup that was read and checked.
pub(crate) struct Opened(Folder);

/// A stream after the restore.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    pub stream: String,
    pub messages: u64,
    /// Messages in the backup.
    pub backed_up: u64,
    /// False for a stream that is empty because a backup that was taken while workers ran does not bring it back.
    pub is_brought_back: bool,
}

/// Reads a whole backup, and checks that no file was changed and that the keyring opens it.
pub(crate) fn open(folder: &Path, keyring: &Keyring) -> Result<Opened, BackupError> {
    Folder::open(folder, keyring).map(Opened)
}

impl Opened {
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }
}

/// Restores all streams of a backup.
///
/// # Errors
/// [`BackupError::NotEmpty`] if the server has one of the streams, unless this backup has restored it. [`BackupError::Cut`] if
/// the server has kept a part of a stream that `setup` may not delete.
pub(crate) async fn restore(
    nats: &Nats,
    sizes: Sizes,
    backup: &Opened,
    show: &impl Fn(Step<'_>),
) -> Result<Vec<Restored>, BackupError> {
    let Opened(folder) = backup;
    let manifest = &folder.manifest;
    let wanted = streams(nats, manifest, sizes)?;
    for (config, _) in &wanted {
        check_free(nats, manifest, &config.name).await?;
    }
    let meta = kv_stream(META);
    let found = nats.stream_info(&meta).await?;
    // Workers may have changed the streams since.
    let is_done = found.is_some_and(|found| topology::restored_from(&found.config).is_some());
    let mut restored = Vec::new();
    for (config, part) in &wanted {
        if config.name == meta && !is_done {
            let is_brought_back = |(_, part): &&(Config, &Part)| is_brought_back(manifest, &part.stream);
            let others = wanted.iter().filter(|(config, _)| config.name != meta).filter(is_brought_back);
            check_all(nats, others).await?;
        }
        restored.push(restore_stream(nats, sizes, folder, (config, part, is_done), show).await?);
        fail_point!("restore_stream_created");
    }
    Ok(restored)
}

/// Returns the configuration of each stream with its part of the backup, `oauth_meta` last.
fn streams<'a>(nats: &Nats, manifest: &'a Manifest, sizes: Sizes) -> Result<Vec<(Config, &'a Part)>, BackupError> {
    let mut all = topology::streams(nats, sizes);
    if let Some(unknown) = manifest.streams.iter().find(|part| all.iter().all(|config| config.name != part.stream)) {
        return Err(BackupError::UnknownStream(unknown.stream.clone()));
    }
    let meta = kv_stream(META);
    all.sort_by_key(|config| config.name == meta);
    let with_part = all.into_iter().map(|config| {
        let part = manifest.streams.iter().find(|part| part.stream == config.name);
        let part = part.ok_or_else(|| BackupError::Partial(config.name.clone()))?;
        topology::check_restorable(&config, &part.config)?;
        Ok((topology::with_unfinished(config, &manifest.id), part))
    });
    with_part.collect()
}

async fn check_free(nats: &Nats, manifest: &Manifest, stream: &str) -> Result<(), BackupError> {
    let Some(Info { config, .. }) = nats.stream_info(stream).await? else { return Ok(()) };
    let backup = topology::restored_from(&config).or(topology::begun_from(&config));
    if backup == Some(manifest.id.as_str()) { Ok(()) } else { Err(BackupError::NotEmpty(stream.to_owned())) }
}

async fn restore_stream(
    nats: &Nats,
    sizes: Sizes,
    folder: &Folder,
    (config, part, is_done): (&Config, &Part, bool),
    show: &impl Fn(Step<'_>),
) -> Result<Restored, BackupError> {
    let is_brought_back = is_brought_back(&folder.manifest, &part.stream);
    let existing = nats.stream_info(&part.stream).await?;
    let messages = match existing {
        Some(existing) if is_done || !is_brought_back => existing.state.messages,
        Some(existing) => keep_or_repeat(nats, sizes, folder, (config, part, &existing), show).await?,
        None if is_brought_back => send(nats, sizes, folder, (config, part), show).await?,
        None => {
            topology::created_empty(nats, sizes, config.clone(), part.last_sequence).await?;
            0
        }
    };
    Ok(Restored { stream: part.stream.clone(), messages, backed_up: part.messages, is_brought_back })
}

/// Keeps a stream of a restore that broke off if all of it is there. Otherwise restores it again, if `setup` may delete it.
async fn keep_or_repeat(
    nats: &Nats,
    sizes: Sizes,
    folder: &Folder,
    (config, part, found): (&Config, &Part, &Info),
    show: &impl Fn(Step<'_>),
) -> Result<u64, BackupError> {
    let (is_finished, may_delete) =
        (topology::restored_from(&found.config).is_some(), DELETABLE.contains(&part.stream.as_str()));
    let is_equal = (found.state.messages, found.state.last_sequence) == (part.messages, part.last_sequence);
    if is_finished && check(config, part, &found.state).is_ok() {
        return Ok(found.state.messages);
    }
    if may_delete {
        // Also if the messages are equal: the server restores consumers after them.
        nats.delete_stream(&part.stream).await?;
        return send(nats, sizes, folder, (config, part), show).await;
    }
    // These streams have no consumer that outlives its process.
    if is_finished || !is_equal {
        return Err(BackupError::Cut(part.stream.clone()));
    }
    topology::finish(nats, sizes, &part.stream).await?;
    Ok(found.state.messages)
}

/// Commands of the time of the backup may have been carried out since, and the codes of its pending logins spent.
fn is_brought_back(manifest: &Manifest, stream: &str) -> bool {
    manifest.kind != Kind::Running || !(stream == OAUTH_COMMANDS || stream == kv_stream(STATES))
}

/// Sends a stream to the server, and returns the number of its messages.
pub(super) async fn send(
    nats: &Nats,
    sizes: Sizes,
    folder: &Folder,
    (config, part): (&Config, &Part),
    show: &impl Fn(Step<'_>),
) -> Result<u64, BackupError> {
    show(Step::Begins(&part.stream, part.bytes));
    let refused = |error| topology::not_restored(&part.stream, sizes, error);
    let mut snapshot = folder.snapshot(part)?;
    let restore = nats.restore(config, &part.state).await.map_err(refused)?;
    fail_point!("restore_stream_begun");
    while let Some(segment) = snapshot.next_segment()? {
        let bytes = u64::try_from(segment.len()).unwrap_or(u64::MAX);
        restore.send(segment).await.map_err(refused)?;
        show(Step::Bytes(bytes));
    }
    let state = restore.finish().await.map_err(refused)?;
    fail_point!("restore_stream_sent");
    check(config, part, &state)?;
    topology::finish(nats, sizes, &part.stream).await?;
    Ok(state.messages)
}

/// Compares restored streams with their backup.
pub(super) async fn check_all<'a>(
    nats: &Nats,
    restored: impl IntoIterator<Item = &'a (Config, &'a Part)>,
) -> Result<(), BackupError> {
    for (config, part) in restored {
        let found = nats.stream_info(&part.stream).await?;
        check(config, part, &found.ok_or_else(|| TopologyError::Absent(part.stream.clone()))?.state)?;
    }
    Ok(())
}

/// Compares the state of a restored stream with its backup.
pub(super) fn check(config: &Config, part: &Part, state: &State) -> Result<(), BackupError> {
    // The server may publish due schedules at once: each is one more sequence, and may replace another message.
    let fired = state.last_sequence.saturating_sub(part.last_sequence);
    let missing = part.messages.saturating_sub(state.messages);
    let may_expire = !config.max_age.is_zero() || config.allow_message_ttl;
    if state.last_sequence < part.last_sequence || (missing > fired && !may_expire) {
        let describe = |messages, sequence| format!("{messages} messages up to sequence {sequence}");
        return Err(BackupError::Incomplete {
            stream: part.stream.clone(),
            found: describe(state.messages, state.last_sequence),
            expected: describe(part.messages, part.last_sequence),
        });
    }
    Ok(())
}
