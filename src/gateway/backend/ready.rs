//! Readiness: asks the workers, at most once in [`READY_TTL`] however many checks arrive.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Backend, BackendError, RequestContext};
use crate::call::Call;

/// Time for which an answer of the workers is reused. Anyone may check readiness as often as they like; this bounds the
/// calls to the workers, and is short enough for a load balancer.
const READY_TTL: Duration = Duration::from_millis(500);

/// Longest wait for the workers. While none answers, calls ask for the workers' key one after the other, so a check could take longer
/// than `tokenbus health` waits.
const READY_WAIT: Duration = Duration::from_secs(10);

/// The reason why calls and commands cannot be sent, as text for people.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NotReady {
    #[error("the gateway is shutting down")]
    Leaving,
    #[error("not connected to NATS")]
    Disconnected,
    /// The worker's own answer.
    #[error("{0}")]
    Refused(String),
    #[error("no worker answers")]
    NoWorker(#[source] Arc<BackendError>),
}

/// An answer of the workers.
pub(super) struct LastCheck {
    at: Instant,
    /// Number of the connection to NATS. After a reconnect the workers may still be disconnected.
    connection: u64,
    result: Result<(), NotReady>,
}

impl Backend {
    /// Checks that calls and commands can be sent.
    pub(crate) async fn ready(&self) -> Result<(), NotReady> {
        if !self.nats.is_connected() {
            return Err(NotReady::Disconnected);
        }
        // Held during the call, so that all checks that arrive meanwhile wait for its answer.
        let mut last = self.last_check.lock().await;
        let connection = self.nats.connection_count();
        if let Some(check) = last.as_ref().filter(|it| it.connection == connection && it.at.elapsed() < READY_TTL) {
            return check.result.clone();
        }
        let result = self.ask_workers().await;
        *last = Some(LastCheck { at: Instant::now(), connection, result: result.clone() });
        result
    }

    async fn ask_workers(&self) -> Result<(), NotReady> {
        let question = if self.nats.lacks_space() { json!({ "test_writes": true }) } else { Value::Null };
        let context = RequestContext::default();
        let call = tokio::time::timeout(READY_WAIT, self.call(Call::Ready, &context, &question));
        match call.await.unwrap_or(Err(BackendError::Deadline)) {
            Ok(_) => {
                self.nats.set_lacks_space(false);
                Ok(())
            }
            Err(BackendError::Refused { error, .. }) => Err(NotReady::Refused(error)),
            Err(error) => Err(NotReady::NoWorker(Arc::new(error))),
        }
    }
}
