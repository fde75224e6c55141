//! Batched direct gets: many messages for one request. Any replica may answer, so a batch may lack the last
//! writes for a moment.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde::Serialize;

use super::client::Nats;
use super::error::NatsError;
use super::header::header;
use super::kv::{Entry, entry};
use crate::subject::{direct_get, kv_stream, kv_subject};

/// Most subjects in one request. The server answers with at most 1,024 messages.
pub(crate) const MAX_SUBJECTS: usize = 1_000;
/// Longest silence between two messages of a batch. The client's default for one answer.
const SILENCE: Duration = Duration::from_secs(5);
/// Status codes in the server's answer.
const END_OF_BATCH: u16 = 204;
const NO_MATCH: u16 = 404;
/// More than 1,024 subjects match a wildcard of `multi_last`.
const TOO_MANY_SUBJECTS: u16 = 413;
/// No such stream, or one that does not allow direct gets.
const NO_RESPONDERS: u16 = 503;
const PENDING: &str = "Nats-Num-Pending";
const SUBJECT: &str = "Nats-Subject";
const SEQUENCE: &str = "Nats-Sequence";

/// A page of a bucket, in the order in which its entries were written.
pub(crate) struct Page {
    /// Without deletion markers.
    pub entries: Vec<Entry>,
    /// Revision of the last entry or deletion marker, or that after which the page begins.
    pub last: u64,
    /// Number of entries that match on all pages. Counts deletion markers too, unless there is only this page.
    pub total: u64,
    /// True if entries follow on another page.
    pub more: bool,
}

/// Limits of a page. It ends at the first one that it reaches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLimits {
    pub entries: usize,
    /// The server may exceed it by one entry.
    pub bytes: u64,
}

/// A request of the server's direct get.
#[derive(Debug, Default, Serialize)]
struct Query {
    #[serde(skip_serializing_if = "is_zero")]
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    multi_last: Vec<String>,
    batch: usize,
    #[serde(skip_serializing_if = "is_zero")]
    max_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Answer to a query.
struct Batch {
    messages: Vec<Message>,
    /// Number of matches after the last message.
    pending: u64,
}

impl Batch {
    /// Returns the number of matches from the query's start on.
    fn total(&self) -> u64 {
        self.pending + u64::try_from(self.messages.len()).unwrap_or(0)
    }
}

/// Selects a part of a bucket: the entries that match the filter and were written after the revision, as many as the limits
/// allow.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub bucket: &'a str,
    pub filter: &'a str,
    pub after: u64,
    pub limits: PageLimits,
}

impl Part<'_> {
    fn query(&self) -> Query {
        let Self { after, limits, .. } = self;
        Query { seq: after.saturating_add(1), batch: limits.entries, max_bytes: limits.bytes, ..Query::default() }
    }
}

/// Returns a part of a bucket, or nothing if more than 1,024 keys match the filter. The server reads each of them by its index.
pub(crate) async fn page_of_few(nats: &Nats, part: Part<'_>) -> Result<Option<Page>, NatsError> {
    let subject = kv_subject(part.bucket, part.filter);
    let query = Query { multi_last: vec![subject], ..part.query() };
    match get_batch(nats, &kv_stream(part.bucket), &query).await? {
        Some(batch) => page(nats, part, batch).await.map(Some),
        None => Ok(None),
    }
}

/// Does the same for any number of keys. The server reads along the stream and counts what follows, which takes 100 ms for
/// 100,000 keys.
pub(crate) async fn page_of_many(nats: &Nats, part: Part<'_>) -> Result<Page, NatsError> {
    let subject = kv_subject(part.bucket, part.filter);
    let query = Query { next_by_subj: Some(subject), ..part.query() };
    page(nats, part, get_unlimited(nats, &kv_stream(part.bucket), &query).await?).await
}

async fn page(nats: &Nats, Part { bucket, filter, after, .. }: Part<'_>, batch: Batch) -> Result<Page, NatsError> {
    let total = if after == 0 {
        batch.total()
    } else {
        let first = Query { next_by_subj: Some(kv_subject(bucket, filter)), batch: 1, ..Query::default() };
        get_unlimited(nats, &kv_stream(bucket), &first).await?.total()
    };
    let more = batch.pending > 0;
    let is_only_page = after == 0 && !more;
    let all: Vec<Entry> = batch.messages.into_iter().filter_map(|message| any_entry(bucket, message)).collect();
    let last = all.last().map_or(after, |entry| entry.revision);
    let entries: Vec<Entry> = all.into_iter().filter(|entry| entry.value.is_some()).collect();
    let total = if is_only_page { u64::try_from(entries.len()).unwrap_or(u64::MAX) } else { total };
    Ok(Page { entries, last, total, more })
}

