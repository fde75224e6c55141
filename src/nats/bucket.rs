//! KV buckets: read from the leader, written with the revision they replace.
//!
//! Entries are plain messages of the bucket's stream: that is how they carry headers.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use bytes::Bytes;

use super::{Nats, NatsError, header};
use crate::subject::{kv_stream, kv_subject};

pub(super) const OPERATION: &str = "KV-Operation";
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
    Ok(message.map(|message| entry(bucket, &message.subject, message.sequence, (message.headers, message.payload))))
}

/// The entry that a stored message is.
pub(super) fn entry(bucket: &str, subject: &str, revision: u64, (headers, payload): (HeaderMap, Bytes)) -> Entry {
    let key = subject.strip_prefix(&kv_subject(bucket, "")).unwrap_or_default().to_owned();
    let value = header(&headers, OPERATION).is_empty().then(|| payload.clone());
    Entry { key, revision, value, payload, headers }
}

/// Writes a key in place of the given revision (0: there must be none).
///
/// # Errors
/// [`NatsError::WrongLastSequence`] when the revision is not the newest.
pub async fn put(nats: &Nats, bucket: &str, key: &str, value: Bytes, replaces: u64) -> Result<u64, NatsError> {
    write(nats, bucket, key, super::headers(None), value, replaces).await
}

/// The same with headers that stay with the value.
///
/// # Errors
/// As [`put`].
pub async fn put_with(nats: &Nats, at: At<'_>, headers: HeaderMap, value: Bytes) -> Result<u64, NatsError> {
    write(nats, at.bucket, at.key, headers, value, at.replaces).await
}

/// Takes a key out without a trace, unless it was written since the given revision.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub async fn purge(nats: &Nats, at: At<'_>) -> Result<(), NatsError> {
    nats.connected()?;
    let away = || NatsError::Away("no answer to a purge");
    let stream = nats.jetstream.get_stream_no_info(kv_stream(at.bucket)).await.map_err(|_| away())?;
    let purged = stream.purge().filter(kv_subject(at.bucket, at.key)).sequence(at.replaces + 1).await;
    purged.map(drop).map_err(|_| away())
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
