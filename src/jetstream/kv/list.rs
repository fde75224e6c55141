//! Lists of a bucket's keys and values.

use std::collections::BTreeMap;

use async_nats::client::Request;
use bytes::Bytes;
use serde::Deserialize;

use super::{Entry, entry_of};
use crate::jetstream::client::Nats;
use crate::jetstream::error::NatsError;
use crate::jetstream::reader::{Parts, Reader, Stored};
use crate::subject::{kv_stream, kv_subject, stream_info};

/// Most parts of the read for one list. Each but the first has only what was written during the one before, so a list needs more
/// than two or three only while a bucket is written without pause.
const MAX_PARTS: u32 = 20;

pub(crate) struct KeyValue {
    pub key: String,
    pub value: Bytes,
}

/// Returns the keys that match a filter, sorted. Reads headers only.
pub(crate) async fn keys(nats: &Nats, bucket: &str, filter: &str) -> Result<Vec<String>, NatsError> {
    Ok(newest(nats, bucket, filter, Parts::Headers).await?.into_iter().map(|entry| entry.key).collect())
}

/// Returns the keys that match a filter with their values, sorted by key.
pub(crate) async fn values(nats: &Nats, bucket: &str, filter: &str) -> Result<Vec<KeyValue>, NatsError> {
    newest(nats, bucket, filter, Parts::All).await
}

/// Returns the newest value of each key. A read may miss an entry that is replaced meanwhile, so it goes on until nothing is newer.
async fn newest(nats: &Nats, bucket: &str, filter: &str, parts: Parts) -> Result<Vec<KeyValue>, NatsError> {
    let (stream, subjects) = (kv_stream(bucket), kv_subject(bucket, filter));
    let Some(mut reader) = Reader::through(nats, &stream, &subjects, 0, parts).await? else { return Ok(Vec::new()) };
    let mut found = BTreeMap::new();
    for _ in 0..MAX_PARTS {
        while let Some(Stored { sequence, message }) = reader.next().await? {
            let entry = entry_of(bucket, sequence, message);
            found.insert(entry.key, entry.value);
        }
        if !reader.extend().await? {
            break;
        }
    }
    Ok(found.into_iter().filter_map(|(key, value)| Some(KeyValue { key, value: value? })).collect())
}

/// Returns the number of keys that match a filter, deletion markers included. The server counts; nothing is read.
pub(crate) async fn count(nats: &Nats, bucket: &str, filter: &str) -> Result<u64, NatsError> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        total: u64,
    }
    // The server lists subjects in pages. A page after the last one is empty, but carries the total.
    let question = serde_json::json!({ "subjects_filter": kv_subject(bucket, filter), "offset": u32::MAX });
    let request = Request::new().payload(question.to_string().into());
    let answer = nats.request(&stream_info(&kv_stream(bucket)), request).await?;
    let info: Info = serde_json::from_slice(&answer.payload).map_err(NatsError::unreadable)?;
    Ok(info.total)
}

/// Returns the newest entry of each key with an empty value, deletion markers included. For small buckets.
pub(crate) async fn all_headers(nats: &Nats, bucket: &str) -> Result<Vec<Entry>, NatsError> {
    let mut reader = Reader::headers(nats, &kv_stream(bucket), &kv_subject(bucket, ">")).await?;
    let mut entries = Vec::new();
    while let Some(Stored { sequence, message }) = reader.next().await? {
        entries.push(entry_of(bucket, sequence, message));
    }
    Ok(entries)
}

/// Reads the headers of a bucket's entries, at the pace of its caller.
pub(crate) struct HeaderReader {
    reader: Reader,
    bucket: &'static str,
}

impl HeaderReader {
    pub(crate) async fn start(nats: &Nats, bucket: &'static str, filter: &str) -> Result<Self, NatsError> {
        let reader = Reader::headers(nats, &kv_stream(bucket), &kv_subject(bucket, filter)).await?;
        Ok(Self { reader, bucket })
    }

    /// Returns up to `limit` of the next entries with empty values and without deletion markers. Returns nothing at the
    /// end.
    pub(crate) async fn next_chunk(&mut self, limit: usize) -> Result<Option<Vec<Entry>>, NatsError> {
        let chunk = self.reader.next_chunk(limit).await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let entries = chunk.into_iter().map(|stored| entry_of(self.bucket, stored.sequence, stored.message));
        Ok(Some(entries.filter(|entry| entry.value.is_some()).collect()))
    }
}
