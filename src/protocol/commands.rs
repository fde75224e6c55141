//! The work queue: pulled by verb, acked with confirmation, buried with a reason.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::jetstream::consumer::{PullConsumer, pull, push};
use async_nats::jetstream::{AckKind, Message};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::EventKind;
use crate::jetstream::{Nats, NatsError, headers};
use crate::protocol::topology;
use crate::subject::{self, OAUTH_COMMANDS, OAUTH_DEAD, OAUTH_EVENTS, Verb};

/// Why a command was given up. Holds nothing of its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    /// The subject it was sent to.
    pub subject: String,
    /// Its id, when it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// Why.
    pub reason: String,
    /// How often it was delivered.
    pub delivered: i64,
    /// When it was given up.
    pub time: Timestamp,
}

/// Makes a verb's consumer, or leaves it as it is.
///
/// # Errors
/// [`NatsError`] when the server refuses.
pub(crate) async fn declare_consumer(nats: &Nats, verb: Verb) -> Result<(), NatsError> {
    let created = nats.jetstream.create_consumer_on_stream(topology::consumer(verb), OAUTH_COMMANDS).await;
    created.map(drop).map_err(|error| NatsError::Refused { code: 0, description: format!("consumer {verb}: {error}") })
}

/// Makes the consumer of the events that go to the webhook, or finds it; its choice of events follows.
///
/// # Errors
/// [`NatsError`] when the server refuses.
pub(crate) async fn webhook_consumer(nats: &Nats, events: &[EventKind]) -> Result<PullConsumer, NatsError> {
    nats.connected()?;
    let made = nats.jetstream.create_consumer_on_stream(topology::webhook_consumer(events), OAUTH_EVENTS).await;
    made.map_err(|error| NatsError::Refused { code: 0, description: format!("consumer webhook: {error}") })
}

/// Finds a verb's consumer.
///
/// # Errors
/// [`NatsError`] when there is none or the server gives no answer.
pub(crate) async fn consumer(nats: &Nats, verb: Verb) -> Result<PullConsumer, NatsError> {
    nats.connected()?;
    let found = nats.jetstream.get_consumer_from_stream(verb.as_str(), OAUTH_COMMANDS).await;
    found.map_err(|_| NatsError::Away("no answer about a consumer"))
}

/// Asks for up to `most` commands; the batch ends when they came or the time is over.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn pull(
    nats: &Nats,
    consumer: &PullConsumer,
    most: usize,
    expires: Duration,
) -> Result<pull::Batch, NatsError> {
    // Without a server it would be kept for later, and then take commands for somebody who has long stopped listening.
    nats.connected()?;
    // No heartbeats: in async-nats 0.51 a batch that has seen one is not woken by the messages behind it, and they wait
    // for its end. Without them a pull that a restarted server has forgotten is waited for instead, so pulls are short.
    let batch = consumer.batch().max_messages(most).expires(expires);
    batch.messages().await.map_err(|_| NatsError::Away("no answer to a pull"))
}

/// Acks and waits for the server's word that it was heard; no word means that the consumer is gone.
///
/// # Errors
/// [`NatsError`] when there is no confirmation.
pub(crate) async fn confirm(nats: &Nats, message: &Message, kind: AckKind) -> Result<(), NatsError> {
    let reply = message.reply.as_ref().ok_or(NatsError::Unreadable)?;
    nats.request(reply, Request::new().payload(kind.into())).await.map(drop)
}

/// Stores a dead letter, once for each message.
///
/// # Errors
/// [`NatsError`] when it was not stored.
pub(crate) async fn dead_letter(
    nats: &Nats,
    message: &Message,
    command_id: Option<&str>,
    reason: &str,
    time: Timestamp,
) -> Result<(), NatsError> {
    let info = message.info().map_err(|_| NatsError::Unreadable)?;
    let letter = DeadLetter {
        subject: message.subject.to_string(),
        command_id: command_id.map(str::to_owned),
        reason: reason.to_owned(),
        delivered: info.delivered,
        time,
    };
    store_letter(nats, &letter, &format!("{}.{}", info.stream, info.stream_sequence)).await
}

/// Stores a dead letter under that message id.
pub(super) async fn store_letter(nats: &Nats, letter: &DeadLetter, message_id: &str) -> Result<(), NatsError> {
    let to = subject::dead(&letter.subject);
    let body = serde_json::to_vec(letter).map_err(|_| NatsError::Unreadable)?;
    nats.publish(&to, headers(Some(message_id)), body.into()).await.map(drop)
}

/// A dead letter with its place.
#[derive(Debug, Clone)]
pub(crate) struct NumberedLetter {
    /// Its sequence in the stream.
    pub number: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// All dead letters, oldest first.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn dead_letters(nats: &Nats) -> Result<Vec<NumberedLetter>, NatsError> {
    let config = push::OrderedConfig { deliver_subject: nats.client.new_inbox(), ..push::OrderedConfig::default() };
    let messages = nats.collect(OAUTH_DEAD, config).await?;
    let read = |message: Message| {
        let number = message.info().ok()?.stream_sequence;
        serde_json::from_slice(&message.payload).ok().map(|letter| NumberedLetter { number, letter })
    };
    Ok(messages.into_iter().filter_map(read).collect())
}

/// Forgets a dead letter.
///
/// # Errors
/// [`NatsError`] when there is none of that number or the server gives no answer.
pub(crate) async fn forget(nats: &Nats, number: u64) -> Result<(), NatsError> {
    let stream = nats.jetstream.get_stream_no_info(OAUTH_DEAD).await.map_err(|_| NatsError::Unreadable)?;
    let deleted = stream.delete_message(number).await;
    deleted.map(drop).map_err(|error| NatsError::Refused { code: 0, description: error.to_string() })
}
