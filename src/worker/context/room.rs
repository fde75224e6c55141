//! Room in the streams: tokens are requested from a provider only while their record can be stored.
//!
//! In a cluster a full stream refuses even a smaller message in place of a larger one. So the last 5 % are for deletions and
//! for what is in flight. After the server has refused a write for lack of space, a test write has to succeed first.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::jetstream::{Nats, NatsError, REQUEST_TIMEOUT, headers};
use crate::subject::{META, META_MAJORITY, META_ROOM, kv_subject};

/// Shortest time between two test writes.
const TEST_PAUSE: Duration = Duration::from_secs(1);

/// Wait before what needs room is tried again.
pub(crate) const NO_ROOM_WAIT: Duration = Duration::from_secs(30);

/// Why no tokens are requested now.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error("{0} is nearly full")]
    Full(String),
    #[error("the message bus has no room for writes")]
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Room {
    full: Mutex<Option<String>>,
    tested: tokio::sync::Mutex<Option<Instant>>,
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

    /// Checks that the server stores something, if it has refused a write for lack of space.
    pub(crate) async fn check_writes(&self, nats: &Nats) -> Result<(), NoRoom> {
        if !nats.lacks_space() {
            return Ok(());
        }
        let mut tested = self.tested.lock().await;
        if !nats.lacks_space() {
            return Ok(());
        }
        if tested.is_some_and(|at| at.elapsed() < TEST_PAUSE) {
            return Err(NoRoom::Refused);
        }
        *tested = Some(Instant::now());
        nats.set_lacks_space(false);
        match nats.publish(&kv_subject(META, META_ROOM), headers(None), "{}".into()).await {
            Ok(_) => {
                info!("the server stores messages again");
                Ok(())
            }
            Err(error) => {
                nats.set_lacks_space(true);
                warn!("the server has no room: {error}");
                Err(NoRoom::Refused)
            }
        }
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
