//! The bus: connects, publishes with a confirmed answer, and reads what the leader has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::{ConnectError, Probe, log_event, options, reconnect_delay};
use crate::{config, system};
use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::jetstream::consumer::push;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{Client, Event, HeaderMap, Message, jetstream};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::sync::watch;

/// How long one try of a request may take. The client's own default of 5 s would use up half of a command's time.
pub(crate) const TRY: Duration = Duration::from_millis(1_500);
/// Tries of a publish whose outcome is not known, all with one `Nats-Msg-Id`.
const TRIES: u32 = 3;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a publish takes at the most.
pub(crate) const LONGEST_PUBLISH: Duration = TRY.saturating_add(PAUSE).saturating_mul(TRIES);
/// How often the server is asked whether it is there; two silences end the connection.
const PING: Duration = Duration::from_secs(5);

/// A connection to the bus.
#[derive(Clone)]
pub struct Nats {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    publish_seconds: Histogram,
    refusals: watch::Receiver<String>,
}

/// Why a request to the server came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// No answer in time: what was asked may have happened.
    #[error("NATS is away: {0}")]
    Away(&'static str),
    /// Not connected, or nobody there to answer: what was asked has not happened.
    #[error("NATS is away: {0}")]
    NotSent(&'static str),
    /// The expected last sequence is not the last one (10071, 10164).
    #[error("another writer was first")]
    WrongLastSequence,
    /// The subject's one place is taken (10077).
    #[error("subject is occupied")]
    Occupied,
    /// The same message id is being stored at this moment (10158).
    #[error("the same message is being stored at this moment")]
    InFlight,
    /// Any other refusal of the server.
    #[error("refused by the server: {description} ({code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// Its description.
        description: String,
    },
    /// The server's answer cannot be read.
    #[error("unreadable answer from the server")]
    Unreadable,
}

/// The server's answer to a stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubAck {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Whether it had been stored before under the same message id.
    pub duplicate: bool,
    /// Whether it was sent more than once: a duplicate may then be this publish itself.
    pub repeated: bool,
}

/// Whether to go on trying when the server is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A service: connect in the background, try for ever.
    Forever,
    /// A command for people: say so at once.
    Once,
}

impl Nats {
    /// Connects with the given settings; `name` is shown in the server's list of connections.
    ///
    /// # Errors
    /// [`ConnectError`]; with [`Patience::Forever`] only for settings and files.
    pub async fn connect(settings: &config::Nats, name: &str, patience: Patience) -> Result<Self, ConnectError> {
        let (refused, refusals) = watch::channel(String::new());
        let options = options(settings)
            .await?
            .name(name)
            .custom_inbox_prefix(settings.inbox_prefix())
            .ping_interval(PING)
            .connection_timeout(Duration::from_secs(5))
            .request_timeout(Some(TRY))
            .reconnect_delay_callback(reconnect_delay);
        let servers: Vec<String> = settings.url.split(',').map(|server| server.trim().to_owned()).collect();
        if servers.iter().any(|server| server.contains('@')) {
            return Err(ConnectError::Setting(
                "nats.url must not hold a user or password; set `nats.user` and `nats.password`",
            ));
        }
        let probe = Arc::new(Probe::new(options.clone(), servers.clone()));
        let options = options.event_callback(move |event| {
            if let Event::ServerError(error) = &event {
                refused.send_replace(error.to_string());
            }
            let probe = Arc::clone(&probe);
            async move { log_event(&event, &probe).await }
        });
        let options = if patience == Patience::Forever { options.retry_on_initial_connect() } else { options };
        let client = options.connect(&servers[..]).await.map_err(|source| ConnectError::of(&settings.url, source))?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(TRY);
        let publish_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        Ok(Self { client, jetstream, publish_seconds, refusals })
    }

    /// Waits until the server refuses something that has no answer of its own: a subject that this user may not use.
    pub async fn refusal(&self) -> String {
        let mut refusals = self.refusals.clone();
        match refusals.wait_for(|refusal| !refusal.is_empty()).await.map(|refusal| refusal.clone()) {
            Ok(refusal) => refusal,
            Err(_) => std::future::pending().await,
        }
    }

