//! Seals commands and puts them on the work queue.
//!
//! A command's message id is its own id, or one that the sender derives from the request, so repeating the publish stores it
//! once.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_MESSAGE_ID, NATS_MESSAGE_TTL};
use bytes::Bytes;

use super::replies::Replies;
use crate::command::{Envelope, HEADER_REPLY, HEADER_SENDER, Order, Origin, VERSION, Work};
use crate::jetstream::{Nats, NatsError, Published};
use crate::seal::SealError;
use crate::secret::Secret;
use crate::subject::CommandSubject;
use crate::system;

/// A sealed command.
pub(crate) struct Outgoing {
    pub id: String,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Outgoing {
    /// Seals the work for its subject. `seal` returns the sealed order and the sender's public key.
    pub(crate) fn seal(
        subject: &CommandSubject,
        origin: Origin,
        work: Work,
        seal: impl FnOnce(&[u8]) -> Result<(String, String), SealError>,
    ) -> Result<Self, SealError> {
        let (id, subject) = (system::random_id(), subject.subject());
        let order = Order { subject: subject.clone(), id: id.clone(), origin, work };
        // Orders and envelopes always have a JSON form, so these two errors cannot happen and have no cause to keep.
        let order = serde_json::to_string(&order).map(Secret::new).map_err(|_| SealError::Form)?;
        let (sealed, sender) = seal(order.expose().as_bytes())?;
        let envelope = Envelope { v: VERSION, id: id.clone(), sealed };
        let payload = serde_json::to_vec(&envelope).map_err(|_| SealError::Form)?.into();
        let mut headers = crate::jetstream::headers(Some(&id));
        headers.insert(HEADER_SENDER, sender);
        Ok(Self { id, subject, headers, payload })
    }

    /// Makes the server drop the command if no worker takes it within this time.
    #[must_use]
    pub(crate) fn with_ttl(self, ttl: Duration) -> Self {
        self.with_header(NATS_MESSAGE_TTL.as_ref(), &ttl.as_secs().to_string())
    }

    /// Replaces the message id.
    ///
    /// The id of an `exchange` covers the whole callback. If it covered only the state, a callback that is refused without
    /// consuming the login (its code is missing, or its credential is another account's) would block the right callback
    /// for the two minutes in which the server recognises duplicates.
    #[must_use]
    pub(crate) fn with_message_id(self, id: &str) -> Self {
        self.with_header(NATS_MESSAGE_ID.as_ref(), id)
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Queues the command. Its answer goes to `replies`.
    ///
    /// # Errors
    /// [`NatsError::Occupied`] while another command has this subject.
    pub(crate) async fn publish(&self, nats: &Nats, replies: Option<&Replies>) -> Result<Published, NatsError> {
        let mut headers = self.headers.clone();
        if let Some(replies) = replies {
            headers.insert(HEADER_REPLY, replies.waiter().reply(&self.id));
        }
        nats.publish(&self.subject, headers, self.payload.clone()).await
    }
}
