//! KV buckets: read from the leader, written with the revision they replace.
//!
//! Entries are plain messages of the bucket's stream: that is how they carry headers.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::client::Request;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;

use crate::jetstream::{Nats, NatsError, header};
use crate::subject::{kv_stream, kv_subject, stream_info};
use crate::system;

pub(super) const OPERATION: &str = "KV-Operation";
const DELETE: &str = "DEL";
/// Scans for a list. All but the first see only what was written during the one before.
const SCANS: u32 = 20;
/// How often the server says that it goes on telling of changes; after two silences it is not believed to.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a bucket holds under a key.
pub(crate) struct Entry {
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
pub(crate) async fn get(nats: &Nats, bucket: &str, key: &str) -> Result<Option<Entry>, NatsError> {
    let message = nats.last(&kv_stream(bucket), &kv_subject(bucket, key)).await?;
    Ok(message.map(|message| entry(bucket, &message.subject, message.sequence, (message.headers, message.payload))))
}

/// The entry that a stored message is.
pub(super) fn entry(bucket: &str, subject: &str, revision: u64, (headers, payload): (HeaderMap, Bytes)) -> Entry {
    let key = subject.strip_prefix(&kv_subject(bucket, "")).unwrap_or_default().to_owned();
    let value = header(&headers, OPERATION).is_empty().then(|| payload.clone());
    Entry { key, revision, value, payload, headers }
}

/// A message of a bucket's stream as the entry it is.
#[must_use]
pub(crate) fn entry_of(bucket: &str, revision: u64, message: async_nats::jetstream::Message) -> Entry {
    let message = message.message;
    entry(bucket, &message.subject, revision, (message.headers.unwrap_or_default(), message.payload))
}

/// Writes a key in place of the given revision (0: there must be none).
///
/// # Errors
/// [`NatsError::WrongLastSequence`] when the revision is not the newest.
pub(crate) async fn put(nats: &Nats, bucket: &str, key: &str, value: Bytes, replaces: u64) -> Result<u64, NatsError> {
    write(nats, bucket, key, super::headers(None), value, replaces).await
}

/// The same with headers that stay with the value.
///
/// # Errors
/// As [`put`].
pub(crate) async fn put_with(nats: &Nats, at: At<'_>, headers: HeaderMap, value: Bytes) -> Result<u64, NatsError> {
    write(nats, at.bucket, at.key, headers, value, at.replaces).await
}

/// Takes a key out without a trace, unless it was written since the given revision.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn purge(nats: &Nats, at: At<'_>) -> Result<(), NatsError> {
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
pub(crate) async fn delete(nats: &Nats, at: At<'_>, mut headers: HeaderMap, body: Bytes) -> Result<u64, NatsError> {
    headers.insert(OPERATION, DELETE);
    write(nats, at.bucket, at.key, headers, body, at.replaces).await
}

/// A key with the revision that a write replaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
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
pub(crate) async fn keys(nats: &Nats, bucket: &str, filter: &str) -> Result<Vec<String>, NatsError> {
    Ok(newest(nats, bucket, filter, true).await?.into_iter().map(|(key, _)| key).collect())
}

/// The keys that match a filter with their values, sorted, without those marked as deleted.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn values(nats: &Nats, bucket: &str, filter: &str) -> Result<Vec<(String, Bytes)>, NatsError> {
    newest(nats, bucket, filter, false).await
}

/// The newest entry of each key. What is written during a scan may be missing in it, so each scan is followed by one
/// of what is newer than what it saw, until there is nothing.
async fn newest(
    nats: &Nats,
    bucket: &str,
    filter: &str,
    headers_only: bool,
) -> Result<Vec<(String, Bytes)>, NatsError> {
    let prefix = kv_subject(bucket, "");
    let (mut found, mut deliver_policy) = (BTreeMap::new(), DeliverPolicy::LastPerSubject);
    for _ in 0..SCANS {
        let config = push::OrderedConfig {
            deliver_subject: nats.client.new_inbox(),
            filter_subject: kv_subject(bucket, filter),
            headers_only,
            deliver_policy,
            ..push::OrderedConfig::default()
        };
        let messages = nats.collect(&kv_stream(bucket), config).await?;
        let last = messages.last().and_then(|message| message.info().ok()).map(|info| info.stream_sequence);
        for message in messages {
            let is_value = message.headers.as_ref().is_none_or(|headers| header(headers, OPERATION).is_empty());
            if let Some(key) = message.subject.strip_prefix(&prefix) {
                found.insert(key.to_owned(), is_value.then(|| message.payload.clone()));
            }
        }
        let Some(last) = last else { break };
        deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: last + 1 };
    }
    Ok(found.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

/// How many keys match a filter, those marked as deleted among them. The server counts; nothing is read.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn count(nats: &Nats, bucket: &str, filter: &str) -> Result<u64, NatsError> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        total: u64,
    }
    // Behind all pages there is nothing but their number.
    let question = serde_json::json!({ "subjects_filter": kv_subject(bucket, filter), "offset": u32::MAX });
    let request = Request::new().payload(question.to_string().into());
    let answer = nats.request(&stream_info(&kv_stream(bucket)), request).await?;
    let info: Info = serde_json::from_slice(&answer.payload).map_err(|_| NatsError::Unreadable)?;
    Ok(info.total)
}

/// A bucket's changes from now on.
pub(crate) struct Changes {
    messages: push::Messages,
    prefix: String,
    seen: u64,
}

/// Follows a bucket's changes. Each that is stored from now on will come, or an error.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn changes(nats: &Nats, bucket: &str) -> Result<Changes, NatsError> {
    nats.connected()?;
    let config = push::Config {
        // Without a name permissions cannot be told apart by the stream's.
        name: Some(system::random_id()),
        deliver_subject: nats.client.new_inbox(),
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::None,
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        idle_heartbeat: HEARTBEAT,
        inactive_threshold: 30 * HEARTBEAT,
        ..push::Config::default()
    };
    let away = || NatsError::Away("no answer to a watch");
    let stream = nats.jetstream.get_stream_no_info(kv_stream(bucket)).await.map_err(|_| away())?;
    let consumer = stream.create_consumer(config).await.map_err(|_| away())?;
    let messages = consumer.messages().await.map_err(|_| away())?;
    Ok(Changes { messages, prefix: kv_subject(bucket, ""), seen: 0 })
}

impl Changes {
    /// The next key that changed.
    ///
    /// # Errors
    /// [`NatsError`] when one was missed, or the server is silent. No more will come then.
    pub(crate) async fn next(&mut self) -> Result<String, NatsError> {
        let message = self.messages.next().await.and_then(Result::ok).ok_or(NatsError::Away("the watch ended"))?;
        self.seen += 1;
        if message.info().map_or(0, |info| info.consumer_sequence) != self.seen {
            return Err(NatsError::Away("a change was missed"));
        }
        Ok(message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned())
    }
}
