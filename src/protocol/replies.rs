//! Sends commands and receives the answers to them.
//!
//! - A command's message id is its own id, or one that the sender derives from the request, so repeating the publish stores
//!   it once.
//! - A worker answers after its last durable write. The answer is a plain message and may be lost: the sender then reads the
//!   connection to learn the result.
//! - Workers answer each other on `oauth.reply.worker.*.*`, a token longer than the gateways' replies, which are exported to
//!   the gateways' account. Only commands that a worker has sealed are answered there, and they are answered nowhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_MESSAGE_ID, NATS_MESSAGE_TTL};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tracing::warn;

use crate::command::{Answer, Envelope, HEADER_REPLY, HEADER_SENDER, Order, VERSION, Work};
use crate::jetstream::{Nats, NatsError, PubAck};
use crate::seal::SealError;
use crate::secret::Secret;
use crate::subject::{self, CommandSubject, Waiter};
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
        work: Work,
        seal: impl FnOnce(&[u8]) -> Result<(String, String), SealError>,
    ) -> Result<Self, SealError> {
        let (id, subject) = (system::random_id(), subject.subject());
        let order = Order { subject: subject.clone(), id: id.clone(), work };
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
    /// The id of an `exchange` covers the whole callback, not only its state. A callback that is refused without using up
    /// the login, for a missing code or a foreign credential, would otherwise keep the right callback out for the two
    /// minutes in which the server recognises duplicates.
    #[must_use]
    pub(crate) fn with_message_id(self, id: &str) -> Self {
        self.with_header(NATS_MESSAGE_ID.as_ref(), id)
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Puts the command on the queue, to be answered to `replies`.
    ///
    /// # Errors
    /// [`NatsError::Occupied`] while another command has this subject.
    pub(crate) async fn publish(&self, nats: &Nats, replies: Option<&Replies>) -> Result<PubAck, NatsError> {
        let mut headers = self.headers.clone();
        if let Some(replies) = replies {
            headers.insert(HEADER_REPLY, replies.waiter.reply(&self.id));
        }
        nats.publish(&self.subject, headers, self.payload.clone()).await
    }
}

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Answer>>>>;

/// Receives all answers to one process on one subscription, and passes each to the task that waits for it.
#[derive(Clone)]
pub struct Replies {
    waiter: Waiter,
    waiting: Waiting,
}

impl Default for Replies {
    fn default() -> Self {
        Self::new()
    }
}

impl Replies {
    /// Answers to a gateway with a random id.
    #[must_use]
    pub fn new() -> Self {
        Self::to(system::random_id())
    }

    /// Answers to the gateway with this id. The command line uses the id `admin`, the only one that is not random: its NATS
    /// user is permitted to receive these answers and no gateway's.
    #[must_use]
    pub fn to(id: String) -> Self {
        Self { waiter: Waiter::Edge(id), waiting: Waiting::default() }
    }

    /// Answers to a worker. No gateway may receive them.
    #[must_use]
    pub fn to_worker() -> Self {
        Self { waiter: Waiter::Worker(system::random_id()), waiting: Waiting::default() }
    }

    #[must_use]
    pub fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    /// Passes on answers until the subscription is refused or ends.
    pub async fn receive(&self, nats: &Nats) -> Result<(), async_nats::Error> {
        let mut answers = nats.client().subscribe(self.waiter.replies()).await?;
        while let Some(message) = answers.next().await {
            let of_worker = matches!(self.waiter, Waiter::Worker(_));
            let waiter =
                subject::parse_reply(&message.subject, of_worker).and_then(|id| lock(&self.waiting).remove(id));
            match (waiter, serde_json::from_slice(&message.payload)) {
                (Some(waiter), Ok(answer)) => drop(waiter.send(answer)),
                (Some(_), Err(_)) => warn!("unreadable answer to a command"),
                (None, _) => {}
            }
        }
        Err("subscription to answers ended".into())
    }

    /// Registers for the answer to a command. Dropping the result ends the registration.
    #[must_use]
    pub fn expect(&self, id: &str) -> Expected {
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(id.to_owned(), sender);
        Expected { receiver, waiting: Arc::clone(&self.waiting), id: id.to_owned() }
    }
}

/// Registration for an answer.
pub struct Expected {
    receiver: oneshot::Receiver<Answer>,
    waiting: Waiting,
    id: String,
}

impl Expected {
    /// Waits for the answer.
    pub async fn arrival(&mut self) -> Option<Answer> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.id);
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
