//! The gateway's side of the bus: calls, which a worker answers at once, and commands, which go through the work queue.

mod calls;
mod command;
mod error;
mod outcome;
mod ready;
mod repeat;
mod restart;
mod second_tries;
mod session;
mod throttle;

use std::hash::RandomState;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::warn;

pub(crate) use self::command::LoginTarget;
use self::command::MessageId;
pub use self::command::{Command, StateOwner};
pub use self::error::BackendError;
pub(crate) use self::error::Hint;
pub(crate) use self::outcome::{LoginOutcome, Stage};
pub(crate) use self::ready::{NotReady, WorkerStart};
use self::second_tries::SecondTries;
use self::session::Sessions;
use self::throttle::Throttle;
use crate::call::Call;
use crate::command::{Credential, Origin, WorkerReply};
use crate::jetstream::{Nats, NatsError, Published};
use crate::protocol::outgoing::Outgoing;
use crate::protocol::replies::Replies;
use crate::secret::Secret;
use crate::subject::Account;
use crate::system;

/// Time after the begin of a call or command for which it is tried again while no server answers, or a stream has no leader.
/// nats-server elects a leader within 4 to 9 s after the old one was killed.
const BUS_WAIT: Duration = Duration::from_secs(10);
/// Interval of the login checks while an identical command may be in the queue in place of this one. Each check is a call
/// to a worker.
const LOGIN_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// First pause before another try to queue a command, while the queue holds one for the same subject. Each next pause is twice
/// as long, up to [`QUEUE_PAUSE_LONGEST`].
const QUEUE_PAUSE_FIRST: Duration = Duration::from_millis(20);
const QUEUE_PAUSE_LONGEST: Duration = Duration::from_millis(200);

/// The parts of a request that go with each call and command. The credential is not verified: workers do that.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    pub credential: Option<Credential>,
    pub origin: Origin,
    /// W3C trace context, of valid form.
    pub traceparent: Option<String>,
}

/// The account that a credential acts for: the answer to [`Call::Whoami`].
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Whoami {
    pub account: Account,
    /// True if the credential may change configs.
    pub admin: bool,
    /// Public curve key of the workers.
    pub seal_to: String,
}

/// The command that the queue holds after a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queued {
    /// The published command.
    Own,
    /// The published command, or an identical one of another request. The publish was retried, and the retry found the
    /// message id taken: either by its own first try or by the other request.
    OwnOrIdentical,
}

