//! A connection's newest state: subscribes to pushes, asks once, then replaces the state by each one with a higher sequence.
//!
//! A push is delivered at most once. To make up for a missed one, the source asks a worker after each reconnect, and shortly
//! before the token expires if no push has arrived.

use std::error::Error;
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

use self::TokenSourceError::Subscribe;
use super::{CallError, call};
use crate::connection::{OauthConnection, Status};
use crate::jetstream::header;
use crate::subject::{ConnectionKey, NodeCall};
use crate::system;

/// Interval of the check for a reconnect. The client library has no event that is certain to arrive.
const RECONNECT_CHECK: Duration = Duration::from_millis(250);
/// First pause between two questions without a newer answer. Each pause doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Time until the next question when nothing is expected, and the longest sleep: timers reject very large values.
const IDLE: Duration = Duration::from_hours(24);

/// Error that prevents the opening of a token source, or ends it.
#[derive(Debug, thiserror::Error)]
pub enum TokenSourceError {
    /// The client could not subscribe to the token subject.
    #[error("cannot subscribe to the token subject: {0}")]
    Subscribe(#[source] Box<dyn Error + Send + Sync>),
    /// The first question failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The client was closed, so no newer state can arrive.
    #[error("the NATS client was closed")]
    Closed,
}

impl From<watch::error::RecvError> for TokenSourceError {
    fn from(_closed: watch::error::RecvError) -> Self {
        Self::Closed
    }
}

/// A connection's newest state, followed by a task that ends when the source is dropped.
///
/// Every new token arrives as a push, usually within milliseconds of the refresh. After a reconnect, and when the token
/// is about to expire without a push, the task asks a worker instead, so an outage of node or bus loses nothing.
#[derive(Debug)]
pub struct TokenSource {
    current: watch::Receiver<Option<OauthConnection>>,
    _follower: JoinSet<()>,
}

impl TokenSource {
    /// Subscribes to the connection's token subject, then asks a worker for its state. The connection need not exist
    /// yet: the source then waits for its first login.
    ///
    /// # Errors
    /// Fails if the subscription is refused or no worker answers.
    pub async fn open(client: Client, key: ConnectionKey) -> Result<Self, TokenSourceError> {
        let connection_count = connection_count(&client);
        let pushes = client.subscribe(key.subject()).await.map_err(|error| Subscribe(error.into()))?;
        // The subscription must reach the server before the question, or a push between the two is missed.
        client.flush().await.map_err(|error| Subscribe(error.into()))?;
        let first = match ask(&client, &key).await {
            Ok(connection) => Some(connection),
            Err(error) if error.is_unknown() => None,
            Err(error) => return Err(error.into()),
        };
        let (sender, current) = watch::channel(first);
        let follower = Follower { client, key, connection_count, sender, pause: FIRST_PAUSE, unknown_since: None };
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run(pushes));
        Ok(Self { current, _follower: tasks })
    }

    /// Returns the newest state, or `None` before the first login.
    #[must_use]
    pub fn current(&self) -> Option<OauthConnection> {
        self.current.borrow().clone()
    }

    /// Returns a receiver of every newer state. It closes when the source is dropped.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<OauthConnection>> {
        self.current.clone()
    }

    /// Waits for the next state and returns it.
    ///
    /// # Errors
    /// Returns [`TokenSourceError::Closed`] after the client was closed.
    pub async fn changed(&mut self) -> Result<Option<OauthConnection>, TokenSourceError> {
        self.current.changed().await?;
        Ok(self.current.borrow_and_update().clone())
    }

    /// Returns the connection as soon as it has an access token that has not expired. Waits while there is none, for
    /// example until a person logs in again.
    ///
    /// # Errors
    /// Returns [`TokenSourceError::Closed`] after the client was closed.
    pub async fn token(&mut self) -> Result<OauthConnection, TokenSourceError> {
        let is_valid = |state: &Option<OauthConnection>| state.as_ref().is_some_and(|it| has_token(it, system::now()));
        let found = self.current.wait_for(is_valid).await?;
        found.clone().ok_or(TokenSourceError::Closed)
    }
}

fn has_token(connection: &OauthConnection, now: Timestamp) -> bool {
    connection.access_token.is_some() && connection.expiry.is_none_or(|expiry| now < expiry)
}

