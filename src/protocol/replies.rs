//! Receives the answers to commands.
//!
//! - A worker answers after its last durable write. The answer is a plain message and may be lost: the sender then reads the
//!   connection to learn the result.
//! - Workers answer each other on `oauth.reply.worker.*.*`, a token longer than the gateways' replies, which are exported to
//!   the gateways' account. Only commands that a worker has sealed are answered there, and they are answered nowhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tracing::warn;

use crate::command::WorkerReply;
use crate::jetstream::Nats;
use crate::subject::{self, Waiter};
use crate::system;

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<WorkerReply>>>>;

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

    /// Passes on answers.
    ///
    /// # Errors
    /// When the server refuses the subscription, or the subscription ends.
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
    receiver: oneshot::Receiver<WorkerReply>,
    waiting: Waiting,
    id: String,
}

impl Expected {
    /// Waits for the answer.
    pub async fn arrival(&mut self) -> Option<WorkerReply> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.id);
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, oneshot::Sender<WorkerReply>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
