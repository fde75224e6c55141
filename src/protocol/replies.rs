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
            if let Some(id) = subject::parse_reply(&message.subject, of_worker) {
                let _is_taken = self.deliver(id, &message.payload);
            }
        }
        Err("subscription to answers ended".into())
    }

    /// Passes on an answer that does not come from the bus. Returns false if no task waits for it: the command may be of another
    /// process, with the same configured id.
    pub(crate) fn pass_on(&self, subject: &str, payload: &[u8]) -> bool {
        self.waiter.id_of(subject).is_some_and(|id| self.deliver(id, payload))
    }

    /// Returns true if a task takes the answer.
    fn deliver(&self, id: &str, payload: &[u8]) -> bool {
        let mut waiting = lock(&self.waiting);
        // Another gateway's user can direct an answer here. It does not open, and the task waits on.
        match waiting.get(id).map(|waits| open_answer(&waits.key, (&waits.subject, id), payload)) {
            Some(Some(answer)) => {
                waiting.remove(id).is_some_and(|waits| waits.sender.send(answer).is_ok())
            }
            Some(None) => {
                warn!("an answer to a command does not open");
                false
            }
            None => false,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes may have the same configured id, for example while one replaces the other.
    #[test]
    fn an_answer_that_no_task_here_waits_for_is_not_taken() {
        let replies = Replies::to(system::random_id());
        let (id, key) = (system::random_id(), SharedKey::random());
        let reply = replies.waiter().reply(&id);
        let answer = WorkerReply::ok(json!({}));
        let sealed = seal_answer(&key, ("subject", &id), &answer).unwrap();
        assert!(!replies.pass_on(&reply, &sealed));
        let (sender, mut receiver) = oneshot::channel();
        lock(&replies.waiting).insert(id.clone(), Waits { sender, key, subject: "subject".to_owned() });
        assert!(replies.pass_on(&reply, &sealed));
        assert!(receiver.try_recv().is_ok());
        assert!(!replies.pass_on(&reply, &sealed), "it was taken before");
    }
}
