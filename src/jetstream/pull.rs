//! Pulls messages that others may have published, on a connection that reads any headers.
//!
//! Each consumer has one subscription for all its pulls on a connection. The server delivers a message under the subject on which it was
//! published, and reports the end of a pull under the pull's own subject. So a message does not show which pull it answers: one of
//! an earlier pull may have waited in the network, or in the socket of a process that was stopped, for longer than the ack wait.
//! After a pull whose end the server has not reported, nothing counts until the server has answered a question, because its
//! answer follows everything that it sent before.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::header::parse_headers;
use super::receiver::{Connected, Link, Received, Receiver, Subscription};
use super::{ConnectError, Nats, NatsError};
use crate::{config, subject, system};

/// Longest wait for the server's report that a pull has expired. Without the report the server has forgotten the pull.
pub(crate) const REPORT_WAIT: Duration = Duration::from_secs(1);

/// The connection for the pulls of some consumers.
pub(crate) struct Pulling {
    receiver: Receiver,
    /// By number of the subscription.
    senders: Vec<UnboundedSender<Received>>,
}

/// The pulls of one consumer, one at a time. They fail unless [`Pulling::run`] runs.
pub(crate) struct Pulls {
    nats: Nats,
    /// Subject of the requests.
    next: String,
    /// Subject of the question for the consumer's state.
    info: String,
    /// Prefix of the connections' inboxes.
    prefix: String,
    /// Number of the newest pull.
    number: u64,
    link: Link,
    messages: UnboundedReceiver<Received>,
    /// Everything that was sent for earlier pulls has arrived.
    is_settled: bool,
}

/// A message, and the id of the server that delivered it.
pub(crate) struct Pulled {
    pub(crate) message: Message,
    pub(crate) server_id: Arc<str>,
}

/// A pull in progress.
struct Pull<'a> {
    of: &'a mut Pulls,
    connection: Connected,
    /// Messages that may still arrive.
    left: usize,
    end: Instant,
}

impl Pulling {
    /// # Errors
    /// If an address in the settings cannot be read, or needs TLS.
    pub(crate) fn new(
        nats: &Nats,
        settings: &config::Nats,
        stream: &str,
        consumers: &[&str],
    ) -> Result<(Self, Vec<Pulls>), ConnectError> {
        let prefix = |_: &&str| format!("{}.{}", settings.inbox_prefix(), system::random_id());
        let prefixes: Vec<String> = consumers.iter().map(prefix).collect();
        let subscription = |prefix: &String| Subscription { subject: prefix.clone(), queue: None };
        let subscriptions = prefixes.iter().map(subscription).collect();
        let name = format!("tokenbus worker: {stream}");
        let (receiver, link) = Receiver::for_requests(nats, settings, &name, subscriptions)?;
        let pulls = consumers.iter().zip(prefixes).map(|(consumer, prefix)| {
            // Bounded by the limits of the pulls.
            let (sender, messages) = unbounded_channel();
            let (next, info) = (subject::consumer_next(stream, consumer), subject::consumer_info(stream, consumer));
            let (nats, link) = (nats.clone(), link.clone());
            (sender, Pulls { nats, next, info, prefix, number: 0, link, messages, is_settled: true })
        });
        let (senders, pulls) = pulls.unzip();
        Ok((Self { receiver, senders }, pulls))
    }

    /// Receives until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { receiver, senders } = self;
        let hand_over = |received: Received| {
            if let Some(sender) = senders.get(received.subscription) {
                // A consumer that takes no more messages leaves them to the next delivery.
                let _ = sender.send(received);
            }
        };
        receiver.run(hand_over, stop).await;
    }
}

impl Pulls {
    /// Requests up to `limit` messages. The stream ends when they have arrived or `expires` has passed. A message whose
    /// headers no client library would write has none.
    pub(crate) async fn pull(
        &mut self,
        limit: usize,
        expires: Duration,
    ) -> Result<impl Stream<Item = Result<Pulled, NatsError>>, NatsError> {
        let Some(connection) = self.link.connected().await else {
            return Err(NatsError::not_sent("not connected for commands"));
        };
        if !self.is_settled {
            self.settle(&connection).await?;
        }
        self.is_settled = false;
        self.number += 1;
        let question = json!({ "batch": limit, "expires": expires.as_nanos() }).to_string();
        let (next, answer) = (&self.next, self.answer_subject(&connection));
        self.link.send(format!("PUB {next} {answer} {}\r\n{question}\r\n", question.len()));
        let pull = Pull { of: self, connection, left: limit, end: Instant::now() + expires + REPORT_WAIT };
        Ok(unfold(pull, async |mut pull| Some((pull.next().await?, pull))))
    }

    /// Drops late messages of earlier pulls: the time since which they have waited is unknown, so they are left to their next
    /// delivery.
    async fn settle(&mut self, connection: &Connected) -> Result<(), NatsError> {
        self.number += 1;
        let (info, answer) = (&self.info, self.answer_subject(connection));
        self.link.send(format!("PUB {info} {answer} 0\r\n\r\n"));
        let end = Instant::now() + REPORT_WAIT;
        loop {
            let received = tokio::select! {
                received = timeout_at(end, self.messages.recv()) => received.ok().flatten(),
                _has_another = self.link.ended(connection) => None,
            };
            match received {
                Some(received) if received.reply.is_none() && received.subject == answer => return Ok(()),
                Some(_) => {}
                None => return Err(NatsError::away("no answer about a consumer")),
            }
        }
    }

    /// The subject under which the server answers the newest question, or reports the end of the newest pull.
    fn answer_subject(&self, connection: &Connected) -> String {
        format!("{}.{}.{}", self.prefix, connection.inbox, self.number)
    }
}

impl Pull<'_> {
    async fn next(&mut self) -> Option<Result<Pulled, NatsError>> {
        while self.left > 0 {
            let received = tokio::select! {
                // What has arrived is handed over also when the connection is lost.
                biased;
                received = timeout_at(self.end, self.of.messages.recv()) => received.ok()??,
                has_another = self.of.link.ended(&self.connection) => {
                    self.left = 0;
                    return (!has_another).then(|| Err(NatsError::away("a pull lost its connection")));
                }
            };
            if received.reply.is_some() {
                self.left -= 1;
                self.of.is_settled = self.left == 0;
                let message = message(&self.of.nats, received);
                return Some(Ok(Pulled { message, server_id: Arc::clone(&self.connection.server_id) }));
            }
            // Reports have no reply subject, and no payload.
            if received.subject == self.of.answer_subject(&self.connection) {
                self.left = 0;
                self.of.is_settled = true;
                let is_over = ends_normally(&received.headers);
                return (!is_over).then(|| Err(NatsError::away("the server ended a pull early")));
            }
        }
        None
    }
}

fn message(nats: &Nats, received: Received) -> Message {
    let Received { subscription: _, subject, reply, headers, payload } = received;
    let length = headers.len() + payload.len();
    let (subject, reply, headers) = (subject.into(), reply.map(Into::into), parse_headers(&headers));
    let message = async_nats::Message { subject, reply, payload, headers, status: None, description: None, length };
    Message { message, context: nats.context() }
}

/// Returns true if the server reports that no message is there (404) or that the pull has expired (408).
fn ends_normally(report: &[u8]) -> bool {
    [b"NATS/1.0 404", b"NATS/1.0 408"].iter().any(|start| report.starts_with(*start))
}
