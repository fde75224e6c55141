//! Connection to the bus: requests, publishes that the server has confirmed, and reads from a stream's leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::connect::{ConnectError, Credentials, Probe, log_event, options, servers};
use super::error::NatsError;
use super::renewal::Renewal;
use super::requests::RequestConnection;
use crate::config;
use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{Client, Event, HeaderMap, Message, jetstream};
use bytes::Bytes;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::sync::watch;

/// Longest time for one try of a request. The client's default of 5 s would use up half of a command's time.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Tries of a publish without an answer, all with the same `Nats-Msg-Id`, so that the server stores it once.
const PUBLISH_TRIES: u32 = 3;
/// Pause between tries, so that they do not all fall into the same moment of a leader change.
const PUBLISH_PAUSE: Duration = Duration::from_millis(50);
/// Longest time for a publish with all its tries.
pub(crate) const LONGEST_PUBLISH: Duration =
    REQUEST_TIMEOUT.saturating_add(PUBLISH_PAUSE).saturating_mul(PUBLISH_TRIES);
/// Time after which a publish that found no leader begins no other try.
const LAST_TRY: Duration = LONGEST_PUBLISH.saturating_sub(REQUEST_TIMEOUT).saturating_sub(PUBLISH_PAUSE);
/// Longest time for which an answer waits for a connection. Covers the way to another server of a cluster, and is short beside
/// the ack wait, because a command's answer precedes its ack.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Interval of pings to the server. Two missed answers end the connection, so a dead one is noticed within 15 s; the
/// client's default of a minute would notice it after three minutes.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the check for a new connection. Short, because callers are refused until a worker has looked after its queues.
const RECONNECT_CHECK: Duration = Duration::from_millis(100);
/// Longest time for one try to connect to one server, TLS included, before the next server is tried.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Connection to the bus.
#[derive(Clone)]
pub struct Nats {
    pub(super) main: Arc<RequestConnection>,
    publish_seconds: Histogram,
    refusals: watch::Receiver<String>,
    pub(super) probe: Arc<Probe>,
    pub(super) renewal: Arc<Renewal>,
    /// True after the server has refused a message for lack of space, or has left one unanswered.
    lacks_space: Arc<AtomicBool>,
    /// True once every stream is known to have one replica, and the streams that [`Nats::last`] reads to allow direct reads.
    pub(super) may_read_directly: Arc<AtomicBool>,
}

/// Outcome of a publish that the server has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// The server stored the message at this sequence of its stream.
    Stored { sequence: u64 },
    /// The server had stored a message with the same `Nats-Msg-Id` before this publish began.
    Duplicate,
    /// A retry found a message with the same `Nats-Msg-Id`, from an earlier try of this publish or from another sender.
    DuplicateAfterRetry,
}

/// Decides what happens if the server cannot be reached at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For services: connects in the background, and retries without end.
    Forever,
    /// For commands that a person waits for: fails at once.
    Once,
}

impl Nats {
    /// Connects with the given settings. The server shows `name` in its list of connections.
    ///
    /// # Errors
    /// If a setting or a file is invalid. With [`Patience::Once`] also if the server cannot be reached.
    pub async fn connect(settings: &config::Nats, name: &str, patience: Patience) -> Result<Self, ConnectError> {
        let (refused, refusals) = watch::channel(String::new());
        let (servers, renewal) = (servers(settings)?, Arc::new(Renewal::default()));
        let delay = Arc::clone(&renewal);
        let options = options(settings, &servers)
            .await?
            .name(name)
            .custom_inbox_prefix(settings.inbox_prefix())
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECTION_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(move |tries| delay.delay(tries));
        let probe = Arc::new(Probe::new(options.clone(), servers.clone(), Credentials::of(settings)));
        let logs = Arc::clone(&probe);
        let options = options.event_callback(move |event| {
            if let Event::ServerError(error) = &event {
                refused.send_replace(error.to_string());
            }
            let probe = Arc::clone(&logs);
            async move { log_event(&event, &probe).await }
        });
        let options = if patience == Patience::Forever { options.retry_on_initial_connect() } else { options };
        let refused = |source| ConnectError::of(&settings.url, Credentials::of(settings).as_ref(), source);
        let client = options.connect(&servers[..]).await.map_err(refused)?;
        let main = Arc::new(RequestConnection::new(client));
        let publish_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let (lacks_space, may_read_directly) = (Arc::default(), Arc::default());
        Ok(Self { main, publish_seconds, refusals, probe, renewal, lacks_space, may_read_directly })
    }

