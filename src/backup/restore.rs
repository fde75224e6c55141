//! Makes a store from a backup, in the shape that the settings ask for.
//!
//! Each restored stream has the backup's id in its metadata, so a restore that broke off continues when it is run again.
//! `oauth_meta` comes last: workers refuse a store without it.

use std::path::Path;

use async_nats::jetstream::stream::Config;
use fail::fail_point;

use super::folder::Folder;
use super::{BackupError, Kind, Manifest, Part, Step};
use crate::jetstream::Nats;
use crate::protocol::topology::{self, Sizes};
use crate::seal::Keyring;
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
/// [`BackupError::NotEmpty`] if the server has one of the streams, unless this backup has restored it.
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
    let mut restored = Vec::new();
    for (config, part) in wanted {
        restored.push(restore_stream(nats, sizes, folder, (config, part), show).await?);
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
        Ok((topology::with_origin(config, &manifest.id), part))
    });
    with_part.collect()
}

async fn check_free(nats: &Nats, manifest: &Manifest, stream: &str) -> Result<(), BackupError> {
    let found = nats.stream_info(stream).await?;
    if found.is_none_or(|found| topology::restored_from(&found.config) == Some(manifest.id.as_str())) {
        return Ok(());
    }
    Err(BackupError::NotEmpty(stream.to_owned()))
}

async fn restore_stream(
    nats: &Nats,
    sizes: Sizes,
    folder: &Folder,
    (config, part): (Config, &Part),
    show: &impl Fn(Step<'_>),
) -> Result<Restored, BackupError> {
    let is_brought_back = folder.manifest.kind != Kind::Running || !is_only_for_moves(&part.stream);
    let existing = nats.stream_info(&part.stream).await?;
    let messages = if let Some(existing) = existing {
        existing.state.messages
    } else if is_brought_back {
        send(nats, sizes, folder, (&config, part), show).await?
    } else {
        topology::created_empty(nats, sizes, config, part.last_sequence).await?;
        0
    };
    Ok(Restored { stream: part.stream.clone(), messages, backed_up: part.messages, is_brought_back })
}

/// Commands of the time of the backup may have been carried out since, and the codes of its pending logins spent.
fn is_only_for_moves(stream: &str) -> bool {
    stream == OAUTH_COMMANDS || stream == kv_stream(STATES)
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
    while let Some(segment) = snapshot.next_segment()? {
        let bytes = u64::try_from(segment.len()).unwrap_or(u64::MAX);
        restore.send(segment).await.map_err(refused)?;
        show(Step::Bytes(bytes));
    }
    let state = restore.finish().await.map_err(refused)?;
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
    Ok(state.messages)
}
