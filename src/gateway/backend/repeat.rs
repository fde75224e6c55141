//! Callbacks whose command or answer may be lost.
//!
//! - The answer to a command is lost with the connection of this gateway, or with that of the worker.
//! - A single server may lose commands that it has acknowledged when it crashes (`persist_mode: async`).
//!
//! In both cases the gateway publishes the callback again, as the same command under another message id. The queue refuses it
//! while it holds the first message. The login shows the worker that gets it how far the first delivery came: it is pending, or
//! consumed by this command. So the code is sent once, and the stored connection is the answer.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::command::{self, MessageId};
use super::{Backend, Command, RequestContext};
use crate::jetstream::NatsError;
use crate::protocol::outgoing::Outgoing;

/// Interval of looks at the connection while a callback waits for its answer.
const LOOK: Duration = Duration::from_millis(100);
/// Pause between tries after a reconnection, while the queue holds the command: its answer may have been lost already.
const PAUSE: Duration = Duration::from_millis(500);
/// Interval of tries without a reconnection: the worker may have lost its connection. Long beside a callback, so that slow
/// providers and busy workers lead to few.
const INTERVAL: Duration = Duration::from_secs(5);

impl Backend {
    /// Publishes a callback's command again after each reconnection and at long intervals. `was_lost` returns true once after
    /// each reconnection.
    pub(super) async fn repeat_callback(
        &self,
        first: &Outgoing,
        callback: &Command,
        context: &RequestContext,
        mut was_lost: impl FnMut() -> bool,
    ) -> Infallible {
        let (mut next, mut is_lost) = (Instant::now() + INTERVAL, false);
        loop {
            tokio::time::sleep(LOOK).await;
            if was_lost() {
                (next, is_lost) = (Instant::now(), true);
            }
            if Instant::now() < next || !self.nats.is_connected() {
                continue;
            }
            match self.publish_again(first, callback, context).await {
                Ok(()) => {
                    info!("sent a callback without an answer again");
                    (next, is_lost) = (Instant::now() + INTERVAL, false);
                }
                // The queue holds it, or another login of the same connection.
                Err(NatsError::Occupied | NatsError::InFlight { .. }) => {
                    next = Instant::now() + if is_lost { PAUSE } else { INTERVAL };
                }
                Err(error) => {
                    warn!("cannot send a callback without an answer again: {error}; trying again");
                    next = Instant::now() + INTERVAL;
                }
            }
        }
    }

    async fn publish_again(
        &self,
        first: &Outgoing,
        callback: &Command,
        context: &RequestContext,
    ) -> Result<(), NatsError> {
        let now = self.sessions.clock().now();
        let again = command::seal(callback.clone(), MessageId::Again(first), context, now);
        let again = again.map_err(NatsError::unreadable)?;
        again.publish(&self.nats, Some(&self.replies)).await.map(drop)
    }
}
