//! Work queue: each command is delivered until a worker confirms it.
//!
//! - A stored command is delivered again when its worker stays silent for [`topology::ACK_WAIT`], for as long as it takes.
//!   Workers count deliveries and end a command after too many of them with a dead letter.
//! - The queue holds at most one command per subject. A second one is refused while the first is queued or in progress.
//! - An ack is a request: only the server's answer proves that it arrived. A late ack of an earlier delivery counts too,
//!   so acks do not tell workers apart; the expected sequences of their writes do.
//! - A dead letter's message id is the stream and sequence of its command, so the server stores it once however often its
//!   publish is repeated.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use futures_util::{Stream, TryStreamExt as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::command::Envelope;
use crate::config;
use crate::jetstream::pull::{Pulling, Pulls};
use crate::jetstream::reader::{Parts, Reader, Stored};
use crate::jetstream::{ConnectError, Nats, NatsError, headers};
use crate::protocol::topology;
use crate::subject::{self, CommandSubject, DEAD_LETTERS, OAUTH_COMMANDS, OAUTH_DEAD, OAUTH_EVENTS, Verb};
use crate::webhook::Receiver;

/// A command that was given up. Holds nothing of the command's content, so its sealed secrets are lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    /// The subject that the command was sent to.
    pub subject: String,
    /// Missing if the command could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    pub reason: String,
    /// Number of deliveries.
    pub delivered: i64,
    pub time: Timestamp,
}

/// Creates a verb's consumer, or leaves it as it is.
pub(crate) async fn declare_consumer(nats: &Nats, verb: Verb) -> Result<(), NatsError> {
    let created = nats.create_consumer(OAUTH_COMMANDS, topology::consumer(verb)).await;
    created.map(drop).map_err(|source| NatsError::Consumer { name: verb.to_string(), source })
}

/// Creates the consumer of the events for a receiver, or updates its selection of events. It is deleted when no worker has
/// pulled for `max_age`.
pub(crate) async fn webhook_consumer(
    nats: &Nats,
    receiver: &Receiver,
    max_age: Duration,
) -> Result<PullConsumer, NatsError> {
    nats.require_connected()?;
    let config = topology::webhook_consumer(receiver.account.as_ref(), &receiver.events, max_age);
    let name = config.durable_name.clone().unwrap_or_default();
    discard_if_ahead(nats, OAUTH_EVENTS, &name).await?;
    let created = nats.create_consumer(OAUTH_EVENTS, config).await;
    created.map_err(|source| NatsError::Consumer { name, source })
}

/// Deletes a consumer whose position is after its stream's end. A loss of power may take events that the server had not synced, and
/// leave a newer position. A nats-server 2.15.1 then delivers no event until the stream has grown to that position.
async fn discard_if_ahead(nats: &Nats, stream: &str, consumer: &str) -> Result<(), NatsError> {
    // In this order: a stream that grows in between is not taken for a short one.
    let Some(info) = nats.consumer_info(stream, consumer).await? else { return Ok(()) };
    let Some(state) = nats.stream_state(stream).await? else { return Ok(()) };
    if info.delivered.stream_sequence <= state.last_sequence {
        return Ok(());
    }
    warn!(stream, consumer, "the server has lost messages that were delivered; the consumer is created again");
    nats.delete_consumer(stream, consumer).await
}

/// Pauses before looks for a worker, in milliseconds. All pulls of a worker expire at the same time, so the first look may fall between them and
/// the next ones.
const LOOK_PAUSES: [u64; 5] = [0, 50, 100, 200, 400];

