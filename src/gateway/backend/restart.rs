//! Restarts of the server, as a gateway sees them.
//!
//! A single server may lose commands that it has acknowledged when it crashes (`persist_mode: async`). A gateway sees the
//! restart by the server's new id, and publishes its unanswered callbacks again. Workers consume each login once, so a copy of
//! a callback that was not lost leads to the same answer.

use std::convert::Infallible;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Backend, RequestContext};
use crate::call::Call;
use crate::jetstream::NatsError;
use crate::protocol::outgoing::Outgoing;

/// Interval of looks at the connection while a callback waits for its answer, and pause between two publishes.
const LOOK: Duration = Duration::from_millis(100);
/// Pause between two questions to the workers at a gateway's start.
const QUESTION_PAUSE: Duration = Duration::from_secs(1);

/// The gateway's server would hide the restarts of a server that may lose commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store's queues have `persist_mode: async`, and this gateway is connected to a server that belongs to a cluster or has \
     no JetStream itself, such as a leaf node: set `nats.url` to the server that the workers use"
)]
pub(crate) struct HidesRestarts;

impl Backend {
    /// Publishes a callback's command again on each new start of the server. `server_id` is the server that has it.
    pub(super) async fn repeat_after_restart(&self, outgoing: &Outgoing, mut server_id: String) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            let current = self.nats.server_id();
            if current == server_id || !self.nats.is_connected() {
                continue;
            }
            match outgoing.publish(&self.nats, Some(&self.replies)).await {
                Ok(published) => {
                    info!(?published, "the NATS server was restarted; sent an unanswered callback again");
                    server_id = current;
                }
                // The queue still has it, or another login of the same connection.
                Err(NatsError::Occupied | NatsError::InFlight { .. }) => {}
                Err(error) => warn!("cannot send an unanswered callback again: {error}; trying again"),
            }
        }
    }

    /// Asks the workers, once one answers, whether restarts of the server matter. Then waits for `stop`.
    ///
    /// # Errors
    /// If restarts matter and this gateway could not see them.
    pub(crate) async fn guard_server(&self, stop: CancellationToken) -> Result<(), HidesRestarts> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            tracks_restarts: bool,
        }
        loop {
            if let Ok(answer) = self.call(Call::Ready, &RequestContext::default(), &Value::Null).await {
                let tracks = serde_json::from_slice(&answer).is_ok_and(|Answer { tracks_restarts }| tracks_restarts);
                if tracks && !self.nats.is_standalone() {
                    return Err(HidesRestarts);
                }
                stop.cancelled().await;
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(QUESTION_PAUSE) => {}
            }
        }
    }
}
