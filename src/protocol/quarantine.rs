//! Commands with subjects or headers that no client library writes: found among those under way, and taken off the
//! queue.
//!
//! Whoever may publish can send any bytes, and the server hands them on. async-nats 0.51 panics at some headers (a lone
//! carriage return in a value) and ends the connection at others, and at subjects that are no text; such a command would
//! come again and again. It is read through the API, whose answer is JSON, and judged here.

use std::time::Duration;

use async_nats::client::Request;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::jetstream::{Nats, NatsError};
use crate::protocol::commands::{self, DeadLetter};
use crate::subject::{self, CommandSubject, OAUTH_COMMANDS, Verb};

/// Commands looked at in one go: more are never under way.
const MOST: u64 = 20_000;
const REASON: &str = "its subject or headers cannot be read";
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A stored message as the API shows it.
#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
}

/// Takes unreadable commands off the queue, each with a dead letter. Gives how many there were.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn quarantine(nats: &Nats, now: Timestamp) -> Result<usize, NatsError> {
    let Some((first, last)) = under_way(nats).await? else { return Ok(0) };
    let (mut next, mut found) = (first, 0);
    while next <= last && next - first < MOST {
        let Some(stored) = get(nats, next).await?.filter(|stored| stored.seq <= last) else { break };
        next = stored.seq + 1;
        let headers = BASE64_STANDARD.decode(&stored.hdrs).map_err(|_| NatsError::Unreadable)?;
        if is_readable(&headers) && CommandSubject::parse(&stored.subject).is_ok() {
            continue;
        }
        let letter = DeadLetter {
            subject: stored.subject,
            command_id: None,
            reason: REASON.to_owned(),
            delivered: 1,
            time: now,
        };
        commands::store_letter(nats, &letter, &format!("{OAUTH_COMMANDS}.{}", stored.seq)).await?;
        let delete = json!({ "seq": stored.seq, "no_erase": true });
        ask(nats, &subject::message_delete(OAUTH_COMMANDS), &delete).await?;
        found += 1;
    }
    Ok(found)
}

/// From which sequence to which commands are delivered and not done.
async fn under_way(nats: &Nats) -> Result<Option<(u64, u64)>, NatsError> {
    let mut range: Option<(u64, u64)> = None;
    for verb in Verb::ALL {
        let mut consumer = commands::consumer(nats, verb).await?;
        let info = consumer.info().await.map_err(|_| NatsError::Away("no answer about a consumer"))?;
        if info.num_ack_pending == 0 {
            continue;
        }
        let (first, last) = (info.ack_floor.stream_sequence + 1, info.delivered.stream_sequence);
        range = Some(range.map_or((first, last), |(least, most)| (least.min(first), most.max(last))));
    }
    Ok(range)
}

async fn get(nats: &Nats, from: u64) -> Result<Option<Stored>, NatsError> {
    #[derive(Deserialize)]
    struct Got {
        message: Option<Stored>,
    }
    let question = json!({ "seq": from, "next_by_subj": ">" });
    let answer = ask(nats, &subject::message_get(OAUTH_COMMANDS), &question).await?;
    serde_json::from_slice::<Got>(&answer).map(|got| got.message).map_err(|_| NatsError::Unreadable)
}

async fn ask(nats: &Nats, subject: &str, question: &serde_json::Value) -> Result<bytes::Bytes, NatsError> {
    let request = Request::new().payload(question.to_string().into()).timeout(Some(ANSWER));
    nats.request(subject, request).await.map(|answer| answer.payload)
}

/// Whether a block of headers is as libraries write it: a version without a status, then names and values.
fn is_readable(block: &[u8]) -> bool {
    if block.is_empty() {
        return true;
    }
    let Some(lines) = std::str::from_utf8(block).ok().and_then(|text| text.strip_prefix("NATS/1.0\r\n")) else {
        return false;
    };
    let Some(lines) = lines.strip_suffix("\r\n") else { return false };
    lines.is_empty() || lines.strip_suffix("\r\n").is_some_and(|lines| lines.split("\r\n").all(is_header))
}

fn is_header(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, value)| {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        is_name && !value.contains(['\r', '\n'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e9_headers_are_those_that_libraries_write() {
        #[track_caller]
        fn check(block: &[u8], expected: bool) {
            assert_eq!(is_readable(block), expected, "{}", String::from_utf8_lossy(block));
        }
        check(b"", true);
        check(b"NATS/1.0\r\n\r\n", true);
        check(b"NATS/1.0\r\nOauth-Sender: X\r\n\r\n", true);
        check(b"NATS/1.0\r\na: b:c\r\nd:\r\n\r\n", true);
        check("NATS/1.0\r\na: \u{e4}\r\n\r\n".as_bytes(), true);
        check(b"NATS/1.0\r\na: b\rc\r\n\r\n", false);
        check(b"NATS/1.0\r\na: b\nc\r\n\r\n", false);
        check(b"NATS/1.0\r\nno colon\r\n\r\n", false);
        check(b"NATS/1.0\r\n: no name\r\n\r\n", false);
        check("NATS/1.0\r\nbl\u{e4}h: x\r\n\r\n".as_bytes(), false);
        check(b"NATS/1.0\r\na b: x\r\n\r\n", false);
        check(b"NATS/1.0\r\nx: \xff\r\n\r\n", false);
        check(b"NATS/1.0\r\na: x\r\n", false);
        check(b"NATS/1.0\r\na: x\r\n\r\nb: y\r\n\r\n", false);
        check(b"NATS/1.0 404 No Messages\r\n\r\n", false);
        check(b"HTTP/1.1\r\n\r\n", false);
        check(b"\r\n", false);
    }
}