/// A message of [`after`].
pub(crate) struct NumberedMessage {
    pub sequence: u64,
    pub payload: Bytes,
}

/// Returns messages of a stream that match a filter and were stored after the given sequence, oldest first, as many as the
/// limits allow.
pub(crate) async fn after(
    nats: &Nats,
    stream: &str,
    filter: String,
    sequence: u64,
    limits: PageLimits,
) -> Result<Vec<NumberedMessage>, NatsError> {
    let (seq, next_by_subj) = (sequence.saturating_add(1), Some(filter));
    let query = Query { seq, next_by_subj, batch: limits.entries, max_bytes: limits.bytes, ..Query::default() };
    let numbered = |message: Message| {
        let sequence = text(&message.headers?, SEQUENCE).parse().ok()?;
        Some(NumberedMessage { sequence, payload: message.payload })
    };
    Ok(get_unlimited(nats, stream, &query).await?.messages.into_iter().filter_map(numbered).collect())
}

/// Returns those of the given subjects on which a stream holds a message. At most [`MAX_SUBJECTS`].
pub(crate) async fn present(nats: &Nats, stream: &str, subjects: Vec<String>) -> Result<Vec<String>, NatsError> {
    let query = Query { batch: subjects.len(), multi_last: subjects, ..Query::default() };
    let batch = get_unlimited(nats, stream, &query).await?;
    Ok(batch.messages.iter().filter_map(|message| Some(text(message.headers.as_ref()?, SUBJECT))).collect())
}

/// Returns the newest entries of the given keys, deletion markers included. At most [`MAX_SUBJECTS`].
pub(crate) async fn entries(nats: &Nats, bucket: &str, keys: &[String]) -> Result<Vec<Entry>, NatsError> {
    let subjects = keys.iter().map(|key| kv_subject(bucket, key)).collect();
    let query = Query { batch: keys.len(), multi_last: subjects, ..Query::default() };
    let batch = get_unlimited(nats, &kv_stream(bucket), &query).await?;
    Ok(batch.messages.into_iter().filter_map(|message| any_entry(bucket, message)).collect())
}

/// Sends a query that the server cannot refuse for its number of subjects.
async fn get_unlimited(nats: &Nats, stream: &str, query: &Query) -> Result<Batch, NatsError> {
    let batch = get_batch(nats, stream, query).await?;
    batch.ok_or_else(|| NatsError::unreadable("too many subjects in a direct get"))
}

/// Sends a query and receives its messages. Returns nothing if too many subjects match.
async fn get_batch(nats: &Nats, stream: &str, query: &Query) -> Result<Option<Batch>, NatsError> {
    const FAILED: &str = "a direct get failed";
    let payload = serde_json::to_vec(query).map_err(NatsError::unreadable)?;
    let mut answers = nats.request_many(direct_get(stream), payload.into()).await?;
    let mut messages = Vec::new();
    loop {
        let next = tokio::time::timeout(SILENCE, answers.next()).await.map_err(NatsError::away_because(FAILED))?;
        let message = next.ok_or_else(|| NatsError::away(FAILED))?;
        match message.status.map(|status| status.as_u16()) {
            None => messages.push(message),
            Some(END_OF_BATCH) => {
                let pending = message.headers.as_ref().and_then(|headers| text(headers, PENDING).parse().ok());
                return Ok(Some(Batch { messages, pending: pending.unwrap_or(0) }));
            }
            Some(NO_MATCH) => return Ok(Some(Batch { messages, pending: 0 })),
            Some(TOO_MANY_SUBJECTS) => return Ok(None),
            Some(NO_RESPONDERS) => return Err(NatsError::not_sent("no replica answers direct gets of the stream")),
            Some(status) => return Err(NatsError::unreadable(format!("status {status} of a direct get"))),
        }
    }
}

fn any_entry(bucket: &str, message: Message) -> Option<Entry> {
    let headers = message.headers?;
    let (subject, revision) = (text(&headers, SUBJECT), text(&headers, SEQUENCE).parse().ok()?);
    Some(entry(bucket, &subject, revision, headers, message.payload))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    header(headers, name).to_owned()
}
