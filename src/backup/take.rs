//! Takes a backup.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fail::fail_point;

use super::folder::{HashedFile, NewFolder, Written};
use super::manifest::{FORM, MANIFEST, signed};
use super::{BackupError, Kind, Manifest, Part, Step};
use crate::jetstream::snapshot::Snapshot;
use crate::jetstream::{Nats, NatsError};
use crate::protocol::ask_workers::any_worker_runs;
use crate::protocol::topology::TopologyError;
use crate::seal::Keyring;
use crate::seal::backup::BackupKeys;
use crate::store::Store;
use crate::subject::{META, OAUTH, OAUTH_COMMANDS, OAUTH_SCHEDULE, kv_stream};
use crate::system;

/// A backup to take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub kind: Kind,
    pub streams: &'a [String],
    pub folder: &'a Path,
}

/// A backup that can begin.
pub(crate) struct Prepared<'a> {
    plan: Plan<'a>,
    folder: NewFolder,
}

/// Creates the folder. Except for the kind [`Kind::Running`], refuses while a worker runs or a command waits.
pub(crate) async fn prepare<'a>(nats: &Nats, plan: Plan<'a>) -> Result<Prepared<'a>, BackupError> {
    let folder = NewFolder::create(plan.folder)?;
    if plan.kind != Kind::Running {
        check_idle(nats).await?;
    }
    Ok(Prepared { plan, folder })
}

/// Writes a backup. After an error there is no folder.
///
/// Except for the kind [`Kind::Running`], fails if a worker runs or a stream was written to meanwhile.
pub(crate) async fn take(
    nats: &Nats,
    keyring: Arc<Keyring>,
    prepared: Prepared<'_>,
    show: &impl Fn(Step<'_>),
) -> Result<Manifest, BackupError> {
    let Prepared { plan, folder } = prepared;
    let must_be_idle = plan.kind != Kind::Running;
    let (id, taken) = (system::random_id(), system::now());
    let (key, keys) = keyring.new_backup(&id)?;
    let store = Store::new(nats.clone(), keyring);
    let mut keys_in_use: BTreeSet<String> = store.keys_in_use().await?.into_iter().collect();
    let mut streams = Vec::new();
    for stream in in_order(plan.streams) {
        streams.push(take_stream(nats, &folder, &keys, stream, show).await?);
        fail_point!("backup_stream_written");
    }
    // Also the keys with which values were sealed meanwhile.
    keys_in_use.extend(store.keys_in_use().await?);
    if must_be_idle {
        check_idle(nats).await?;
        check_unchanged(nats, &streams).await?;
    }
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let keys_in_use = keys_in_use.into_iter().collect();
    let manifest = Manifest { form: FORM, id, program, taken, kind: plan.kind, key, keys_in_use, streams };
    let text = signed(&manifest, &keys)?;
    let path = folder.path(MANIFEST);
    let mut file = folder.file(MANIFEST)?;
    io::Write::write_all(&mut file, text.as_bytes()).and_then(|()| file.finish()).map_err(BackupError::file(&path))?;
    folder.complete()?;
    Ok(manifest)
}

/// The list of keys in use comes first, so that it names every key that the other streams need, also if a key is retired
/// meanwhile. The records come last: they may be newer than the entries, never older.
fn in_order(streams: &[String]) -> impl Iterator<Item = &String> {
    let place = |stream: &str| match stream {
        OAUTH => 2,
        stream if stream == kv_stream(META) => 0,
        _ => 1,
    };
    (0..=2).flat_map(move |at| streams.iter().filter(move |stream| place(stream) == at))
}

async fn take_stream(
    nats: &Nats,
    folder: &NewFolder,
    keys: &BackupKeys,
    stream: &str,
    show: &impl Fn(Step<'_>),
) -> Result<Part, BackupError> {
    let info = nats.stream_info(stream).await?.ok_or_else(|| TopologyError::Absent(stream.to_owned()))?;
    show(Step::Begins(stream, info.state.bytes));
    let snapshot = nats.snapshot(stream).await?;
    let (config, state) = (snapshot.config.clone(), snapshot.state.clone());
    let count = |field: &str| {
        let value = state.get(field).and_then(serde_json::Value::as_u64);
        value.ok_or_else(|| NatsError::unreadable(format!("a snapshot's state has no {field}")))
    };
    let (messages, last_sequence) = (count("messages")?, count("last_seq")?);
    let Written { sha256, bytes } = write(folder, keys, stream, snapshot, show).await?;
    let created = info.created.unix_timestamp_nanos().to_string();
    Ok(Part { stream: stream.to_owned(), sha256, bytes, created, messages, last_sequence, config, state })
}

async fn write(
    folder: &NewFolder,
    keys: &BackupKeys,
    stream: &str,
    mut snapshot: Snapshot,
    show: &impl Fn(Step<'_>),
) -> Result<Written, BackupError> {
    let name = super::manifest::file_of(stream);
    let path = folder.path(&name);
    let failed = || BackupError::file(&path);
    let mut file = keys.seal_file(stream, folder.file(&name)?).map_err(failed())?;
    while let Some(chunk) = snapshot.next_chunk().await? {
        file.write(&chunk).map_err(failed())?;
        show(Step::Bytes(u64::try_from(chunk.len()).unwrap_or(u64::MAX)));
    }
    file.finish().and_then(HashedFile::finish).map_err(failed())
}

/// Checks that no worker runs and no command waits.
async fn check_idle(nats: &Nats) -> Result<(), BackupError> {
    if any_worker_runs(nats).await? {
        return Err(BackupError::WorkersRun);
    }
    let absent = || TopologyError::Absent(OAUTH_COMMANDS.to_owned());
    match nats.stream_state(OAUTH_COMMANDS).await?.ok_or_else(absent)?.messages {
        0 => Ok(()),
        messages => Err(BackupError::CommandsWait(messages)),
    }
}

/// Checks that no stream was written to. The server itself writes due schedules, which lose nothing: the snapshot has them
/// before they were due.
async fn check_unchanged(nats: &Nats, streams: &[Part]) -> Result<(), BackupError> {
    for part in streams.iter().filter(|part| part.stream != OAUTH_SCHEDULE) {
        let state = nats.stream_state(&part.stream).await?;
        if state.is_none_or(|state| state.last_sequence != part.last_sequence || state.created != part.created) {
            return Err(BackupError::Written(part.stream.clone()));
        }
    }
    Ok(())
}
