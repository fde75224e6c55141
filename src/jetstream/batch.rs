//! Many messages for one request (direct get, answered by any replica): pages of a bucket, and which of many subjects
//! are there. Nothing is read but what is asked for.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::{HeaderMap, Message};
use futures_util::StreamExt as _;
use serde::Serialize;

use crate::jetstream::kv::{Entry, entry};
use crate::jetstream::{Nats, NatsError, header};
use crate::subject::{direct_get, kv_stream, kv_subject};

/// Subjects that one request may ask after: the server answers with 1,024 messages at most.
pub(crate) const MOST_SUBJECTS: usize = 1_000;
/// How long the server may be silent between two messages.
const SILENCE: Duration = Duration::from_secs(5);
/// The server's words: that was all, nothing matches, more subjects match than it looks up for one request; and that
/// there is no such stream, or none that answers direct gets.
const END: u16 = 204;
const NOTHING: u16 = 404;
const TOO_MANY: u16 = 413;
const NOBODY: u16 = 503;
const PENDING: &str = "Nats-Num-Pending";

/// A page of a bucket, in the order in which its entries were written.
pub(crate) struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// How many entries match in all.
    pub total: u64,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// One request of the server's direct get.
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

/// What the server sent for a query.
struct Found {
    messages: Vec<Message>,
    /// Matches behind the last message.
    pending: u64,
}

impl Found {
    /// Matches in all, the ones before this query's start not counted.
    fn total(&self) -> u64 {
        self.pending + u64::try_from(self.messages.len()).unwrap_or(0)
    }
}

/// Entries of a bucket that match, written after that revision: as many as fit into `limit` and `bytes`.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn page(
    nats: &Nats,
    bucket: &str,
    filter: &str,
    after: u64,
    (limit, bytes): (usize, u64),
) -> Result<Page, NatsError> {
    let (stream, subject) = (kv_stream(bucket), kv_subject(bucket, filter));
    let part = || Query { seq: after.saturating_add(1), batch: limit, max_bytes: bytes, ..Query::default() };
    // By subject where the subjects are few: the server goes to each. Where they are many, it walks along the stream.
    let found = if let Some(few) = ask(nats, &stream, &Query { multi_last: vec![subject.clone()], ..part() }).await? {
        few
    } else {
        let walk = Query { next_by_subj: Some(subject.clone()), ..part() };
        ask(nats, &stream, &walk).await?.ok_or(NatsError::Unreadable)?
    };
    let total = if after == 0 {
        found.total()
    } else {
        let first = Query { next_by_subj: Some(subject), batch: 1, ..Query::default() };
        ask(nats, &stream, &first).await?.ok_or(NatsError::Unreadable)?.total()
    };
    let more = found.pending > 0;
    let entries = found.messages.into_iter().filter_map(|message| kept(bucket, message)).collect();
    Ok(Page { entries, total, more })
}

/// Which of these subjects a stream holds a message on; at most [`MOST_SUBJECTS`].
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn present(nats: &Nats, stream: &str, subjects: Vec<String>) -> Result<Vec<String>, NatsError> {
    let query = Query { batch: subjects.len(), multi_last: subjects, ..Query::default() };
    let found = ask(nats, stream, &query).await?.ok_or(NatsError::Unreadable)?;
    Ok(found.messages.iter().filter_map(|message| Some(text(message.headers.as_ref()?, "Nats-Subject"))).collect())
}

/// Asks, and takes in what comes until the server says that it was all. None when too many subjects match.
async fn ask(nats: &Nats, stream: &str, query: &Query) -> Result<Option<Found>, NatsError> {
    nats.connected()?;
    let away = || NatsError::Away("no answer to a read");
    let payload = serde_json::to_vec(query).map_err(|_| NatsError::Unreadable)?;
    let inbox = nats.client.new_inbox();
    let mut answers = nats.client.subscribe(inbox.clone()).await.map_err(|_| away())?;
    let request = Request::new().payload(payload.into());
    nats.ask_at(direct_get(stream), inbox, request).await?;
    let mut messages = Vec::new();
    loop {
        let next = tokio::time::timeout(SILENCE, answers.next()).await;
        let message = next.ok().flatten().ok_or_else(away)?;
        match message.status.map(|status| status.as_u16()) {
            None => messages.push(message),
            Some(END) => {
                let pending = message.headers.as_ref().and_then(|headers| text(headers, PENDING).parse().ok());
                return Ok(Some(Found { messages, pending: pending.unwrap_or(0) }));
            }
            Some(NOTHING) => return Ok(Some(Found { messages, pending: 0 })),
            Some(TOO_MANY) => return Ok(None),
            Some(NOBODY) => return Err(NatsError::NotSent("nobody answers a direct get")),
            Some(_) => return Err(NatsError::Unreadable),
        }
    }
}

fn kept(bucket: &str, message: Message) -> Option<Entry> {
    let headers = message.headers?;
    let (subject, revision) = (text(&headers, "Nats-Subject"), text(&headers, "Nats-Sequence").parse().ok()?);
    let found = entry(bucket, &subject, revision, (headers, message.payload));
    found.value.is_some().then_some(found)
}

fn text(headers: &HeaderMap, name: &str) -> String {
    header(headers, name).to_owned()
}
