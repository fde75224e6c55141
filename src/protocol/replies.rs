//! Receives the answers to commands.
//!
//! - A worker answers after its last durable write. The answer is a plain message and may be lost: the sender then reads the
//!   connection to learn the result.
//! - Workers answer each other on `oauth.reply.worker.*.*`, a token longer than the gateways' replies, which are exported to
//!   the gateways' account. Only commands that a worker has sealed are answered there, and they are answered nowhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;
use tracing::warn;
use zeroize::Zeroizing;

use super::outgoing::Outgoing;
use crate::command::WorkerReply;
use crate::jetstream::Nats;
use crate::seal::{SealError, SharedKey};
use crate::subject::{self, Waiter};
use crate::system;

type Waiting = Arc<Mutex<HashMap<String, Waits>>>;

/// A task that waits for an answer, and the seal of that answer.
struct Waits {
    sender: oneshot::Sender<WorkerReply>,
    key: SharedKey,
    /// Subject of the command.
    subject: String,
}

/// An answer as it travels: a [`WorkerReply`], sealed with the key that the command's order holds.
#[derive(Debug, Deserialize)]
struct SealedReply {
    sealed: String,
}

/// Associated data of an answer: binds it to its command.
fn answer_data(subject: &str, id: &str) -> Vec<u8> {
    format!("answer\0{subject}\0{id}").into_bytes()
}

/// Seals the answer to a command.
pub(crate) fn seal_answer(
    key: &SharedKey,
    (subject, id): (&str, &str),
    answer: &WorkerReply,
) -> Result<Bytes, SealError> {
    let answer = serde_json::to_vec(answer).map(Zeroizing::new);
    let Ok(answer) = answer else { return Err(SealError::Form) };
    let sealed = key.seal(&answer_data(subject, id), &answer)?;
    Ok(json!({ "sealed": sealed }).to_string().into())
}

/// Opens the answer to a command. Returns nothing if it was sealed with another key or for another command.
#[must_use]
pub fn open_answer(key: &SharedKey, (subject, id): (&str, &str), payload: &[u8]) -> Option<WorkerReply> {
    let SealedReply { sealed } = serde_json::from_slice(payload).ok()?;
    let opened = key.open(&answer_data(subject, id), &sealed).ok()?;
    serde_json::from_slice(&opened).ok()
}

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
        let mut answers = nats.subscribe_kept(self.waiter.replies()).await?;
        while let Some(message) = answers.next().await {
            let of_worker = matches!(self.waiter, Waiter::Worker(_));
            let Some(id) = subject::parse_reply(&message.subject, of_worker) else { continue };
            let mut waiting = lock(&self.waiting);
            // Another gateway's user can direct an answer here. It does not open, and the task waits on.
            match waiting.get(id).map(|waits| open_answer(&waits.key, (&waits.subject, id), &message.payload)) {
                Some(Some(answer)) => {
                    let waits = waiting.remove(id);
                    drop(waits.map(|waits| waits.sender.send(answer)));
                }
                Some(None) => warn!("an answer to a command does not open"),
                None => {}
            }
        }
        Err("subscription to answers ended".into())
    }

    /// Registers for the answer to a command. Dropping the result ends the registration.
    #[must_use]
    pub(crate) fn expect(&self, command: &Outgoing) -> Expected {
        let (sender, receiver) = oneshot::channel();
        let (key, subject) = (command.answer_key.clone(), command.subject.clone());
        lock(&self.waiting).insert(command.id.clone(), Waits { sender, key, subject });
        Expected { receiver, waiting: Arc::clone(&self.waiting), id: command.id.clone() }
    }
}

/// Registration for an answer.
pub(crate) struct Expected {
    receiver: oneshot::Receiver<WorkerReply>,
    waiting: Waiting,
    id: String,
}

impl Expected {
    /// Waits for the answer.
    pub(crate) async fn arrival(&mut self) -> Option<WorkerReply> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.id);
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, Waits>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
