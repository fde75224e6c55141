//! Streams that were restored from a backup. Each has the backup's id in its metadata, and `oauth_meta` is restored last: a
//! store without it is not complete.

use async_nats::jetstream::stream::Config;

use super::streams::Sizes;
use super::{TopologyError, compare, create, find, not_declared};
use crate::jetstream::{Nats, NatsError};
use crate::subject::{META, kv_stream};

/// Key in a stream's metadata: id of the backup that it was restored from.
const ORIGIN: &str = "tokenbus_backup";

/// Adds the id of the backup that a stream is restored from.
pub(crate) fn with_origin(mut wanted: Config, backup: &str) -> Config {
    wanted.metadata.insert(ORIGIN.to_owned(), backup.to_owned());
    wanted
}

/// Returns the id of the backup that a stream was restored from.
pub(crate) fn restored_from(stream: &Config) -> Option<&str> {
    stream.metadata.get(ORIGIN).map(String::as_str)
}

/// Checks that a stream with this configuration can be restored with that one.
pub(crate) fn check_restorable(wanted: &Config, backed_up: &Config) -> Result<(), TopologyError> {
    compare::compare(wanted, backed_up)
}

/// Creates a stream that continues after this sequence.
pub(crate) async fn created_empty(
    nats: &Nats,
    sizes: Sizes,
    wanted: Config,
    last_sequence: u64,
) -> Result<(), TopologyError> {
    let first = last_sequence.saturating_add(1);
    create(nats, Config { first_sequence: Some(first).filter(|first| *first > 1), ..wanted }, sizes).await
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
    if restored_from(found).is_some() && find(nats, &kv_stream(META)).await?.is_none() {
        return Err(TopologyError::RestoreBrokeOff { stream: found.name.clone() });
    }
    Ok(())
}
