//! Room in the streams: tokens are requested from a provider only while their record can be stored.
//!
//! In a cluster a full stream refuses even a smaller message in place of a larger one. So the last 5 % are for deletions and
//! for what is in flight. After the server has refused a write for lack of space, or has left writes unanswered, test writes
//! have to succeed first: a server whose disk was full leaves writes to some streams unanswered until it is restarted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::jetstream::{Nats, NatsError, REQUEST_TIMEOUT, headers};
use crate::protocol::topology::{self, Unwritable};
use crate::subject::{META, META_MAJORITY, kv_subject};

/// Shortest time between two tests.
const TEST_PAUSE: Duration = Duration::from_secs(1);

/// Wait before what needs room is tried again.
pub(crate) const NO_ROOM_WAIT: Duration = Duration::from_secs(30);

/// Why no tokens are requested now.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error("{0} is nearly full")]
    Full(String),
    #[error("the message bus stores nothing: {0}")]
    Unwritable(Unwritable),
}

#[derive(Debug, Default)]
pub(crate) struct Room {
    full: Mutex<Option<String>>,
    failed: tokio::sync::Mutex<Option<FailedTest>>,
}

#[derive(Debug)]
struct FailedTest {
    at: Instant,
    reason: Unwritable,
}

impl Room {
    /// Remembers which of the streams that each login and refresh needs is nearly full, if any.
    pub(crate) fn set_full(&self, stream: Option<String>) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if *full != stream {
            if let Some(stream) = &stream {
                warn!("stream {stream} is above 95 % of its `max_bytes`: no token is requested until it has room");
            } else {
                info!("the streams have room again");
            }
            *full = stream;
        }
    }

    /// Checks that the record of new tokens can be stored.
    pub(crate) async fn check(&self, nats: &Nats) -> Result<(), NoRoom> {
        if let Some(stream) = self.full.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(NoRoom::Full(stream));
        }
        self.check_writes(nats).await
    }

    /// Checks that the server stores something, if it has refused a write for lack of space or left one unanswered.
    pub(crate) async fn check_writes(&self, nats: &Nats) -> Result<(), NoRoom> {
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
        nats.set_lacks_space(false);
        let Err(reason) = topology::test_writes(nats).await else {
            if failed.take().is_some() {
                info!("the server stores messages again");
            }
            return Ok(());
        };
        nats.set_lacks_space(true);
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
