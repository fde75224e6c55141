//! Questions that everybody who listens answers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::jetstream::{Nats, NatsError};

/// How long it stays quiet before everybody is taken to have answered.
const QUIET: Duration = Duration::from_secs(2);

impl Nats {
    /// Asks all who listen to a subject, and gives what they answer.
    ///
    /// # Errors
    /// [`NatsError`] when not connected.
    pub async fn ask_all(&self, subject: &str) -> Result<Vec<Bytes>, NatsError> {
        self.connected()?;
        let away = || NatsError::Away("a question could not be asked");
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|_| away())?;
        self.client.publish_with_reply(subject.to_owned(), inbox, Bytes::new()).await.map_err(|_| away())?;
        let mut heard = Vec::new();
        while let Ok(Some(answer)) = tokio::time::timeout(QUIET, answers.next()).await {
            // The server's own word that nobody listens.
            if answer.status.is_some() {
                break;
            }
            heard.push(answer.payload);
        }
        Ok(heard)
    }
}