    /// Shows what is measured.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Time from a publish into a stream to its confirmation";
        registry.register("publish_seconds", help, self.publish_seconds.clone());
    }

    /// The client, for subscriptions and plain publishes.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Publishes into a stream and waits for the server's answer. A try without an answer is repeated under the same
    /// `Nats-Msg-Id`, which the headers must hold for that to be safe.
    ///
    /// # Errors
    /// [`NatsError`]. After [`NatsError::WrongLastSequence`] an earlier try may have been stored: read back.
    pub async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<PubAck, NatsError> {
        let (mut tries, began) = (0, Instant::now());
        loop {
            tries += 1;
            let request = Request::new().headers(headers.clone()).payload(payload.clone());
            match self.request(subject, request).await {
                Ok(message) => match self.acked(&message, began) {
                    Err(NatsError::InFlight) if tries > 1 => {
                        return Ok(PubAck { sequence: 0, duplicate: true, repeated: true });
                    }
                    ack => return ack.map(|ack| PubAck { repeated: tries > 1, ..ack }),
                },
                Err(away) if tries == TRIES || !self.is_connected() => return Err(away),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn acked(&self, message: &Message, began: Instant) -> Result<PubAck, NatsError> {
        self.publish_seconds.observe(began.elapsed().as_secs_f64());
        parse_ack(&message.payload)
    }

    /// The newest message of a subject, or of the subjects that match, read from the stream's leader: what was
    /// written is seen.
    ///
    /// # Errors
    /// [`NatsError`] when there is no answer.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<StreamMessage>, NatsError> {
        self.connected()?;
        let stream = self.jetstream.get_stream_no_info(stream).await.map_err(|_| NatsError::Unreadable)?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error) => Err(refused(error.error_code().0, error.to_string())),
                LastRawMessageErrorKind::InvalidSubject => Err(NatsError::Unreadable),
                LastRawMessageErrorKind::Other => Err(NatsError::Away("no answer to a read")),
            },
        }
    }

    /// All messages that a consumer finds at this moment. Those that are replaced or expire meanwhile may be missing.
    ///
    /// # Errors
    /// [`NatsError`] when the server gives no answer.
    pub(crate) async fn collect(
        &self,
        stream: &str,
        config: push::OrderedConfig,
    ) -> Result<Vec<jetstream::Message>, NatsError> {
        self.connected()?;
        // Without a name the stream's is the last token of the request, and permissions cannot be told apart by it.
        let config = push::OrderedConfig { name: Some(system::random_id()), ..config };
        let away = || NatsError::Away("no answer to a list");
        let stream = self.jetstream.get_stream_no_info(stream).await.map_err(|_| away())?;
        let consumer = stream.create_consumer(config).await.map_err(|_| away())?;
        let mut found = Vec::new();
        if consumer.cached_info().num_pending == 0 {
            return Ok(found);
        }
        let mut messages = consumer.messages().await.map_err(|_| away())?;
        // The last one may have expired or been replaced by nothing: then there is nothing to wait for.
        while let Ok(next) = tokio::time::timeout(TRY, messages.try_next()).await {
            let Some(message) = next.map_err(|_| away())? else { break };
            let is_last = message.info().is_ok_and(|info| info.pending == 0);
            found.push(message);
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`NatsError::Away`] when nobody answers in time.
    pub async fn request(&self, subject: &str, request: Request) -> Result<Message, NatsError> {
        self.connected()?;
        self.client.send_request(subject.to_owned(), request).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => NatsError::NotSent("nobody answers on that subject"),
            RequestErrorKind::TimedOut => NatsError::Away("no answer in time"),
            RequestErrorKind::MaxPayloadExceeded => {
                refused(10_054, "message is larger than the server takes".to_owned())
            }
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => NatsError::Away("request failed"),
        })
    }

    /// Asks, and has the answers go to an inbox that somebody listens at.
    pub(crate) async fn ask_at(&self, subject: String, inbox: String, request: Request) -> Result<(), NatsError> {
        self.connected()?;
        let sent = self.client.publish_with_reply(subject, inbox, request.payload.unwrap_or_default()).await;
        sent.map_err(|_| NatsError::Away("publish failed"))
    }

    /// Sends without waiting for an answer, after all that was sent before.
    ///
    /// # Errors
    /// [`NatsError::Away`] when not connected.
    pub async fn send(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<(), NatsError> {
        self.connected()?;
        let sent = self.client.publish_with_headers(subject, headers, payload).await;
        sent.map_err(|_| NatsError::Away("publish failed"))
    }

    /// Whether the server is there at this moment, as far as the client knows.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How often a connection was made: another number means another connection.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn connected(&self) -> Result<(), NatsError> {
        if self.is_connected() { Ok(()) } else { Err(NatsError::NotSent("not connected")) }
    }
}

/// Headers with a message id; a fresh one when none is given.
#[must_use]
pub(crate) fn headers(message_id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match message_id {
        Some(id) => headers.insert(async_nats::header::NATS_MESSAGE_ID, id),
        None => headers.insert(async_nats::header::NATS_MESSAGE_ID, system::random_id()),
    }
    headers
}

/// Headers with a fresh message id, and these.
#[must_use]
pub(crate) fn headers_with(more: &HeaderMap) -> HeaderMap {
    let mut headers = headers(None);
    for (name, values) in more.iter() {
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// A header's text, empty when there is none.
#[must_use]
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.as_str())
}

fn parse_ack(payload: &[u8]) -> Result<PubAck, NatsError> {
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
    let ack: Ack = serde_json::from_slice(payload).map_err(|_| NatsError::Unreadable)?;
    match ack.error {
        None => Ok(PubAck { sequence: ack.seq, duplicate: ack.duplicate, repeated: false }),
        Some(error) => Err(refused(error.err_code, error.description)),
    }
}

fn refused(code: u64, description: String) -> NatsError {
    match code {
        10_071 | 10_164 => NatsError::WrongLastSequence,
        10_077 if description.contains("per subject") => NatsError::Occupied,
        10_158 => NatsError::InFlight,
        code => NatsError::Refused { code, description },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_server_are_told_apart() {
        #[track_caller]
        fn check(answer: &str, expected: &str) {
            let text = match parse_ack(answer.as_bytes()) {
                Ok(PubAck { sequence, duplicate, .. }) => format!("{sequence} {duplicate}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected);
        }
        check(r#"{"stream":"OAUTH","seq":7}"#, "7 false");
        check(r#"{"stream":"OAUTH","seq":7,"duplicate":true}"#, "7 true");
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
        check("<html>", "unreadable answer from the server");
    }
}
