//! KV buckets. Reads go to the stream's leader, so they see every confirmed write; a write names the revision that it
//! replaces and fails if that is not the newest.
//!
//! Entries are written and read as plain messages of the bucket's stream, because the client's KV interface has no
//! headers.
//!
//! A key is deleted by a marker, and never by a purge or an expiry of its own: a nats-server 2.15.1 that was killed brings back the
//! value before the newest one if the newest was purged or has expired.

mod list;
mod swap;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use bytes::Bytes;

pub(crate) use self::list::{HeaderReader, KeyValue, all_headers, count, keys, values};
pub(crate) use self::swap::{Change, Swapped, Write, create, swap, update, update_from};
use super::client::Nats;
use super::error::NatsError;
use super::header::{header, headers};
use crate::subject::{kv_stream, kv_subject};

const OPERATION: &str = "KV-Operation";
const DELETE: &str = "DEL";

/// An entry of a bucket: a value, or the marker of a deletion.
#[derive(Clone)]
pub(crate) struct Entry {
    pub key: String,
    /// The entry's sequence in the bucket's stream.
    pub revision: u64,
    /// Missing if the entry marks a deletion.
    pub value: Option<Bytes>,
    /// The stored bytes: the value, or the body of the deletion marker.
    pub payload: Bytes,
    pub headers: HeaderMap,
}

/// A key, and the revision that a write replaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    /// 0 if the key must not exist.
    pub replaces: u64,
}

/// Reads a key. If it holds wildcards, reads the newest of the matching keys.
pub(crate) async fn get(nats: &Nats, bucket: &str, key: &str) -> Result<Option<Entry>, NatsError> {
    let message = nats.last(&kv_stream(bucket), &kv_subject(bucket, key)).await?;
    Ok(message.map(|message| entry(bucket, &message.subject, message.sequence, message.headers, message.payload)))
}

/// Converts a message of a bucket's stream.
#[must_use]
pub(crate) fn entry_of(bucket: &str, revision: u64, message: async_nats::jetstream::Message) -> Entry {
    let message = message.message;
    entry(bucket, &message.subject, revision, message.headers.unwrap_or_default(), message.payload)
}

/// Returns true for the headers of a deletion marker.
#[must_use]
pub(crate) fn is_deletion(headers: &HeaderMap) -> bool {
    !header(headers, OPERATION).is_empty()
}

pub(super) fn entry(bucket: &str, subject: &str, revision: u64, headers: HeaderMap, payload: Bytes) -> Entry {
    let key = subject.strip_prefix(&kv_subject(bucket, "")).unwrap_or_default().to_owned();
    let value = (!is_deletion(&headers)).then(|| payload.clone());
    Entry { key, revision, value, payload, headers }
}

/// Writes a value. `replaces` is 0 if the key must not exist.
///
/// # Errors
/// [`NatsError::WrongLastSequence`] if the revision is not the newest.
pub(crate) async fn put(nats: &Nats, bucket: &str, key: &str, value: Bytes, replaces: u64) -> Result<(), NatsError> {
    put_with(nats, At { bucket, key, replaces }, headers(None), value).await
}

/// Writes a value with headers that are stored with it.
///
/// # Errors
/// [`NatsError::WrongLastSequence`] if the revision is not the newest.
pub(crate) async fn put_with(nats: &Nats, at: At<'_>, mut headers: HeaderMap, value: Bytes) -> Result<(), NatsError> {
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, at.replaces.to_string());
    nats.publish(&kv_subject(at.bucket, at.key), headers, value).await.map(drop)
}

/// Replaces a key by a deletion marker, which stores the given headers and body.
///
/// # Errors
/// [`NatsError::WrongLastSequence`] if the revision is not the newest.
pub(crate) async fn delete(nats: &Nats, at: At<'_>, mut headers: HeaderMap, body: Bytes) -> Result<(), NatsError> {
    headers.insert(OPERATION, DELETE);
    put_with(nats, at, headers, body).await
}
