//! Lists of a bucket's keys and values.

use std::collections::BTreeMap;

use async_nats::client::Request;
use async_nats::jetstream::consumer::DeliverPolicy;
use bytes::Bytes;
use serde::Deserialize;

use super::{Entry, entry_of};
use crate::jetstream::client::Nats;
use crate::jetstream::error::NatsError;
use crate::jetstream::reader::{Reader, Selection, Stored};
use crate::subject::{kv_stream, kv_subject, stream_info};

/// Most snapshots for one list. All but the first read only what was written during the one before, so a list needs more
/// than two or three only while a bucket is written without pause.
const MAX_SNAPSHOTS: u32 = 20;

pub(crate) struct KeyValue {
    pub key: String,
    pub value: Bytes,
}

/// Returns the keys that match a filter, sorted. Reads headers only.
pub(crate) async fn keys(nats: &Nats, bucket: &str, filter: &str) -> Result<Vec<String>, NatsError> {
    Ok(newest(nats, bucket, filter, true).await?.into_iter().map(|entry| entry.key).collect())
}

/// Returns the keys that match a filter with their values, sorted by key.
pub(crate) async fn values(nats: &Nats, bucket: &str, filter: &str) -> Result<Vec<KeyValue>, NatsError> {
    newest(nats, bucket, filter, false).await
}

/// Returns the newest value of each key. A snapshot may miss an entry that is written meanwhile, so each snapshot is
/// followed by one of everything newer, until a snapshot is empty.
async fn newest(nats: &Nats, bucket: &str, filter: &str, headers_only: bool) -> Result<Vec<KeyValue>, NatsError> {
    let (mut found, mut start) = (BTreeMap::new(), DeliverPolicy::LastPerSubject);
    for _ in 0..MAX_SNAPSHOTS {
        let selection = Selection { subjects: kv_subject(bucket, filter), start, headers_only };
        let mut reader = Reader::snapshot(nats, &kv_stream(bucket), selection).await?;
        let mut last = None;
        while let Some(Stored { sequence, message }) = reader.next().await? {
            last = Some(sequence);
            let entry = entry_of(bucket, sequence, message);
            found.insert(entry.key, entry.value);
        }
        let Some(last) = last else { break };
        start = DeliverPolicy::ByStartSequence { start_sequence: last + 1 };
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
    let mut reader = Reader::headers(nats, &kv_stream(bucket), kv_subject(bucket, ">")).await?;
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
        let reader = Reader::headers(nats, &kv_stream(bucket), kv_subject(bucket, filter)).await?;
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
