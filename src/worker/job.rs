//! A command from the queue, opened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use jiff::Timestamp;
use tracing::{Span, info_span, warn};

use crate::auth::Purpose;
use crate::command::{Envelope, HEADER_REPLY, HEADER_SENDER, HEADER_TRACEPARENT};
use crate::command::{Malformed, Order, Origin, Stored, Work, WorkerReply};
use crate::event::{Event, EventDetails, EventKind, RecordEvent};
use crate::jetstream::Nats;
use crate::jetstream::pull::Pulled;
use crate::protocol::records;
use crate::protocol::replies::seal_answer;
use crate::seal::{SealError, SharedKey};
use crate::store::StoreError;
use crate::subject::{self, CommandSubject, NameError};
use crate::telemetry::traces;
use crate::worker::context::{CallPermit, Context, RunningShare};
use crate::worker::lease::Lease;
use crate::worker::provider_calls::{ProviderCalls, RequestTime};

/// Pause before another try while NATS is away.
const BUS_PAUSE: Duration = Duration::from_millis(250);

pub(super) struct Job {
    pub(super) subject: CommandSubject,
    pub(super) id: String,
    /// True if a worker sealed the command: only workers have the key for that.
    pub(super) from_worker: bool,
    /// Origin of the request that led to the command.
    pub(super) origin: Origin,
    /// The part of it that events show.
    event_origin: Origin,
    /// Id of the server that delivered the command.
    pub(super) server_id: Arc<str>,
    /// Number of the delivery: 1 for the first.
    pub(super) delivered: i64,
    /// True if a server that was restarted since may have delivered the command before and forgotten it.
    pub(super) is_before_restart: bool,
    pub(super) lease: Arc<Lease>,
    /// Set once it has a permit: only a login, refresh or deletion that a caller waits for gets one.
    pub(super) permit: OnceLock<CallPermit>,
    pub(super) share: RunningShare,
    request_time: RequestTime,
    /// The message id of the command on the queue.
    pub(super) message_id: String,
    /// The message's sequence in the queue. Deliveries of one message share it, a copy has another one.
    pub(super) queue_sequence: u64,
    pub(super) queued: Timestamp,
    /// Time at which the caller's wait began.
    began: Timestamp,
    /// Subject of the answer, and the key that seals it.
    reply: Option<(String, SharedKey)>,
    is_answered: AtomicBool,
    traceparent: String,
}

