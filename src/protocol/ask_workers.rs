//! Questions that every worker answers.

use std::time::Duration;

use bytes::Bytes;

use super::commands;
use crate::jetstream::{Nats, NatsError};
use crate::subject::SERVICE_PING;

/// Silence after which no further answer is expected. Workers answer within milliseconds; one that takes longer is
/// missed.
const SILENCE: Duration = Duration::from_secs(2);

/// Returns true if a worker runs: one that takes commands or answers calls, or is connected and silent because it is stopped. A
/// worker whose clock is wrong takes no commands, and may write all the same. One that died counts for a few seconds.
pub(crate) async fn any_worker_runs(nats: &Nats) -> Result<bool, NatsError> {
    if commands::has_worker(nats).await? {
        return Ok(true);
    }
    let mut answers = nats.request_many(SERVICE_PING.to_owned(), Bytes::new()).await?;
    match tokio::time::timeout(SILENCE, answers.next()).await {
        // Only the server sends a status, to say that no worker listens.
        Ok(Some(answer)) => Ok(answer.status.is_none()),
        Ok(None) => Err(NatsError::away("a question to all workers has no answer")),
        Err(_silence) => Ok(true),
    }
}

/// Publishes an empty question to all workers and returns their answers. Returns no answers if no worker listens.
pub(crate) async fn ask_all_workers(nats: &Nats, subject: &str) -> Result<Vec<Bytes>, NatsError> {
    let mut answers = nats.request_many(subject.to_owned(), Bytes::new()).await?;
    let mut received = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout(SILENCE, answers.next()).await {
        // Only the server sends a status, to say that no worker listens.
        if answer.status.is_some() {
            break;
        }
        received.push(answer.payload);
    }
    Ok(received)
}
