//! A check that this gateway's connection ends when the server is restarted: it then publishes its unanswered callbacks again
//! (`repeat.rs`), because a single server may lose commands that it has acknowledged.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Backend, RequestContext};
use crate::call::Call;

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
            let context = RequestContext::default();
            let call = self.call(Call::Ready, &context, &Value::Null);
            // Without a worker the call takes seconds.
            let Some(answered) = stop.run_until_cancelled(call).await else { return Ok(()) };
            if let Ok(answer) = answered {
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
