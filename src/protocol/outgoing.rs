//! Seals commands and puts them on the work queue.
//!
//! A command's message id is its own id, or one that the sender derives from the request, so repeating the publish stores it
//! once. The sealed order names that id and the time: a worker refuses a command that is stored under another id or more than
//! a minute later, so the server's duplicate window refuses every copy, and after a restart of the server the worker does.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_TTL;
use bytes::Bytes;
use jiff::Timestamp;
use tracing::Instrument as _;

use super::replies::Replies;
use crate::command::{Envelope, HEADER_REPLY, HEADER_SENDER, HEADER_TRACEPARENT, Order, Origin, VERSION, Work};
use crate::jetstream::{Nats, NatsError, Published};
use crate::seal::{SealError, SharedKey};
use crate::secret::Secret;
use crate::subject::CommandSubject;
use crate::system;
use crate::telemetry::traces;

/// A command before it is sealed.
pub(crate) struct Draft<'a> {
    pub(crate) subject: &'a CommandSubject,
    pub(crate) origin: Origin,
    pub(crate) work: Work,
    /// The bus's time.
    pub(crate) time: Timestamp,
    /// The command's own id if none is given.
    ///
    /// The id of an `exchange` covers the whole callback, not only its state. A callback that is refused without using up
    /// the login, for a missing code or a foreign credential, would otherwise keep the right callback out for the two
    /// minutes in which the server recognises duplicates.
    pub(crate) message_id: Option<String>,
    /// The same command as it was published before, if its answer may be lost. Must not have the same message id.
    pub(crate) first: Option<&'a Outgoing>,
}

/// A sealed command.
pub(crate) struct Outgoing {
    pub(crate) id: String,
    pub(super) subject: String,
    /// Opens the answer.
    pub(super) answer_key: SharedKey,
    headers: HeaderMap,
    payload: Bytes,
}

impl Outgoing {
    /// Seals the work for its subject. `seal` returns the sealed order and the sender's public key.
    pub(crate) fn seal(
        draft: Draft<'_>,
        seal: impl FnOnce(&[u8]) -> Result<(String, String), SealError>,
    ) -> Result<Self, SealError> {
        let Draft { subject, origin, work, time, message_id, first } = draft;
        let (subject, new_id) = (subject.subject(), system::random_id());
        let message_id = message_id.unwrap_or_else(|| new_id.clone());
        let (id, answer_key) = match first {
            Some(first) => (first.id.clone(), first.answer_key.clone()),
            None => (new_id, SharedKey::random()),
        };
        let order = Order {
            subject: subject.clone(),
            id: id.clone(),
            time: time.as_millisecond(),
            message_id: message_id.clone(),
            answer_key: answer_key.to_text(),
            origin,
            work,
        };
        // Orders and envelopes always have a JSON form, so these two errors cannot happen and have no cause to keep.
        let order = serde_json::to_string(&order).map(Secret::new).map_err(|_| SealError::Form)?;
        let (sealed, sender) = seal(order.expose().as_bytes())?;
        let envelope = Envelope { v: VERSION, id: id.clone(), sealed };
        let payload = serde_json::to_vec(&envelope).map_err(|_| SealError::Form)?.into();
        let mut headers = crate::jetstream::headers(Some(&message_id));
        headers.insert(HEADER_SENDER, sender);
        Ok(Self { id, subject, answer_key, headers, payload })
    }

    /// Makes the server drop the command if no worker takes it within this time.
    #[must_use]
    pub(crate) fn with_ttl(self, ttl: Duration) -> Self {
        self.with_header(NATS_MESSAGE_TTL.as_ref(), &ttl.as_secs().to_string())
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
        let span = traces::publish(&self.subject);
        if let Some(traceparent) = traces::traceparent_of(&span) {
            headers.insert(HEADER_TRACEPARENT, traceparent);
        }
        nats.publish(&self.subject, headers, self.payload.clone()).instrument(span).await
    }
}