/// A message that cannot be read as a command. The error text goes into the dead letter and quotes none of the content.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreadableCommand {
    #[error(transparent)]
    Subject(#[from] NameError),
    #[error("its headers cannot be read")]
    Headers,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Time(#[from] jiff::Error),
}

impl Job {
    /// Opens a message, which this delivery holds by `lease`.
    pub(super) fn parse(context: &Context, pulled: &Pulled, lease: Lease) -> Result<(Self, Work), UnreadableCommand> {
        let Pulled { message, server_id } = pulled;
        let (keyring, shows_address) = (&context.store.keyring, context.config.events.client_address);
        let subject = CommandSubject::parse(&message.subject)?;
        let headers = message.headers.as_ref().ok_or(UnreadableCommand::Headers)?;
        let envelope = Envelope::parse(&message.payload)?;
        let header = |name| crate::jetstream::header(headers, name);
        let opened = keyring.open_order(header(HEADER_SENDER), &envelope.sealed)?;
        let from_worker = header(HEADER_SENDER) == keyring.seal_to();
        let traceparent = header(HEADER_TRACEPARENT).chars().take(64).collect();
        let (published, queue_sequence) =
            message.info().map_or((0, 0), |info| (info.published.unix_timestamp_nanos(), info.stream_sequence));
        let queued = Timestamp::from_nanosecond(published)?;
        let message_id = header(NATS_MESSAGE_ID.as_ref());
        let stored = Stored { subject: &subject, message_id, time: queued };
        let Order { time, answer_key, origin, work, .. } = Order::parse(&opened, &envelope.id, stored)?;
        let answer_key = SharedKey::parse(&answer_key)?;
        let event_origin = origin.for_events(shows_address);
        let reply = header(HEADER_REPLY);
        let reply = subject::parse_reply(reply, from_worker).map(|_| (reply.to_owned(), answer_key));
        let message_id = message_id.to_owned();
        let is_before_restart = context.restarts.is_before_restart(queued, context.clock.now());
        let (delivered, lease) = (message.info().map_or(1, |info| info.delivered), Arc::new(lease));
        Ok((
            Self {
                subject,
                id: envelope.id,
                from_worker,
                origin,
                event_origin,
                server_id: Arc::clone(server_id),
                delivered,
                is_before_restart,
                lease,
                permit: OnceLock::new(),
                share: RunningShare::default(),
                request_time: RequestTime::default(),
                message_id,
                queue_sequence,
                queued,
                began: Timestamp::from_millisecond(time)?.min(queued),
                reply,
                is_answered: AtomicBool::new(false),
                traceparent,
            },
            work,
        ))
    }

    /// Returns true if this is a redelivery that comes too late: another command's record was written after this
    /// command was queued.
    pub(super) fn is_superseded_by(&self, newest: &StreamMessage) -> bool {
        self.is_redelivery()
            && newest.time.unix_timestamp_nanos() > self.queued.as_nanosecond()
            && !records::was_written_by(newest, &self.id)
    }

    /// Returns the means to send this command's requests to its provider.
    pub(super) fn provider_calls<'a>(&'a self, context: &'a Context) -> ProviderCalls<'a> {
        ProviderCalls::new(context, &self.lease, &self.request_time, self.permit.get())
    }

    /// Repeats what fails while NATS is away, as long as this delivery holds the command. For steps before a refresh token is
    /// sent: after an error another worker may get the command, cannot know that nothing was sent, and holds the refresh.
    pub(super) async fn persist<T, F>(&self, act: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match act().await {
                Err(StoreError::Nats(error)) if error.is_unavailable() && self.lease.is_held() => {
                    tokio::time::sleep(BUS_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Returns true if a caller waits for the answer.
    pub(super) fn has_caller(&self) -> bool {
        self.reply.is_some()
    }

    /// Returns the time for which the caller has waited.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.duration_since(self.began).try_into().unwrap_or_default()
    }

    /// Returns true if this worker or another one has had the command before, or may have had.
    pub(super) fn is_redelivery(&self) -> bool {
        self.delivered > 1 || self.is_before_restart
    }

    /// Returns the purpose that a credential in this command must have been sent for.
    pub(super) fn purpose<'a>(&'a self, content: &'a [u8]) -> Purpose<'a> {
        Purpose::Command { subject: &self.subject, id: &self.id, queued: self.queued, content }
    }

    pub(super) fn span(&self) -> Span {
        let delivered = self.delivered;
        let CommandSubject { account, integration, name, verb } = &self.subject;
        let name = name.as_ref().map_or("_", subject::ConnectionName::as_str);
        info_span!("command", %verb, %account, %integration, name, id = %self.id, delivered, traceparent = %self.traceparent)
    }

    /// The command's part of its caller's trace.
    pub(super) fn trace(&self) -> Span {
        let span = traces::process(&self.subject.subject(), self.delivered);
        traces::continued(&span, Some(&self.traceparent));
        span
    }

    /// Sends the answer, if the command asks for one at a reply subject of our form and this delivery has sent none. The
    /// answer may get lost; the caller then stops waiting at its deadline.
    pub(super) async fn answer(&self, nats: &Nats, answer: &WorkerReply) {
        let Some((reply, key)) = &self.reply else { return };
        if self.is_answered.swap(true, Ordering::Relaxed) {
            return;
        }
        let sent = match seal_answer(key, (&self.subject.subject(), &self.id), answer) {
            Ok(sealed) => nats.send_answer(reply.clone(), HeaderMap::new(), sealed).await,
            Err(error) => return warn!("answer not sealed: {error}"),
        };
        if let Err(error) = sent {
            warn!("answer not sent: {error}");
        }
    }

    /// Returns the event of a record that this command writes.
    pub(super) fn record_event(&self, details: EventDetails<'_>) -> RecordEvent {
        let EventDetails { kind, actor, reason, provider } = details;
        let (account, origin) = (self.subject.account.clone(), self.event_origin.clone());
        let (actor, reason, provider) = (actor.to_owned(), reason.map(str::to_owned), provider.cloned());
        RecordEvent { kind, account, actor, reason, provider, origin }
    }

    /// Says which parts of an answer are not kept. Never fails: the tokens of the answer come first.
    pub(super) async fn report_left_out(&self, context: &Context, actor: &str, parts: &[&str]) {
        if parts.is_empty() {
            return;
        }
        let parts = parts.join(", ");
        warn!(parts, "parts of the provider's answer are too large to keep");
        let mut event = Event::about(&self.subject, EventKind::PartsLeftOut, actor, context.clock.now());
        event.reason = Some(&parts);
        if let Err(error) = self.publish_event(context, &event).await {
            warn!("cannot publish the event {}: {error}", event.kind.as_str());
        }
    }

    /// Publishes an event, once of its kind for this command. The server recognizes a repetition for two minutes only, so a
    /// delivery that is lost publishes none.
    pub(super) async fn publish_event(&self, context: &Context, event: &Event<'_>) -> Result<(), StoreError> {
        self.lease.check()?;
        let event = event.clone().from(&self.event_origin);
        Ok(context.publish_event(&self.subject.account, &event, Some(&self.id)).await?)
    }
}
