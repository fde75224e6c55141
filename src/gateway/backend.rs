//! The gateway's side of the bus: calls, which a worker answers at once, and commands, which go through the work queue.

mod command;
mod error;
mod outcome;
mod ready;
mod restart;
mod second_tries;
mod session;

use std::time::Duration;

use async_nats::Message;
use async_nats::client::Request;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;
use zeroize::Zeroizing;

pub(crate) use self::command::LoginTarget;
use self::command::MessageId;
pub use self::command::{Command, StateOwner};
pub use self::error::BackendError;
pub(crate) use self::error::Hint;
pub(crate) use self::outcome::{LoginOutcome, Stage};
pub(crate) use self::ready::NotReady;
use self::second_tries::SecondTries;
use self::session::{Answer, Sessions};
use crate::call::{AdminCall, Call, Question};
use crate::command::{Credential, Origin, WorkerReply};
use crate::jetstream::{Nats, NatsError, Published};
use crate::protocol::outgoing::Outgoing;
use crate::protocol::replies::Replies;
use crate::secret::Secret;
use crate::subject::Account;
use crate::system;

/// Time for which a call is repeated while no worker listens. Covers a restart of the workers.
const WORKER_WAIT: Duration = Duration::from_secs(2);
/// Pause between these repetitions.
const WORKER_RETRY: Duration = Duration::from_millis(50);
/// Longest time for a call that only reads.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of the login checks while an identical command may be in the queue in place of this one. Each check is a call
/// to a worker.
const LOGIN_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Longest pauses between tries to queue a command while the queue holds another one for the same subject. Each is twice the
/// one before, up to the last.
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
        }
    }

    /// Accepts only this public curve key of the workers, unless it is empty: `nats.worker_key`.
    #[must_use]
    pub fn with_worker_key(self, key: String) -> Self {
        Self { sessions: Sessions::new(key), ..self }
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

    /// Makes a call: JSON in, JSON out.
    pub async fn call(&self, call: Call, context: &RequestContext, body: &Value) -> Result<Bytes, BackendError> {
        let timeout = if call.starts_command() { self.deadline } else { READ_TIMEOUT };
        let (first, again) = (call.subject(), call.again());
        // Boxed, because the future of a call is large.
        let first = Box::pin(self.ask(&first, context, body, timeout));
        let answer = match &again {
            Some(again) => self.second_tries.answer(first, Box::pin(self.ask(again, context, body, timeout))).await,
            None => first.await,
        };
        match answer {
            // A worker listened, so it may have queued the command, which may still succeed.
            Err(BackendError::NoWorker(NatsError::Away(_))) if call.starts_command() => Err(BackendError::Deadline),
            answer => answer,
        }
    }

    /// Makes a call of the account ADMIN.
    pub(crate) async fn admin_call(&self, call: AdminCall, body: &Value) -> Result<Bytes, BackendError> {
        self.ask(&call.subject(), &RequestContext::default(), body, READ_TIMEOUT).await
    }

    async fn ask(
        &self,
        subject: &str,
        context: &RequestContext,
        body: &Value,
        timeout: Duration,
    ) -> Result<Bytes, BackendError> {
        let RequestContext { credential, origin, traceparent } = context;
        let question = Question::text(credential.as_ref(), origin, traceparent.as_deref(), body);
        let question = Zeroizing::new(question);
        match self.try_ask(subject, &question, timeout).await {
            // The workers' key, or this gateway's time, was out of date. The next try asks for both.
            Err(BackendError::Session(error)) if error.is_out_of_date() => {
                self.try_ask(subject, &question, timeout).await
            }
            answer => answer,
        }
    }

    async fn try_ask(&self, subject: &str, question: &str, timeout: Duration) -> Result<Bytes, BackendError> {
        let sent =
            self.sessions.seal(&self.nats, subject, question).await.map_err(|error| self.unanswered(error))??;
        let answer = request(&self.nats, subject, &sent.payload()?, timeout).await;
        let answer = answer.map_err(|error| self.unanswered(error))?;
        match self.sessions.open(&sent, &answer.payload).await? {
            Answer { status: 200, body, retry_after: _ } => Ok(String::from(Box::<str>::from(body)).into()),
            Answer { status, body, retry_after } => {
                Err(refusal(status, &serde_json::from_str(body.get()).unwrap_or_default(), retry_after))
            }
        }
    }

    /// Sorts the failure of a call, which a worker answers and not the server.
    fn unanswered(&self, error: NatsError) -> BackendError {
        let is_silence = matches!(error, NatsError::NotSent(_) | NatsError::Away(_));
        if is_silence && self.nats.is_connected() { BackendError::NoWorker(error) } else { error.into() }
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
        id: MessageId,
        context: &RequestContext,
    ) -> Result<Bytes, BackendError> {
        let deadline = Instant::now() + self.deadline;
        let state = match &command {
            Command::Exchange { state, .. } => Some(state.clone()),
            Command::Put { .. } | Command::Delete { .. } => None,
        };
        let outgoing = command::seal(command, id, context, self.sessions.clock().now())?;
        let mut expected = self.replies.expect(&outgoing);
        let (is_callback, server_id) = (state.is_some(), self.nats.server_id());
        let queued = self.enqueue(&outgoing, deadline).await?;
        let arrival = async {
            match state.filter(|_| queued == Queued::OwnOrIdentical) {
                None => Ok(expected.arrival().await),
                Some(state) => tokio::select! {
                    reply = expected.arrival() => Ok(reply),
                    lost = self.lost_to_another(&state, &outgoing.id) => Err(lost),
                },
            }
        };
        // A copy of a change could undo a later one, so changes are not repeated.
        let repeated = async {
            if is_callback {
                match self.repeat_after_restart(&outgoing, server_id).await {}
            }
            std::future::pending().await
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

    /// Queues a command. Tries again until the deadline while the queue holds another command for the same subject.
    async fn enqueue(&self, outgoing: &Outgoing, deadline: Instant) -> Result<Queued, BackendError> {
        let mut pause = QUEUE_PAUSE_FIRST;
        loop {
            match outgoing.publish(&self.nats, Some(&self.replies)).await {
                Ok(Published::Stored { .. }) => return Ok(Queued::Own),
                Ok(Published::DuplicateAfterRetry) | Err(NatsError::InFlight { after_retry: true }) => {
                    return Ok(Queued::OwnOrIdentical);
                }
                // Another request published the same callback before this one.
                Ok(Published::Duplicate) | Err(NatsError::InFlight { after_retry: false }) => {
                    return Err(BackendError::UsedState);
                }
                Err(NatsError::Occupied) if Instant::now() + pause < deadline => {
                    // Requests that arrive together would also try together, and of each round only one can succeed.
                    tokio::time::sleep(pause.mul_f64(system::random_share())).await;
                }
                Err(NatsError::Occupied) => return Err(BackendError::Occupied),
                Err(error) => {
                    warn!("command not queued: {error}");
                    return Err(error.into());
                }
            }
            pause = (pause * 2).min(QUEUE_PAUSE_LONGEST);
        }
    }
}

/// Sends a request to the workers. If none listens, tries again for [`WORKER_WAIT`].
async fn request(nats: &Nats, subject: &str, payload: &Bytes, timeout: Duration) -> Result<Message, NatsError> {
    let last_retry = Instant::now() + WORKER_WAIT;
    loop {
        let request = Request::new().payload(payload.clone()).timeout(Some(timeout));
        match nats.request(subject, request).await {
            Err(NatsError::NotSent(_)) if Instant::now() < last_retry => tokio::time::sleep(WORKER_RETRY).await,
            answer => return answer,
        }
    }
}

fn refusal(status: u16, body: &Value, retry_after_seconds: Option<u64>) -> BackendError {
    let text = |field| body.get(field).and_then(Value::as_str).map(str::to_owned);
    let error = text("error").unwrap_or_else(|| "refused without a reason".to_owned());
    let (reason, hint) = (text("reason"), Hint::deserialize(body).ok());
    BackendError::Refused { status, error, reason, hint, retry_after_seconds }
}
