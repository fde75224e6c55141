//! Questions that every worker answers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::jetstream::{Nats, NatsError};

/// Silence after which no further answer is expected. Workers answer within milliseconds; one that takes longer is
/// missed.
const SILENCE: Duration = Duration::from_secs(2);

/// Publishes an empty question to all workers and returns their answers. Returns no answers if no worker listens.
pub(crate) async fn ask_all_workers(nats: &Nats, subject: &str) -> Result<Vec<Bytes>, NatsError> {
    const FAILED: &str = "cannot ask the workers";
    nats.require_connected()?;
    let inbox = nats.client().new_inbox();
    let mut answers = nats.client().subscribe(inbox.clone()).await.map_err(NatsError::away_because(FAILED))?;
    nats.request_to_inbox(subject.to_owned(), inbox, Bytes::new()).await?;
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
