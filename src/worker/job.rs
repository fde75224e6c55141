//! A command taken off the queue: what it is about, where its answer goes, and the order once opened.

use async_nats::jetstream::Message;
use async_nats::jetstream::message::StreamMessage;
use jiff::Timestamp;
use tracing::{Span, info_span, warn};

use crate::auth::Purpose;
use crate::command::{Envelope, HEADER_REPLY, HEADER_SENDER, HEADER_TRACEPARENT, Order, Work, WorkerReply};
use crate::event::Event;
use crate::jetstream::Nats;
use crate::protocol::events::publish_event;
use crate::protocol::records;
use crate::seal::Keyring;
use crate::store::{StoreError, json};
use crate::subject::{self, CommandSubject};

/// A command under way.
pub(super) struct Job {
    /// What it is about.
    pub(super) subject: CommandSubject,
    /// Its id.
    pub(super) id: String,
    /// Whether a worker sent it: nobody else can seal with the workers' own key.
    pub(super) from_worker: bool,
    /// When it was queued, in Unix nanoseconds, if this is not its first delivery.
    repeats: Option<i128>,
    queued: Timestamp,
    reply: Option<String>,
    traceparent: String,
}

impl Job {
    /// Reads a message. Errors are texts for the dead letter, without anything of the content.
    pub(super) fn parse(keyring: &Keyring, message: &Message) -> Result<(Self, Work), String> {
        let subject = CommandSubject::parse(&message.subject).map_err(|error| error.to_string())?;
        let envelope = Envelope::parse(&message.payload).map_err(|error| error.to_string())?;
        let header = |name| message.headers.as_ref().map_or("", |headers| crate::jetstream::header(headers, name));
        let opened = keyring.open_order(header(HEADER_SENDER), &envelope.sealed).map_err(|error| error.to_string())?;
        let work = Order::parse(&opened, &subject, &envelope.id).map_err(|error| error.to_string())?;
        let from_worker = header(HEADER_SENDER) == keyring.seal_to();
        let reply = header(HEADER_REPLY);
        let reply = subject::parse_reply(reply, from_worker).map(|_| reply.to_owned());
        let traceparent = header(HEADER_TRACEPARENT).chars().take(64).collect();
        let published = message.info().map_or(0, |info| info.published.unix_timestamp_nanos());
        let queued = Timestamp::from_nanosecond(published).map_err(|error| error.to_string())?;
        let info = message.info().ok().filter(|info| info.delivered > 1);
        let repeats = info.map(|info| info.published.unix_timestamp_nanos());
        Ok((Self { subject, id: envelope.id, from_worker, repeats, queued, reply, traceparent }, work))
    }

    /// Whether this is a repetition that comes too late: another's record was written since the command was queued.
    pub(super) fn is_overtaken_by(&self, newest: &StreamMessage) -> bool {
        self.repeats.is_some_and(|queued| newest.time.unix_timestamp_nanos() > queued)
            && !records::is_work_of(newest, &self.id)
    }

    /// What a credential in it has to be for.
    pub(super) fn purpose<'a>(&'a self, content: &'a [u8]) -> Purpose<'a> {
        Purpose::Command { subject: &self.subject, id: &self.id, queued: self.queued, content }
    }

    /// Whether it comes again: another worker had it before, or this one.
    pub(super) fn is_repetition(&self) -> bool {
        self.repeats.is_some()
    }

    pub(super) fn span(&self, delivered: i64) -> Span {
        let CommandSubject { account, integration, name, verb } = &self.subject;
        let name = name.as_ref().map_or("_", subject::ConnectionName::as_str);
        info_span!("command", %verb, %account, %integration, name, id = %self.id, delivered, traceparent = %self.traceparent)
    }

    /// Sends the answer to whoever waits for it, if the reply subject has our form. It can be lost: whoever waits
    /// has a deadline.
    pub(super) async fn answer(&self, nats: &Nats, answer: &WorkerReply) {
        let (Some(reply), Ok(body)) = (&self.reply, json(answer)) else { return };
        if let Err(error) = nats.send(reply.clone(), async_nats::HeaderMap::new(), body).await {
            warn!("answer not sent: {error}");
        }
    }

    /// Leaves an event in the audit log, once for this command.
    pub(super) async fn publish_event(&self, nats: &Nats, event: &Event<'_>) -> Result<(), StoreError> {
        Ok(publish_event(nats, event, Some(&self.id)).await?)
    }
}
