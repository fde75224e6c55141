//! A connection that keeps itself new: subscribe, ask, keep whatever has the higher sequence.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::debug;

use super::{CallError, call};
use crate::connection::{OauthConnection, Status};
use crate::jetstream::header;
use crate::subject::{ConnectionKey, NodeCall};
use crate::system;

/// How often it is looked whether the client had to connect again.
const LOOK: Duration = Duration::from_millis(250);
/// Pauses between questions that bring nothing new: doubled from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long nothing is asked when there is nothing to wait for.
const IDLE: Duration = Duration::from_hours(24);

/// Why there is no connection to keep.
#[derive(Debug, thiserror::Error)]
pub enum TokenSourceError {
    /// The subscription to the token subject failed.
    #[error("cannot subscribe to the token subject: {0}")]
    Subscribe(String),
    /// The first question was not answered.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The client was closed.
    #[error("the NATS client was closed")]
    Closed,
}

/// A connection's newest state. Ends what it does when dropped.
///
/// Every new token arrives as a push. A push that is missed, while the client or the bus is away, is made up for by
/// asking: after each new connection to the bus, and when the token is about to end and no push has come.
#[derive(Debug)]
pub struct TokenSource {
    current: watch::Receiver<Option<OauthConnection>>,
    _keeper: JoinSet<()>,
}

impl TokenSource {
    /// Subscribes to a connection's token subject, then asks for the connection. One that does not exist is waited
    /// for: somebody may log in later.
    ///
    /// # Errors
    /// [`TokenSourceError`] when the bus, or a worker on it, is not there.
    pub async fn open(client: Client, key: ConnectionKey) -> Result<Self, TokenSourceError> {
        let connects = connects(&client);
        let subscribe = |error: String| TokenSourceError::Subscribe(error);
        let pushes = client.subscribe(key.subject()).await.map_err(|error| subscribe(error.to_string()))?;
        // The server has the subscription before it has the question.
        client.flush().await.map_err(|error| subscribe(error.to_string()))?;
        let first = match ask(&client, &key).await {
            Ok(connection) => Some(connection),
            Err(error) if error.is_unknown() => None,
            Err(error) => return Err(error.into()),
        };
        let (sender, current) = watch::channel(first);
        let keeper = Keeper { client, key, connects, sender, pause: PAUSE.0, missing_since: None };
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run(pushes));
        Ok(Self { current, _keeper: tasks })
    }

    /// The newest state; none while nobody has logged in.
    #[must_use]
    pub fn current(&self) -> Option<OauthConnection> {
        self.current.borrow().clone()
    }

    /// A receiver of every newer state; the channel closes when the source is dropped.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<OauthConnection>> {
        self.current.clone()
    }

    /// Waits for the next newer state.
    ///
    /// # Errors
    /// [`TokenSourceError::Closed`] when there will be none.
    pub async fn changed(&mut self) -> Result<Option<OauthConnection>, TokenSourceError> {
        self.current.changed().await.map_err(|_| TokenSourceError::Closed)?;
        Ok(self.current.borrow_and_update().clone())
    }

    /// The connection with an access token that is good now; waits for one.
    ///
    /// # Errors
    /// [`TokenSourceError::Closed`] when there will be none.
    pub async fn token(&mut self) -> Result<OauthConnection, TokenSourceError> {
        let good = |state: &Option<OauthConnection>| state.as_ref().is_some_and(|it| is_good(it, system::now()));
        let found = self.current.wait_for(good).await.map_err(|_| TokenSourceError::Closed)?;
        found.clone().ok_or(TokenSourceError::Closed)
    }
}

fn is_good(connection: &OauthConnection, now: Timestamp) -> bool {
    connection.access_token.is_some() && connection.expiry.is_none_or(|expiry| now < expiry)
}

/// How often the client has connected so far.
pub(crate) fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

async fn ask(client: &Client, key: &ConnectionKey) -> Result<OauthConnection, CallError> {
    let question = json!({ "integration_id": key.integration, "connection_id": key.name });
    let answer = call(client, &key.account, NodeCall::Token, &question).await?;
    serde_json::from_slice(&answer).map_err(|_| CallError::Unreadable)
}