    /// Most bytes of a message, as the server says at each connection.
    pub(crate) fn max_payload(&self) -> usize {
        self.client().server_info().max_payload
    }

    /// Waits for the first refusal that reaches this connection outside of an answer, such as of a subscription that this
    /// user may not make. Returns the server's error text.
    pub(crate) async fn refusal(&self) -> String {
        let mut refusals = self.refusals.clone();
        match refusals.wait_for(|refusal| !refusal.is_empty()).await.map(|refusal| refusal.clone()) {
            Ok(refusal) => refusal,
            // The connection is closed, so no refusal can arrive any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Adds this connection's metrics to the registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Time from a publish into a stream to its confirmation";
        registry.register("publish_seconds", help, self.publish_seconds.clone());
        registry.register_collector(Box::new(super::connected::Connected(self.client().clone())));
    }

    /// The client, for subscriptions and plain publishes.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.main.client
    }

    pub(super) fn jetstream(&self) -> &jetstream::Context {
        &self.main.jetstream
    }

    /// Publishes into a stream and waits for the server's answer. If no answer arrives, sends the same message again, and
    /// also while the stream has no leader, within [`LONGEST_PUBLISH`]. The headers must hold a `Nats-Msg-Id` or an expected
    /// last sequence, or the server may store the message twice.
    ///
    /// # Errors
    /// [`NatsError::NotSent`] only if no try can have been stored.
    ///
    /// [`NatsError::WrongLastSequence`] may be the answer to a retry of a message that an earlier try stored. The caller
    /// has to read the subject's newest message to find out.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Published, NatsError> {
        let (mut tries, mut unanswered, began) = (0, 0, Instant::now());
        loop {
            tries += 1;
            let request = Request::new().headers(headers.clone()).payload(payload.clone());
            match self.request(subject, request).await {
                Ok(answer) => {
                    self.publish_seconds.observe(began.elapsed().as_secs_f64());
                    let ack = parse_ack(&answer.payload);
                    if ack.as_ref().is_err_and(NatsError::is_lack_of_space) {
                        self.set_lacks_space(true);
                    }
                    match ack {
                        Ok(Published::Duplicate) if tries > 1 => return Ok(Published::DuplicateAfterRetry),
                        // Not stored yet: what the leader has alone is lost with it.
                        Err(NatsError::InFlight { .. }) if tries >= PUBLISH_TRIES => {
                            return Err(NatsError::InFlight { after_retry: true });
                        }
                        Err(NatsError::InFlight { .. }) if tries > 1 => tokio::time::sleep(PUBLISH_PAUSE).await,
                        outcome => return outcome,
                    }
                }
                Err(error) => {
                    unanswered += u32::from(!matches!(error, NatsError::NotSent(_)));
                    let is_late = unanswered < tries && began.elapsed() > LAST_TRY;
                    if unanswered == PUBLISH_TRIES || is_late || !self.is_connected() {
                        if self.is_connected() && unanswered == tries && matches!(error, NatsError::Away(_)) {
                            self.set_lacks_space(true);
                        }
                        let NatsError::NotSent(cause) = error else { return Err(error) };
                        return Err(if unanswered > 0 { NatsError::Away(cause) } else { NatsError::NotSent(cause) });
                    }
                    tokio::time::sleep(PUBLISH_PAUSE).await;
                }
            }
        }
    }

    /// Returns true after the server has refused a message for lack of space, or has answered no try of one although it was
    /// connected, until [`Nats::set_lacks_space`].
    pub(crate) fn lacks_space(&self) -> bool {
        self.lacks_space.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lacks_space(&self, lacks_space: bool) {
        self.lacks_space.store(lacks_space, Ordering::Relaxed);
    }

    /// Sends a request and returns the answer.
    pub(crate) async fn request(&self, subject: &str, request: Request) -> Result<Message, NatsError> {
        let connection = self.connected()?;
        connection.client.send_request(subject.to_owned(), request).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                NatsError::not_sent_because("no service listens on the subject of a request")(error)
            }
            RequestErrorKind::MaxPayloadExceeded => {
                NatsError::Refused { code: 10_054, description: "message is larger than the server takes".to_owned() }
            }
            RequestErrorKind::TimedOut | RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                NatsError::away_because("a request may have been carried out")(error)
            }
        })
    }

    /// Publishes the answer to a call or command. Waits for a connection that was lost, because only this process has the
    /// answer.
    pub(crate) async fn send_answer(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), NatsError> {
        let end = Instant::now() + ANSWER_WAIT;
        while !self.is_connected() && Instant::now() < end {
            tokio::time::sleep(PUBLISH_PAUSE).await;
        }
        self.send(subject, headers, payload).await
    }

    /// Publishes without waiting for an answer.
    pub(crate) async fn send(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<(), NatsError> {
        let sent = self.connected()?.client.publish_with_headers(subject, headers, payload).await;
        sent.map_err(NatsError::away_because("cannot publish a message"))
    }

    /// The client library's context, for messages that it did not receive itself.
    pub(super) fn context(&self) -> jetstream::Context {
        self.main.jetstream.clone()
    }

    /// Returns false once the client has noticed that the connection is lost, which may take three [`PING_INTERVAL`]s.
    #[must_use]
    pub(crate) fn is_connected(&self) -> bool {
        self.current().client.connection_state() == State::Connected
    }

    /// Returns a look at the connection: true once after each reconnection. A request that was sent before it, and its answer, may
    /// be lost.
    pub(crate) fn reconnections(&self) -> impl FnMut() -> bool + Send + Sync + 'static {
        let main = Arc::clone(&self.main);
        let mut known = self.connection_count();
        move || {
            let current = connection_count(&main.client);
            let is_new = current != known && main.client.connection_state() == State::Connected;
            if is_new {
                known = current;
            }
            is_new
        }
    }

    /// Returns the number of connections made so far. A change means that the client has reconnected.
    #[must_use]
    pub(crate) fn connection_count(&self) -> u64 {
        connection_count(self.client())
    }

    /// Waits for a connection after the one with that number.
    pub(crate) async fn new_connection(&self, known: u64) {
        while self.connection_count() == known || !self.is_connected() {
            tokio::time::sleep(RECONNECT_CHECK).await;
        }
    }

    /// Fails with [`NatsError::NotSent`] while disconnected. The client would otherwise hold messages back and send them
    /// after it reconnects, when their callers no longer wait.
    pub(crate) fn require_connected(&self) -> Result<(), NatsError> {
        if self.is_connected() { Ok(()) } else { Err(NatsError::not_sent("not connected")) }
    }
}

