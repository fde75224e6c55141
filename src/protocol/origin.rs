//! Who made the streams. `tokenbus setup` makes them when tokenbus is installed. A worker that finds none makes them, too, so
//! that a restart needs no operator; but then NATS may have come back without its data, and an operator has to confirm that.

use bytes::Bytes;

use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::{META, META_ORIGIN};

/// Value of the entry after a worker has made the streams.
const WORKER: &str = r#""worker""#;
/// The same after `setup`.
const SETUP: &str = r#""setup""#;

/// A worker made the streams, and `tokenbus setup` has not run since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store is empty: a worker found no stream and made new ones. If tokenbus was in use, NATS came back without its data, and \
     all stored connections, configs and API keys are gone: restore NATS's data, or run `tokenbus setup` to confirm the empty store"
)]
pub(crate) struct Unconfirmed;

/// The streams that a worker used are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "NATS came back without its data: all stored connections, configs and API keys are gone. Restore NATS's data, or run \
     `tokenbus setup` to begin with an empty store"
)]
pub(crate) struct Lost;

/// Notes that a worker makes the streams.
pub(crate) async fn note_worker(nats: &Nats) -> Result<(), NatsError> {
    match kv::put(nats, META, META_ORIGIN, WORKER.into(), 0).await {
        // Another worker has noted it.
        Ok(()) | Err(NatsError::WrongLastSequence) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Confirms the store. Returns true if a worker had made the store.
pub(crate) async fn confirm(nats: &Nats) -> Result<bool, NatsError> {
    let found = kv::get(nats, META, META_ORIGIN).await?;
    let replaces = found.as_ref().map_or(0, |entry| entry.revision);
    kv::put(nats, META, META_ORIGIN, SETUP.into(), replaces).await?;
    Ok(found.is_some_and(|entry| is_by_worker(entry.value.as_ref())))
}

/// Looks whether the store needs to be confirmed. Stores of earlier releases do not.
pub(crate) async fn check(nats: &Nats) -> Result<Result<(), Unconfirmed>, NatsError> {
    let value = kv::get(nats, META, META_ORIGIN).await?.and_then(|entry| entry.value);
    Ok(if is_by_worker(value.as_ref()) { Err(Unconfirmed) } else { Ok(()) })
}

fn is_by_worker(value: Option<&Bytes>) -> bool {
    value.is_some_and(|value| value.as_ref() == WORKER.as_bytes())
}
