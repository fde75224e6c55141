//! Quarantine: commands that the client library cannot read are taken off the queue, each with a dead letter.
//!
//! The server passes on any bytes that a publisher sends. async-nats 0.51 panics at some headers (a lone carriage return in
//! a value), and ends the connection at others and at subjects that are not UTF-8. Such a command would end the connection
//! of one worker after another. So commands in progress are read through the JetStream API, whose answer is JSON, and
//! checked here: at a start, after a pull that failed, and twice a minute.

use std::ops::RangeInclusive;
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

/// Most sequences in one check. The consumers' `max_ack_pending` allows fewer commands in progress at once.
const MAX_SEQUENCES: u64 = 20_000;
const REASON: &str = "its subject or headers cannot be read";
/// Longest time for one answer of the API, which is slower than a publish when the server has just started.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A stored message as the API shows it.
#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
}

/// Takes unreadable commands off the queue and returns their number.
pub(crate) async fn quarantine(nats: &Nats, now: Timestamp) -> Result<usize, NatsError> {
    let Some(in_progress) = in_progress(nats).await? else { return Ok(0) };
    let (first, last) = in_progress.into_inner();
    let (mut next, mut found) = (first, 0);
    while next <= last && next - first < MAX_SEQUENCES {
        let Some(stored) = get_from(nats, next).await?.filter(|stored| stored.seq <= last) else { break };
        next = stored.seq + 1;
        let headers = BASE64_STANDARD.decode(&stored.hdrs).map_err(NatsError::unreadable)?;
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
        request(nats, &subject::message_delete(OAUTH_COMMANDS), &delete).await?;
        found += 1;
    }
    Ok(found)
}

/// Returns the range of sequences that holds all commands that are delivered and not yet acked.
async fn in_progress(nats: &Nats) -> Result<Option<RangeInclusive<u64>>, NatsError> {
    let mut range: Option<RangeInclusive<u64>> = None;
    for verb in Verb::ALL {
        let mut consumer = commands::consumer(nats, verb).await?;
        let info = consumer.info().await.map_err(NatsError::away_because("cannot look up a consumer"))?;
        if info.num_ack_pending == 0 {
            continue;
        }
        let (first, last) = (info.ack_floor.stream_sequence + 1, info.delivered.stream_sequence);
        range = Some(range.map_or(first..=last, |range| first.min(*range.start())..=last.max(*range.end())));
    }
    Ok(range)
}

/// Returns the first stored command at this sequence or after it.
async fn get_from(nats: &Nats, sequence: u64) -> Result<Option<Stored>, NatsError> {
    #[derive(Deserialize)]
    struct Got {
        message: Option<Stored>,
    }
    let question = json!({ "seq": sequence, "next_by_subj": ">" });
    let answer = request(nats, &subject::message_get(OAUTH_COMMANDS), &question).await?;
    serde_json::from_slice::<Got>(&answer).map(|got| got.message).map_err(NatsError::unreadable)
}

async fn request(nats: &Nats, subject: &str, question: &serde_json::Value) -> Result<bytes::Bytes, NatsError> {
    let request = Request::new().payload(question.to_string().into()).timeout(Some(ANSWER_TIMEOUT));
    nats.request(subject, request).await.map(|answer| answer.payload)
}

/// Returns true if a client library would write this block of headers: a version without a status, then names and values.
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