fn connection_count(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// Parses the server's answer to a single try.
fn parse_ack(payload: &[u8]) -> Result<Published, NatsError> {
    #[derive(Deserialize)]
    struct Ack {
        error: Option<ApiError>,
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
    }
    #[derive(Deserialize)]
    struct ApiError {
        #[serde(default)]
        err_code: u64,
        #[serde(default)]
        description: String,
    }
    let ack: Ack = serde_json::from_slice(payload).map_err(NatsError::unreadable)?;
    match ack.error {
        None if ack.duplicate => Ok(Published::Duplicate),
        None => Ok(Published::Stored { sequence: ack.seq }),
        Some(error) => Err(NatsError::refused(error.err_code, error.description)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_parsed_and_errors_sorted_by_code() {
        #[track_caller]
        fn check(answer: &str, expected: &str) {
            let text = match parse_ack(answer.as_bytes()) {
                Ok(outcome) => format!("{outcome:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected);
        }
        check(r#"{"stream":"OAUTH","seq":7}"#, "Stored { sequence: 7 }");
        check(r#"{"stream":"OAUTH","seq":7,"duplicate":true}"#, "Duplicate");
        check(
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"OAUTH","seq":0}"#,
            "another writer was first",
        );
        check(
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"}}"#,
            "subject is occupied",
        );
        check(
            r#"{"error":{"code":503,"err_code":10077,"description":"no space left on device"}}"#,
            "refused by the server: no space left on device (10077)",
        );
        check(
            r#"{"error":{"code":409,"err_code":10158,"description":"x"}}"#,
            "the same message is being stored at this moment",
        );
        check("<html>", "unreadable answer from the server: expected value at line 1 column 1");
    }
}