/// The connection to the bus.
pub struct Backend {
    nats: Nats,
    replies: Replies,
    /// Longest wait for the answer to a command.
    deadline: Duration,
    last_check: Mutex<Option<ready::LastCheck>>,
    sessions: Sessions,
    second_tries: SecondTries,
    throttle: Throttle,
    /// Of a process that has a worker.
    own_worker: Option<watch::Receiver<WorkerStart>>,
    /// Hashes clients.
    clients: RandomState,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl Backend {
    /// `deadline` is the longest wait for the answer to a command. Answers arrive only while [`Backend::receive`] runs.
    #[must_use]
    pub fn new(nats: Nats, replies: Replies, deadline: Duration) -> Self {
        Self {
            nats,
            replies,
            deadline,
            last_check: Mutex::new(None),
            sessions: Sessions::new(String::new()),
            second_tries: SecondTries::default(),
            throttle: Throttle::default(),
            own_worker: None,
            clients: RandomState::new(),
        }
    }

    /// Accepts only this public curve key of the workers, unless it is empty: `nats.worker_key`.
    #[must_use]
    pub fn with_worker_key(self, key: String) -> Self {
        Self { sessions: Sessions::new(key), ..self }
    }

    /// Is ready only once the worker of this process has started.
    #[must_use]
    pub(crate) fn with_own_worker(self, start: watch::Receiver<WorkerStart>) -> Self {
        Self { own_worker: Some(start), ..self }
    }

    /// Returns a backend that cannot reach a server, so every call and command fails.
    #[cfg(test)]
    pub(crate) async fn nowhere() -> Self {
        let mut settings = crate::config::load(None).expect("the defaults are whole").nats;
        settings.url = "nats://127.0.0.1:1".to_owned();
        let nats =
            Nats::connect(&settings, "test", crate::jetstream::Patience::Forever).await.expect("nothing to wait for");
        Self::new(nats, Replies::new(), Duration::from_secs(1))
    }

    /// Receives the answers to commands. Returns when the subscription ends or is refused.
    pub async fn receive(&self) -> Result<(), async_nats::Error> {
        self.replies.receive(&self.nats).await
    }

    /// Sends a command through the work queue and waits for its answer until the deadline.
    ///
    /// # Errors
    /// [`BackendError::UsedState`] if the queue has an identical callback, or had one in the last seconds.
    pub async fn command(&self, command: Command, context: &RequestContext) -> Result<Bytes, BackendError> {
        self.send_command(command, MessageId::OfCallback, context).await
    }

    /// The same for a callback that must be queued even if an identical one was.
    pub(crate) async fn repeat_command(
        &self,
        command: Command,
        context: &RequestContext,
    ) -> Result<Bytes, BackendError> {
        self.send_command(command, MessageId::Fresh, context).await
    }

    async fn send_command(
        &self,
        command: Command,
        id: MessageId<'_>,
        context: &RequestContext,
    ) -> Result<Bytes, BackendError> {
        let deadline = Instant::now() + self.deadline;
        let state = match &command {
            Command::Exchange { state, .. } => Some(state.clone()),
            Command::Put { .. } | Command::Delete { .. } => None,
        };
        // A copy of a change could undo a later one, so changes are not repeated.
        let callback = state.is_some().then(|| command.clone());
        let was_lost = self.nats.reconnections();
        let outgoing = command::seal(command, id, context, self.sessions.clock().now())?;
        let mut expected = self.replies.expect(&outgoing);
        let queued = self.enqueue(&outgoing, callback.is_some(), deadline).await?;
        let arrival = async {
            match state.filter(|_| queued == Queued::OwnOrIdentical) {
                None => Ok(expected.arrival().await),
                Some(state) => tokio::select! {
                    reply = expected.arrival() => Ok(reply),
                    lost = self.lost_to_another(&state, &outgoing.id) => Err(lost),
                },
            }
        };
        let repeated = async {
            match callback {
                Some(callback) => match self.repeat_callback(&outgoing, &callback, context, was_lost).await {},
                None => std::future::pending().await,
            }
        };
        let arrival = async {
            tokio::select! {
                arrived = arrival => arrived,
                never = repeated => never,
            }
        };
        let reply = match tokio::time::timeout_at(deadline, arrival).await {
            Ok(arrived) => arrived?,
            Err(_elapsed) => None,
        };
        match reply {
            Some(WorkerReply { status: 200, body, retry_after: _ }) => Ok(body.to_string().into()),
            Some(WorkerReply { status, body, retry_after }) => Err(refusal(status, &body, retry_after)),
            None if !self.nats.is_connected() => Err(BackendError::Disconnected),
            None => Err(BackendError::Deadline),
        }
    }

    /// Returns a worker's refusal as soon as another command has used the login. Never returns if no other command does.
    async fn lost_to_another(&self, state: &Secret, command_id: &str) -> BackendError {
        let question = json!({ "state": state.expose(), "command_id": command_id });
        loop {
            tokio::time::sleep(LOGIN_CHECK_INTERVAL).await;
            let answer = self.call(Call::State, &RequestContext::default(), &question).await;
            if let Err(refused @ BackendError::Refused { status: 401, .. }) = answer {
                return refused;
            }
        }
    }

    /// Queues a command. Tries again until the deadline while the queue holds another command for the same subject, and for
    /// [`BUS_WAIT`] while no server answers. `is_callback` allows this also after a try that may have been stored.
    async fn enqueue(&self, outgoing: &Outgoing, is_callback: bool, deadline: Instant) -> Result<Queued, BackendError> {
        let (mut pause, mut may_be_stored) = (QUEUE_PAUSE_FIRST, false);
        let last_try = deadline.min(Instant::now() + BUS_WAIT);
        loop {
            match outgoing.publish(&self.nats, Some(&self.replies)).await {
                Ok(Published::Stored { .. }) => return Ok(Queued::Own),
                Ok(Published::DuplicateAfterRetry) | Err(NatsError::InFlight { after_retry: true }) => {
                    return Ok(Queued::OwnOrIdentical);
                }
                Ok(Published::Duplicate) | Err(NatsError::InFlight { .. }) if may_be_stored => {
                    return Ok(Queued::OwnOrIdentical);
                }
                // Another request published the same callback before this one.
                Ok(Published::Duplicate) | Err(NatsError::InFlight { after_retry: false }) => {
                    return Err(BackendError::UsedState);
                }
                Err(NatsError::Occupied) if Instant::now() + pause < deadline => {}
                Err(NatsError::Occupied) => return Err(BackendError::Occupied),
                Err(error)
                    if error.is_without_leader()
                        && (is_callback || !matches!(error, NatsError::Away(_)))
                        && Instant::now() + pause < last_try =>
                {
                    may_be_stored |= matches!(error, NatsError::Away(_));
                }
                Err(error) => {
                    warn!("command not queued: {error}");
                    return Err(error.into());
                }
            }
            // Requests that arrive together would also try together, and of each round only one can succeed.
            tokio::time::sleep(pause.mul_f64(system::random_share())).await;
            pause = (pause * 2).min(QUEUE_PAUSE_LONGEST);
        }
    }
}

fn refusal(status: u16, body: &Value, retry_after_seconds: Option<u64>) -> BackendError {
    let text = |field| body.get(field).and_then(Value::as_str).map(str::to_owned);
    let error = text("error").unwrap_or_else(|| "refused without a reason".to_owned());
    let (reason, hint) = (text("reason"), Hint::deserialize(body).ok());
    BackendError::Refused { status, error, reason, hint, retry_after_seconds }
}
