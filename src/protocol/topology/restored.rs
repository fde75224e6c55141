//! Streams that were restored from a backup. Each has the backup's id in its metadata, under one key until it was compared with
//! the backup, and under another after that. `oauth_meta` is restored last: a store without it is not complete.

use async_nats::jetstream::stream::{Config, Info};

use super::streams::Sizes;
use super::{TopologyError, absent, compare, create, create_code, find, not_declared};
use crate::jetstream::{Nats, NatsError};
use crate::subject::{META, kv_stream};

/// Key in a stream's metadata: id of the backup that it was restored from.
const ORIGIN: &str = "tokenbus_backup";
/// The same in a stream that may be restored only in part: the server keeps a part if it dies while it creates the stream.
const UNFINISHED: &str = "tokenbus_restore";

/// Adds the id of the backup that a stream is being restored from.
pub(crate) fn with_unfinished(mut wanted: Config, backup: &str) -> Config {
    wanted.metadata.insert(UNFINISHED.to_owned(), backup.to_owned());
    wanted
}

/// Returns the id of the backup that a stream was restored from, all of it.
pub(crate) fn restored_from(stream: &Config) -> Option<&str> {
    stream.metadata.get(ORIGIN).map(String::as_str)
}

/// Returns the id of the backup that a stream was restored from, perhaps only in part.
pub(crate) fn begun_from(stream: &Config) -> Option<&str> {
    stream.metadata.get(UNFINISHED).map(String::as_str)
}

fn finished(mut config: Config) -> Config {
    if let Some(backup) = config.metadata.remove(UNFINISHED) {
        config.metadata.insert(ORIGIN.to_owned(), backup);
    }
    config
}

/// Writes down that all of a stream is restored.
pub(crate) async fn finish(nats: &Nats, sizes: Sizes, stream: &str) -> Result<(), TopologyError> {
    let Info { config, .. } = nats.stream_info(stream).await?.ok_or_else(|| absent(stream))?;
    let updated = nats.update_stream(finished(config)).await;
    updated.map_err(|error| not_declared(stream, sizes, create_code(&error), error.into()))
}

/// Checks that a stream with this configuration can be restored with that one.
pub(crate) fn check_restorable(wanted: &Config, backed_up: &Config) -> Result<(), TopologyError> {
    compare::compare(wanted, backed_up)
}

/// Creates a stream that is not brought back, and continues after this sequence.
pub(crate) async fn created_empty(
    nats: &Nats,
    sizes: Sizes,
    wanted: Config,
    last_sequence: u64,
) -> Result<(), TopologyError> {
    let first = last_sequence.saturating_add(1);
    let first_sequence = Some(first).filter(|first| *first > 1);
    create(nats, Config { first_sequence, ..finished(wanted) }, sizes).await
}

/// Explains why the server refuses to restore a stream.
pub(crate) fn not_restored(stream: &str, sizes: Sizes, error: NatsError) -> TopologyError {
    let code = match &error {
        NatsError::RefusedForNow { code, .. } | NatsError::Refused { code, .. } => Some(*code),
        NatsError::Away(_)
        | NatsError::NotSent(_)
        | NatsError::WrongLastSequence
        | NatsError::Occupied
        | NatsError::InFlight { .. }
        | NatsError::Consumer { .. }
        | NatsError::Unreadable(_) => return error.into(),
    };
    not_declared(stream, sizes, code, error.into())
}

/// Checks that a store is complete of which one stream was found.
pub(super) async fn check_complete(nats: &Nats, found: &Config) -> Result<(), TopologyError> {
    if restored_from(found).or(begun_from(found)).is_none() {
        return Ok(());
    }
    match find(nats, &kv_stream(META)).await? {
        Some(meta) if begun_from(&meta).is_none() => Ok(()),
        _ => Err(TopologyError::RestoreBrokeOff { stream: found.name.clone() }),
    }
}
