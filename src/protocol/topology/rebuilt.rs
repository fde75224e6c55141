//! Streams that are created again with a shape that cannot be changed. While that is under way, `oauth_meta` names the backup
//! from which they are restored, and workers and `setup` refuse the store.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, Info};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::compare::is_async;
use super::streams::Sizes;
use super::{TopologyError, create_code, find, not_declared, streams};
use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::{META, META_REBUILD, kv_stream};

/// The backup that holds the streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rebuild {
    pub backup: String,
    pub folder: String,
}

/// A stream whose shape differs from the declared one, and cannot be changed by an update.
#[derive(Debug, Clone)]
pub(crate) struct OldShape {
    pub stream: String,
    /// True if the server acknowledges its messages before it writes them.
    pub is_async: bool,
}

/// Returns the streams that have to be created again to get their declared shape.
pub(crate) async fn old_shapes(nats: &Nats, sizes: Sizes) -> Result<Vec<OldShape>, TopologyError> {
    let mut old = Vec::new();
    for wanted in streams(nats, sizes) {
        let Some(found) = find(nats, &wanted.name).await? else { continue };
        if is_async(&wanted) != is_async(&found) {
            old.push(OldShape { stream: wanted.name, is_async: is_async(&found) });
        }
    }
    Ok(old)
}

/// Has the server set the room aside that a stream needs to be created again, while the stream still exists. The server refuses
/// that as it would refuse the new stream, also if it holds more than it may by now. Lowers no limit, because that could drop
/// messages.
pub(crate) async fn reserve(nats: &Nats, sizes: Sizes, stream: &str) -> Result<(), TopologyError> {
    let Some(wanted) = streams(nats, sizes).into_iter().find(|wanted| wanted.name == stream) else { return Ok(()) };
    let Some(Info { config, state, .. }) = nats.stream_info(stream).await? else { return Ok(()) };
    let holds_more = u64::try_from(wanted.max_bytes).is_ok_and(|wanted| state.bytes > wanted);
    let max_bytes = if holds_more { config.max_bytes } else { config.max_bytes.max(wanted.max_bytes) };
    let updated = nats.update_stream(Config { max_bytes, ..config }).await;
    updated.map_err(|error| not_declared(stream, sizes, create_code(&error), error.into()))
}

/// Returns the rebuild that is under way.
pub(crate) async fn rebuild_under_way(nats: &Nats) -> Result<Option<Rebuild>, NatsError> {
    if nats.stream_state(&kv_stream(META)).await?.is_none() {
        return Ok(None);
    }
    let value = kv::get(nats, META, META_REBUILD).await?.and_then(|entry| entry.value);
    value.map(|value| serde_json::from_slice(&value).map_err(NatsError::unreadable)).transpose()
}

/// Writes down that a rebuild is under way, before the first stream is deleted.
pub(crate) async fn begin_rebuild(nats: &Nats, rebuild: &Rebuild) -> Result<(), NatsError> {
    let value: Bytes = serde_json::to_vec(rebuild).map_err(NatsError::unreadable)?.into();
    change(nats, kv::Write::Put { headers: HeaderMap::new(), value }).await
}

/// Writes down that all streams are restored.
pub(crate) async fn end_rebuild(nats: &Nats) -> Result<(), NatsError> {
    change(nats, kv::Write::Delete { headers: HeaderMap::new(), body: Bytes::new() }).await
}

async fn change(nats: &Nats, write: kv::Write) -> Result<(), NatsError> {
    kv::update(nats, META, META_REBUILD, |_| Ok(kv::Change::Write(write.clone(), ()))).await
}

/// Refuses a store whose streams are being created again.
pub(super) async fn check_complete(nats: &Nats) -> Result<(), TopologyError> {
    match rebuild_under_way(nats).await? {
        Some(Rebuild { folder, .. }) => Err(TopologyError::RebuildBrokeOff { folder }),
        None => Ok(()),
    }
}
