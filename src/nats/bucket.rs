//! KV buckets: read from the leader, written with the revision they replace.
//!
//! Entries are plain messages of the bucket's stream: that is how they carry headers.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use bytes::Bytes;

use super::{Nats, NatsError, header};
use crate::subject::{kv_stream, kv_subject};

const OPERATION: &str = "KV-Operation";
const DELETE: &str = "DEL";

/// What a bucket holds under a key.
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// The entry's revision: the stream sequence in the bucket.
    pub revision: u64,
    /// The value; none when the entry marks a deletion.
    pub value: Option<Bytes>,
    /// What was stored, be it a value or the body of a deletion's mark.
    pub payload: Bytes,
    /// Its headers.
    pub headers: HeaderMap,
}

/// Reads a key, or the newest of the keys that match, from the leader.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub async fn get(nats: &Nats, bucket: &str, key: &str) -> Result<Option<Entry>, NatsError> {
    let message = nats.last(&kv_stream(bucket), &kv_subject(bucket, key)).await?;
    Ok(message.map(|message| {
        let is_value = header(&message.headers, OPERATION).is_empty();
        let key = message.subject.strip_prefix(&kv_subject(bucket, "")).unwrap_or_default().to_owned();
        let value = is_value.then(|| message.payload.clone());
        Entry { key, revision: message.sequence, value, payload: message.payload, headers: message.headers }
    }))
}

/// A message of a bucket's stream as the entry it is; none when it belongs to another bucket.
#[must_use]
pub fn entry(bucket: &str, revision: u64, message: async_nats::jetstream::Message) -> Option<Entry> {
    let message = message.message;
    let key = message.subject.strip_prefix(&kv_subject(bucket, ""))?.to_owned();
    let (payload, headers) = (message.payload, message.headers.unwrap_or_default());
    let value = header(&headers, OPERATION).is_empty().then(|| payload.clone());
    Some(Entry { key, revision, value, payload, headers })
}

/// Writes a key in place of the given revision (0: there must be none).
///
/// # Errors
/// [`NatsError::WrongLastSequence`] when the revision is not the newest.
pub async fn put(nats: &Nats, bucket: &str, key: &str, value: Bytes, replaces: u64) -> Result<u64, NatsError> {
    write(nats, bucket, key, super::headers(None), value, replaces).await
}

/// Marks a key as deleted in place of the given revision. The mark keeps headers and body.
///
/// # Errors
/// [`NatsError::WrongLastSequence`] when the revision is not the newest.
pub async fn delete(nats: &Nats, at: At<'_>, mut headers: HeaderMap, body: Bytes) -> Result<u64, NatsError> {
    headers.insert(OPERATION, DELETE);
    write(nats, at.bucket, at.key, headers, body, at.replaces).await
}

/// A key with the revision that a write replaces.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The revision, 0 when there must be none.
    pub replaces: u64,
}

async fn write(
    nats: &Nats,
    bucket: &str,
    key: &str,
    mut headers: HeaderMap,
    value: Bytes,
    replaces: u64,
) -> Result<u64, NatsError> {
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, replaces.to_string());
    nats.publish(&kv_subject(bucket, key), headers, value).await.map(|ack| ack.sequence)
}

/// The keys that match a filter, sorted, without those marked as deleted. Reads headers only.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub async fn keys(nats: &Nats, bucket: &str, filter: &str) -> Result<Vec<String>, NatsError> {
    let newest = push::OrderedConfig {
        deliver_subject: nats.client.new_inbox(),
        filter_subject: kv_subject(bucket, filter),
        headers_only: true,
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..push::OrderedConfig::default()
    };
    let prefix = kv_subject(bucket, "");
    let mut keys = Vec::new();
    for message in nats.collect(&kv_stream(bucket), newest).await? {
        let is_value = message.headers.as_ref().is_none_or(|headers| header(headers, OPERATION).is_empty());
        if let (true, Some(key)) = (is_value, message.subject.strip_prefix(&prefix)) {
            keys.push(key.to_owned());
        }
    }
    keys.sort_unstable();
    Ok(keys)
}