/// Returns the number of connections made so far. A change means that the client has reconnected.
fn connection_count(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

async fn ask(client: &Client, key: &ConnectionKey) -> Result<OauthConnection, CallError> {
    let question = json!({ "integration_id": key.integration, "connection_id": key.name });
    let answer = call(client, &key.account, NodeCall::Token, &question).await?;
    serde_json::from_slice(&answer).map_err(super::unreadable)
}

/// Reads a push. The sequence and time of the record are in headers that the server adds.
pub(crate) fn parse_push(message: &Message) -> Option<OauthConnection> {
    let headers = message.headers.as_ref()?;
    let mut connection: OauthConnection = serde_json::from_slice(&message.payload).ok()?;
    connection.sequence = header(headers, "Nats-Sequence").parse().ok()?;
    let stored: Option<Timestamp> = header(headers, "Nats-Time-Stamp").parse().ok();
    connection.modified = stored.and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or_default();
    Some(connection)
}

struct Follower {
    client: Client,
    key: ConnectionKey,
    /// Number of connections that the client had made when the task last asked because of a reconnect.
    connection_count: u64,
    sender: watch::Sender<Option<OauthConnection>>,
    pause: Duration,
    /// Sequence of the current state when a worker last answered that the connection is unknown.
    unknown_since: Option<u64>,
}

impl Follower {
    async fn run(mut self, mut pushes: Subscriber) {
        let mut asked = JoinSet::new();
        let mut reconnect_check = tokio::time::interval(RECONNECT_CHECK);
        reconnect_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ask_at = self.next_question();
        loop {
            tokio::select! {
                // Pushes first: a push is newer than the answer to an earlier question.
                biased;
                push = pushes.next() => {
                    let Some(push) = push else { return };
                    if parse_push(&push).is_some_and(|connection| self.update(connection)) {
                        ask_at = self.next_question();
                    }
                }
                Some(answer) = asked.join_next(), if !asked.is_empty() => {
                    ask_at = self.handle_answer(answer.unwrap_or_else(|error| Err(super::unreadable(error))));
                }
                () = tokio::time::sleep_until(ask_at), if asked.is_empty() => {
                    let (client, key) = (self.client.clone(), self.key.clone());
                    asked.spawn(async move { ask(&client, &key).await });
                }
                _ = reconnect_check.tick() => {
                    let connection_count = connection_count(&self.client);
                    if connection_count != self.connection_count {
                        self.connection_count = connection_count;
                        // A question sent on the old connection may never be answered.
                        asked = JoinSet::new();
                        (self.pause, ask_at) = (FIRST_PAUSE, Instant::now());
                    }
                }
            }
        }
    }

    /// Replaces the current state if the given one is newer. Returns true if it was.
    fn update(&mut self, connection: OauthConnection) -> bool {
        let is_newer = self.sender.borrow().as_ref().is_none_or(|current| current.sequence < connection.sequence);
        if is_newer {
            debug!(sequence = connection.sequence, "the connection has a newer state");
            (self.pause, self.unknown_since) = (FIRST_PAUSE, None);
            self.sender.send_replace(Some(connection));
        }
        is_newer
    }

    /// Uses an answer, and returns the time of the next question.
    fn handle_answer(&mut self, answer: Result<OauthConnection, CallError>) -> Instant {
        match answer {
            Ok(connection) => {
                self.unknown_since = None;
                self.update(connection);
                self.next_question()
            }
            Err(error) if error.is_unknown() => self.handle_unknown(),
            Err(error) => {
                debug!("cannot read the connection: {error}; asking again");
                self.after_pause()
            }
        }
    }

    /// Counts a connection as deleted only when a worker answers "unknown" twice for the same state: a record is pushed
    /// before it is in the bucket that answers questions.
    fn handle_unknown(&mut self) -> Instant {
        let Some(current) = self.sender.borrow().clone().filter(|current| current.status != Status::Revoked) else {
            return idle();
        };
        if self.unknown_since.replace(current.sequence) != Some(current.sequence) {
            return self.after_pause();
        }
        let ended =
            OauthConnection { access_token: None, expiry: None, expires_in: None, status: Status::Revoked, ..current };
        self.sender.send_replace(Some(ended));
        idle()
    }

    /// Time of the next question if no push arrives: when the token is so near its expiry that a read refreshes it.
    fn next_question(&mut self) -> Instant {
        let near = self.sender.borrow().as_ref().and_then(OauthConnection::near_expiry_at);
        let Some(near) = near else { return idle() };
        match Duration::try_from(near.duration_since(system::now())) {
            Ok(wait) if !wait.is_zero() => Instant::now() + wait.min(IDLE),
            Ok(_) | Err(_) => self.after_pause(),
        }
    }

    /// Time of the next question after a pause that grows, with jitter so that many nodes do not ask at once.
    fn after_pause(&mut self) -> Instant {
        let wait = self.pause.mul_f64(1.0 + 0.5 * system::random_share());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Instant::now() + wait
    }
}

fn idle() -> Instant {
    Instant::now() + IDLE
}