/// A push: the record's body, and its sequence and time from the headers.
pub(crate) fn pushed(message: &Message) -> Option<OauthConnection> {
    let headers = message.headers.as_ref()?;
    let mut connection: OauthConnection = serde_json::from_slice(&message.payload).ok()?;
    connection.sequence = header(headers, "Nats-Sequence").parse().ok()?;
    let stored: Option<Timestamp> = header(headers, "Nats-Time-Stamp").parse().ok();
    connection.modified = stored.and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or_default();
    Some(connection)
}

/// The task behind a source.
struct Keeper {
    client: Client,
    key: ConnectionKey,
    connects: u64,
    sender: watch::Sender<Option<OauthConnection>>,
    /// Before the next question that may bring nothing new.
    pause: Duration,
    /// The sequence that a worker did not know any more when it was last asked.
    missing_since: Option<u64>,
}

impl Keeper {
    async fn run(mut self, mut pushes: Subscriber) {
        let mut asked = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ask_at = self.next_question();
        loop {
            tokio::select! {
                // In this order: what has been pushed is newer than what was asked before.
                biased;
                push = pushes.next() => {
                    let Some(push) = push else { return };
                    if pushed(&push).is_some_and(|connection| self.keep(connection)) {
                        ask_at = self.next_question();
                    }
                }
                Some(answer) = asked.join_next(), if !asked.is_empty() => {
                    ask_at = self.answered(answer.unwrap_or(Err(CallError::Unreadable)));
                }
                () = tokio::time::sleep_until(ask_at), if asked.is_empty() => {
                    let (client, key) = (self.client.clone(), self.key.clone());
                    asked.spawn(async move { ask(&client, &key).await });
                }
                _ = look.tick() => {
                    let connects = connects(&self.client);
                    if connects != self.connects {
                        self.connects = connects;
                        // What was asked before may never be answered.
                        asked = JoinSet::new();
                        (self.pause, ask_at) = (PAUSE.0, Instant::now());
                    }
                }
            }
        }
    }

    /// Keeps a state if it is newer. Gives whether it is.
    fn keep(&mut self, connection: OauthConnection) -> bool {
        let is_newer = self.sender.borrow().as_ref().is_none_or(|current| current.sequence < connection.sequence);
        if is_newer {
            debug!(sequence = connection.sequence, "a newer state of the connection");
            (self.pause, self.missing_since) = (PAUSE.0, None);
            self.sender.send_replace(Some(connection));
        }
        is_newer
    }

    /// Takes an answer in. Gives when to ask next.
    fn answered(&mut self, answer: Result<OauthConnection, CallError>) -> Instant {
        match answer {
            Ok(connection) => {
                self.missing_since = None;
                self.keep(connection);
                self.next_question()
            }
            Err(error) if error.is_unknown() => self.missing(),
            Err(error) => {
                debug!("no answer about the connection: {error}");
                self.later()
            }
        }
    }

    /// The connection is unknown: deleted, or so new that it is pushed but not yet found. Twice unknown is deleted.
    fn missing(&mut self) -> Instant {
        let Some(current) = self.sender.borrow().clone().filter(|current| current.status != Status::Revoked) else {
            return idle();
        };
        if self.missing_since.replace(current.sequence) != Some(current.sequence) {
            return self.later();
        }
        let ended =
            OauthConnection { access_token: None, expiry: None, expires_in: None, status: Status::Revoked, ..current };
        self.sender.send_replace(Some(ended));
        idle()
    }

    /// When to ask if no push comes: once the token is so near its end that a worker would refresh it first.
    fn next_question(&mut self) -> Instant {
        let near = self.sender.borrow().as_ref().and_then(OauthConnection::near_expiry_at);
        let Some(near) = near else { return idle() };
        match Duration::try_from(near.duration_since(system::now())) {
            Ok(wait) if !wait.is_zero() => Instant::now() + wait.min(IDLE),
            Ok(_) | Err(_) => self.later(),
        }
    }

    /// After a pause that grows; not all at once where there are many.
    fn later(&mut self) -> Instant {
        let wait = self.pause.mul_f64(1.0 + 0.5 * system::random_share());
        self.pause = (self.pause * 2).min(PAUSE.1);
        Instant::now() + wait
    }
}

fn idle() -> Instant {
    Instant::now() + IDLE
}
