//! Room in the streams: tokens are requested from a provider only while their record can be stored.
//!
//! In a cluster a full stream refuses even a smaller message in place of a larger one. So the last 5 % are for deletions and
//! for what is in flight. After the server has refused a write for lack of space, or has left writes unanswered, test writes
//! have to succeed first: a server whose disk was full leaves writes to some streams unanswered until it is restarted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::jetstream::{Nats, NatsError, REQUEST_TIMEOUT, headers};
use crate::protocol::records::longest_token;
use crate::protocol::topology::{self, Unwritable};
use crate::subject::{META, META_MAJORITY, kv_subject};

/// Shortest time between two tests.
const TEST_PAUSE: Duration = Duration::from_secs(1);

/// Wait before what needs room is tried again.
pub(crate) const NO_ROOM_WAIT: Duration = Duration::from_secs(30);

/// Why no tokens are requested now.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error("stream {0} is nearly full: it is above 95 % of its `max_bytes`")]
    Full(String),
    #[error("the message bus stores nothing: {0}")]
    Unwritable(Unwritable),
    #[error("`max_payload` of nats-server is {0} bytes, too small for the connection's tokens: raise it")]
    SmallMessages(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Room {
    full: Mutex<Vec<String>>,
    failed: tokio::sync::Mutex<Option<FailedTest>>,
}

#[derive(Debug)]
struct FailedTest {
    at: Instant,
    reason: Unwritable,
}

impl Room {
    /// Remembers which of the streams that each login and refresh needs are nearly full.
    pub(crate) fn set_full(&self, streams: Vec<String>) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter().filter(|stream| !full.contains(stream)) {
            let effect = if topology::holds_tokens(stream) { "no token is requested, and " } else { "" };
            warn!("stream {stream} is above 95 % of its `max_bytes`: {effect}`/readyz` is not ready until it has room");
        }
        if streams.is_empty() && !full.is_empty() {
            info!("the streams have room again");
        }
        *full = streams;
    }

    /// Checks that the record of new tokens can be stored. `access_token` is the length of the token that they replace: new ones
    /// are about as long.
    pub(crate) async fn check(&self, nats: &Nats, access_token: usize) -> Result<(), NoRoom> {
        check_messages(nats, access_token)?;
        self.check_streams(topology::holds_tokens)?;
        self.check_writes(nats).await
    }

    /// Checks that logins, refreshes and their tokens can be stored.
    pub(crate) async fn check_all(&self, nats: &Nats) -> Result<(), NoRoom> {
        check_messages(nats, 0)?;
        self.check_streams(|_| true)?;
        self.check_writes(nats).await
    }

    fn check_streams(&self, is_needed: impl Fn(&str) -> bool) -> Result<(), NoRoom> {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        match full.iter().find(|stream| is_needed(stream)) {
            Some(stream) => Err(NoRoom::Full(stream.clone())),
            None => Ok(()),
        }
    }

    /// Checks that the server stores something, if it has refused a write for lack of space or left one unanswered.
    async fn check_writes(&self, nats: &Nats) -> Result<(), NoRoom> {
        if !nats.lacks_space() {
            return Ok(());
        }
        let mut failed = self.failed.lock().await;
        if !nats.lacks_space() {
            return Ok(());
        }
        if let Some(FailedTest { reason, .. }) = failed.as_ref().filter(|failed| failed.at.elapsed() < TEST_PAUSE) {
            return Err(NoRoom::Unwritable(reason.clone()));
        }
        // The flag stays up during the test, so that a check at the same time waits for its result.
        let Err(reason) = topology::test_writes(nats).await else {
            nats.set_lacks_space(false);
            if failed.take().is_some() {
                info!("the server stores messages again");
            }
            return Ok(());
        };
        if failed.is_none() {
            error!("no token is requested, because {reason}");
        }
        *failed = Some(FailedTest { at: Instant::now(), reason: reason.clone() });
        Err(NoRoom::Unwritable(reason))
    }

    /// Makes a test write to a key of its own, which a full stream may accept in place of the one before. A cluster without
    /// a majority may still answer reads and describe its streams, but it stores nothing.
    pub(crate) async fn check_majority(nats: &Nats) -> Result<(), NatsError> {
        let subject = kv_subject(META, META_MAJORITY);
        let written = nats.publish(&subject, headers(None), "{}".into());
        let written = tokio::time::timeout(REQUEST_TIMEOUT, written).await;
        written.map_err(NatsError::away_because("a test write has no answer"))?.map(drop)
    }
}

/// Checks that the server takes messages with a token of that length.
fn check_messages(nats: &Nats, access_token: usize) -> Result<(), NoRoom> {
    let bytes = nats.max_payload();
    if longest_token(bytes) < access_token.max(1) { Err(NoRoom::SmallMessages(bytes)) } else { Ok(()) }
}