/// Returns true if a worker waits for commands. One that died counts until its pull expires, a few seconds later.
pub(crate) async fn has_worker(nats: &Nats) -> Result<bool, NatsError> {
    for pause in LOOK_PAUSES {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for verb in Verb::ALL {
            if nats.waiting_pulls(OAUTH_COMMANDS, verb.as_str()).await? > 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Prepares the pulls of commands, one for each of [`Verb::ALL`]. Gateways publish commands, with any headers.
pub(crate) fn pulls(nats: &Nats, settings: &config::Nats) -> Result<(Pulling, Vec<Pulls>), ConnectError> {
    Pulling::new(nats, settings, OAUTH_COMMANDS, &Verb::ALL.map(Verb::as_str))
}

/// Requests up to `limit` messages that workers have published. The batch ends when they have arrived or `expires` has passed.
///
/// `expires` is short because pulls have no heartbeats: in async-nats 0.51 a batch that has received a heartbeat is not
/// woken by later messages, which then wait for the batch's end. Without heartbeats nothing tells a pull that a restarted
/// server has forgotten it, so it lasts until it expires.
pub(crate) async fn pull(
    nats: &Nats,
    consumer: &PullConsumer,
    limit: usize,
    expires: Duration,
) -> Result<impl Stream<Item = Result<Message, NatsError>> + use<>, NatsError> {
    // The client would send the request after it reconnects. It would then take commands for a batch that nothing reads.
    nats.require_connected()?;
    let batch = consumer.batch().max_messages(limit).expires(expires);
    let batch = batch.messages().await.map_err(NatsError::away_because("cannot pull messages"))?;
    Ok(batch.map_err(|error| NatsError::away_because("a pull ended early")(error)))
}

/// Returns the id of the command that the queue holds for this subject, also while a worker runs it.
pub(crate) async fn queued_id(nats: &Nats, subject: &CommandSubject) -> Result<Option<String>, NatsError> {
    let Some(message) = nats.last_by_api(OAUTH_COMMANDS, &subject.subject()).await? else { return Ok(None) };
    Envelope::parse(&message.payload).map(|envelope| Some(envelope.id)).map_err(NatsError::unreadable)
}

/// Acks a message and waits for the server's confirmation. An error may mean that the consumer is gone.
pub(crate) async fn confirm(nats: &Nats, message: &Message, kind: AckKind) -> Result<(), NatsError> {
    let reply =
        message.reply.as_ref().ok_or_else(|| NatsError::unreadable("a delivered message has no reply subject"))?;
    nats.request(reply, Request::new().payload(kind.into())).await.map(drop)
}

/// Stores a dead letter, once for each message and consumer.
pub(crate) async fn dead_letter(
    nats: &Nats,
    message: &Message,
    command_id: Option<&str>,
    reason: &str,
    time: Timestamp,
) -> Result<(), NatsError> {
    let info = message.info().map_err(NatsError::unreadable)?;
    let letter = DeadLetter {
        subject: message.subject.to_string(),
        command_id: command_id.map(str::to_owned),
        reason: reason.to_owned(),
        delivered: info.delivered,
        time,
    };
    store_letter(nats, &letter, &format!("{}.{}.{}", info.stream, info.consumer, info.stream_sequence)).await
}

async fn store_letter(nats: &Nats, letter: &DeadLetter, message_id: &str) -> Result<(), NatsError> {
    let to = subject::dead_letter(&letter.subject);
    let body = serde_json::to_vec(letter).map_err(NatsError::unreadable)?;
    nats.publish(&to, headers(Some(message_id)), body.into()).await.map(drop)
}

/// A stored dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NumberedLetter {
    /// The letter's sequence in the stream.
    pub number: u64,
    pub letter: DeadLetter,
}

/// Returns all dead letters, oldest first.
pub(crate) async fn dead_letters(nats: &Nats) -> Result<Vec<NumberedLetter>, NatsError> {
    let mut letters = Vec::new();
    let Some(mut reader) = Reader::through(nats, OAUTH_DEAD, DEAD_LETTERS, 0, Parts::All).await? else {
        return Ok(letters);
    };
    while let Some(Stored { sequence: number, message }) = reader.next().await? {
        if let Ok(letter) = serde_json::from_slice(&message.payload) {
            letters.push(NumberedLetter { number, letter });
        }
    }
    Ok(letters)
}

/// Deletes a dead letter.
pub(crate) async fn delete_dead_letter(nats: &Nats, number: u64) -> Result<(), NatsError> {
    nats.delete_message(OAUTH_DEAD, number).await
}
