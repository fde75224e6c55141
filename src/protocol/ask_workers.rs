//! Questions that every worker answers.

use std::time::Duration;

use bytes::Bytes;

use crate::jetstream::{Nats, NatsError};

/// Silence after which no further answer is expected. Workers answer within milliseconds; one that takes longer is
/// missed.
const SILENCE: Duration = Duration::from_secs(2);

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
