//! The share of its `max_bytes` that each stream uses, and test writes that show whether the server stores messages.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_TTL;
use futures_util::future::try_join_all;

use crate::jetstream::{Nats, NatsError, REQUEST_TIMEOUT, headers};
use crate::subject::{
    API_KEYS, COMMANDS_TEST, CONFIGS, CONNECTIONS, META, NONCES, OAUTH, OAUTH_COMMANDS, RECORDS_TEST, STATES, TEST_KEY,
    kv_stream, kv_subject,
};

/// Longest wait for the answer to a test write: two tries.
const TEST_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_mul(2);

/// Share of `max_bytes` above which an operator should act.
const NEARLY_FULL: f64 = 0.8;

#[derive(Debug, Clone)]
pub(crate) struct StreamUse {
    pub stream: String,
    /// From 0 to 1.
    pub share: f64,
}

impl StreamUse {
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.share > NEARLY_FULL
    }
}

/// The streams that every login and refresh writes to. Those of events and schedules drop old messages or have no limit.
pub(crate) fn needed() -> [String; 4] {
    [OAUTH.to_owned(), kv_stream(CONNECTIONS), OAUTH_COMMANDS.to_owned(), kv_stream(STATES)]
}

/// Returns true for the streams without which new tokens cannot be stored. The queue and the pending logins are not among them:
/// commands that are queued must run, because that empties the queue.
pub(crate) fn holds_tokens(stream: &str) -> bool {
    stream == OAUTH || stream == kv_stream(CONNECTIONS)
}

/// The streams that refuse messages when they are full. Those of events and dead letters drop the oldest instead.
pub(crate) fn limited() -> Vec<String> {
    let buckets = [CONNECTIONS, STATES, CONFIGS, API_KEYS, META, NONCES].map(kv_stream);
    [OAUTH, OAUTH_COMMANDS].map(str::to_owned).into_iter().chain(buckets).collect()
}

/// Returns how full these streams are. Leaves out those that are missing or have no limit.
pub(crate) async fn used(nats: &Nats, streams: &[String]) -> Result<Vec<StreamUse>, NatsError> {
    nats.require_connected()?;
    let mut found = Vec::new();
    for stream in streams {
        let Some(info) = nats.stream_info(stream).await? else { continue };
        let Some(most) = u64::try_from(info.config.max_bytes).ok().filter(|most| *most > 0) else { continue };
        #[expect(clippy::cast_precision_loss, reason = "a share needs no exact numbers")]
        let share = info.state.bytes as f64 / most as f64;
        found.push(StreamUse { stream: stream.clone(), share });
    }
    Ok(found)
}

/// A stream that stores nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unwritable {
    #[error("stream {stream} stores no message: {source}")]
    Refused { stream: String, source: Arc<NatsError> },
    /// A single server whose disk was full answers in this way until it is restarted, also once there is space.
    #[error(
        "the server confirms no write to stream {stream}; if its disk was full, free space and restart nats-server, \
         because it does not store messages again by itself"
    )]
    Silent { stream: String },
}

/// Writes a message without meaning into each stream that a login or a refresh needs. The messages vanish after a second.
pub(crate) async fn test_writes(nats: &Nats) -> Result<(), Unwritable> {
    let mut tests =
        vec![(OAUTH.to_owned(), RECORDS_TEST.to_owned()), (OAUTH_COMMANDS.to_owned(), COMMANDS_TEST.to_owned())];
    tests.extend([META, CONNECTIONS, STATES].map(|bucket| (kv_stream(bucket), kv_subject(bucket, TEST_KEY))));
    try_join_all(tests.into_iter().map(|(stream, subject)| test_write(nats, stream, subject))).await.map(drop)
}

async fn test_write(nats: &Nats, stream: String, subject: String) -> Result<(), Unwritable> {
    let mut headers = headers(None);
    headers.insert(NATS_MESSAGE_TTL, "1");
    if stream != OAUTH && stream != OAUTH_COMMANDS {
        // An entry that does not exist: readers of a bucket pass over it.
        headers.insert("KV-Operation", "DEL");
    }
    let written = tokio::time::timeout(TEST_TIMEOUT, nats.publish(&subject, headers, "{}".into())).await;
    match written {
        Ok(Ok(_)) => Ok(()),
        // A full stream refuses messages, too. Only `oauth_meta` stays so small that the server itself must be full.
        Ok(Err(error)) if error.is_refusal() => {
            if stream == kv_stream(META) {
                Err(Unwritable::Refused { stream, source: Arc::new(error) })
            } else {
                Ok(())
            }
        }
        Ok(Err(_)) | Err(_) => Err(Unwritable::Silent { stream }),
    }
}
