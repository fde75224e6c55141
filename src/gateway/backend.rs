//! The edge's way to the bus: calls that are answered at once, and commands through the work queue.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::call::Call;
use crate::command::{
    CREDENTIAL_NEEDED, Cookie, Credential, HEADER_CREDENTIAL, HEADER_RETRY_AFTER, HEADER_TRACEPARENT, Work, WorkerReply,
};
use crate::jetstream::{Nats, NatsError, header};
use crate::login::{UNKNOWN_STATE, hash_of};
use crate::protocol::outgoing::Outgoing;
use crate::protocol::replies::Replies;
use crate::seal;
use crate::secret::Secret;
use crate::subject::{Account, CommandSubject, ConnectionKey, ConnectionName, Integration, Verb};

/// Who is calling, unjudged, and what ties the call to traces. By default nobody.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// The proof, when one came.
    pub credential: Option<Credential>,
    /// W3C trace context, of valid form.
    pub traceparent: Option<String>,
}

/// Whose login a state belongs to: the answer to the call `state`.
#[derive(Debug, Clone, Deserialize)]
pub struct StateOwner {
    /// The account that asked for the login.
    pub account: Account,
    /// The integration it is for.
    pub integration_id: Integration,
    /// The connection it makes.
    pub connection_id: ConnectionName,
    /// Where the person came from, as the allow-list accepted it.
    pub return_to: Option<String>,
    /// Public curve key of the workers.
    pub seal_to: String,
}

/// Whose a credential is: the answer to the call `whoami`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Whoami {
    /// The account that it acts for.
    pub account: Account,
    /// Whether it may change configs.
    pub admin: bool,
    /// Public curve key of the workers.
    pub seal_to: String,
}

/// What a worker is asked to do. All that is secret in it leaves sealed to `seal_to`.
#[derive(Debug)]
pub enum Command {
    /// Exchange what the provider sent to the callback for a token.
    Exchange {
        /// The callback's state.
        state: Secret,
        /// The callback's whole raw query.
        query: Secret,
        /// Whose login it is.
        owner: StateOwner,
        /// The `__Host-tokenbus-*` cookies that came along, for logins bound to a browser.
        cookies: Vec<Cookie>,
    },
    /// Create or replace an integration's config.
    Put {
        /// The integration of the path.
        integration: Integration,
        /// The admin's account.
        account: Account,
        /// Public curve key of the workers.
        seal_to: String,
        /// The config as it came.
        body: Bytes,
    },
    /// Delete an integration's config.
    Delete {
        /// The integration of the path.
        integration: Integration,
        /// The admin's account.
        account: Account,
        /// Public curve key of the workers.
        seal_to: String,
    },
}

/// Why there is no answer to pass on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The worker's own answer.
    #[error("{error}")]
    Refused {
        /// HTTP status that the worker chose.
        status: u16,
        /// Its text, without any secret.
        error: String,
        /// Seconds to wait before asking again.
        retry_after: Option<u64>,
    },
    /// NATS or the workers are away.
    #[error("the message bus is not available")]
    Unavailable,
    /// The command is accepted and still running.
    #[error("accepted and still running; look again in a moment")]
    Deadline,
}

/// How long a caller's command stays on the queue when no worker takes it: as long as a code lives at most
/// (RFC 6749 §4.1.2).
const COMMAND_TTL: Duration = Duration::from_mins(10);
/// How long a call waits for somebody to answer it, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(50);
/// How long a call may take that only reads.
const CALL: Duration = Duration::from_secs(5);
/// How long it is believed whether workers can work.
const READY_FOR: Duration = Duration::from_millis(500);
/// How often a command that may be another's looks whether it is.
const LOOK: Duration = Duration::from_millis(500);
/// Seconds after which to try again when the bus is away or occupied.
const RETRY_AFTER: u64 = 2;
const OCCUPIED: &str = "another command of the same kind is running for this connection or config; try again";

/// When the workers said last whether they can work, on which connection, and what.
type Said = (Instant, u64, Result<(), String>);

/// The connection to the bus.
pub struct Backend {
    nats: Nats,
    replies: Replies,
    deadline: Duration,
    ready: Mutex<Option<Said>>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl Backend {
    /// A bus whose commands wait for their answers as long as `deadline`. Answers arrive once [`Backend::receive`] runs.
    #[must_use]
    pub fn new(nats: Nats, replies: Replies, deadline: Duration) -> Self {
        Self { nats, replies, deadline, ready: Mutex::new(None) }
    }

    /// A bus without a server, on which everything is unavailable.
    #[cfg(test)]
    pub(crate) async fn nowhere() -> Self {
        let mut settings = crate::config::load(None).expect("the defaults are whole").nats;
        settings.url = "nats://127.0.0.1:1".to_owned();
        let nats =
            Nats::connect(&settings, "test", crate::jetstream::Patience::Forever).await.expect("nothing to wait for");
        Self::new(nats, Replies::new(), Duration::from_secs(1))
    }

    /// Hands answers to those who wait for them, for as long as it is polled.
    ///
    /// # Errors
    /// When the subscription is refused or ends.
    pub async fn receive(&self) -> Result<(), async_nats::Error> {
        self.replies.receive(&self.nats).await
    }

    /// A call `oauth.edge.<call>`: JSON in, JSON out.
    ///
    /// # Errors
    /// The worker's refusal, or that there is no worker to ask.
    pub async fn call(&self, call: Call, context: &RequestContext, body: &Value) -> Result<Bytes, BackendError> {
        let mut headers = HeaderMap::new();
        if let Some(credential) = &context.credential {
            headers.insert(HEADER_CREDENTIAL, credential.expose());
        }
        if let Some(traceparent) = &context.traceparent {
            headers.insert(HEADER_TRACEPARENT, traceparent.as_str());
        }
        let answer = match self.ask(call, &headers, body).await {
            // Somebody has it.
            Err(NatsError::Away(_)) if call.starts_command() && self.nats.is_connected() => {
                return Err(BackendError::Deadline);
            }
            answer => answer.map_err(|_| BackendError::Unavailable)?,
        };
        let empty = HeaderMap::new();
        let headers = answer.headers.as_ref().unwrap_or(&empty);
        match header(headers, NATS_SERVICE_ERROR_CODE).parse() {
            Ok(status) => Err(BackendError::Refused {
                status,
                error: header(headers, NATS_SERVICE_ERROR).to_owned(),
                retry_after: header(headers, HEADER_RETRY_AFTER).parse().ok(),
            }),
            Err(_) => Ok(answer.payload),
        }
    }

    /// A command through the work queue; waits for its answer until the deadline.
    ///
    /// # Errors
    /// The worker's refusal, that it could not be queued, or that the deadline passed.
    pub async fn command(&self, command: Command, context: &RequestContext) -> Result<Bytes, BackendError> {
        let deadline = Instant::now() + self.deadline;
        let state = if let Command::Exchange { state, .. } = &command { Some(state.clone()) } else { None };
        let outgoing = seal(command, context)?;
        let mut answer = self.replies.expect(&outgoing.id);
        let is_ours = self.enqueue(&outgoing, deadline).await?;
        let arrival = async {
            match state.filter(|_| !is_ours) {
                None => Ok(answer.arrival().await),
                Some(state) => tokio::select! {
                    answer = answer.arrival() => Ok(answer),
                    lost = self.lost_to_another(&state, &outgoing.id) => Err(lost),
                },
            }
        };
        match tokio::time::timeout_at(deadline, arrival).await.unwrap_or(Ok(None)) {
            Err(lost) => Err(lost),
            Ok(Some(WorkerReply { status: 200, body, retry_after: _ })) => Ok(body.to_string().into()),
            Ok(Some(WorkerReply { status, body, retry_after })) => {
                let error = body.get("error").and_then(Value::as_str).unwrap_or("refused without a reason").to_owned();
                Err(BackendError::Refused { status, error, retry_after })
            }
            Ok(None) if !self.nats.is_connected() => Err(BackendError::Unavailable),
            Ok(None) => Err(BackendError::Deadline),
        }
    }

    /// Whether calls and commands can be sent.
    ///
    /// # Errors
    /// The reason why not, for people.
    pub async fn ready(&self) -> Result<(), String> {
        if !self.nats.is_connected() {
            return Err("not connected to NATS".to_owned());
        }
        // Anybody may ask as often as he likes: the workers are asked once for all who come meanwhile.
        let mut known = self.ready.lock().await;
        // A bus that was away may have kept workers away for longer.
        let on = self.nats.connects();
        if let Some((.., said)) = known.as_ref().filter(|(at, was, _)| *was == on && at.elapsed() < READY_FOR) {
            return said.clone();
        }
        let said = self.ask_ready().await;
        *known = Some((Instant::now(), on, said.clone()));
        said
    }

    async fn ask_ready(&self) -> Result<(), String> {
        match self.call(Call::Ready, &RequestContext::default(), &Value::Null).await {
            Ok(_) => Ok(()),
            Err(BackendError::Refused { error, .. }) => Err(error),
            Err(BackendError::Unavailable | BackendError::Deadline) => Err("no worker answers".to_owned()),
        }
    }

    fn time_for(&self, call: Call) -> Duration {
        if call.starts_command() { self.deadline } else { CALL }
    }

    /// Asks the workers. When nobody is there, waits a moment: workers come and go.
    async fn ask(&self, call: Call, headers: &HeaderMap, body: &Value) -> Result<Message, NatsError> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let request = Request::new()
                .headers(headers.clone())
                .payload(body.to_string().into())
                .timeout(Some(self.time_for(call)));
            match self.nats.request(&call.subject(), request).await {
                Err(NatsError::NotSent(_)) if Instant::now() < patience => tokio::time::sleep(AGAIN).await,
                answer => return answer,
            }
        }
    }

    /// Ends once a login turns out to have been used by another command than this one.
    async fn lost_to_another(&self, state: &Secret, command_id: &str) -> BackendError {
        let nobody = RequestContext::default();
        let question = serde_json::json!({ "state": state.expose(), "command_id": command_id });
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(refused @ BackendError::Refused { status: 401, .. }) =
                self.call(Call::State, &nobody, &question).await
            {
                return refused;
            }
        }
    }

    /// Puts a command on the queue; while its place there is taken, tries again until the deadline. Gives whether it
    /// is surely this command that is there: one that was sent again may have met its own likeness from elsewhere.
    async fn enqueue(&self, outgoing: &Outgoing, deadline: Instant) -> Result<bool, BackendError> {
        let mut pause = Duration::from_millis(20);
        loop {
            match outgoing.publish(&self.nats, Some(&self.replies)).await {
                Ok(ack) if ack.duplicate && !ack.repeated => return Err(refused(401, UNKNOWN_STATE, None)),
                Ok(ack) => return Ok(!ack.duplicate),
                Err(NatsError::InFlight) => return Err(refused(401, UNKNOWN_STATE, None)),
                Err(NatsError::Occupied) if Instant::now() + pause < deadline => tokio::time::sleep(pause).await,
                Err(NatsError::Occupied) => return Err(refused(503, OCCUPIED, Some(RETRY_AFTER))),
                Err(error) => {
                    warn!("command not queued: {error}");
                    return Err(BackendError::Unavailable);
                }
            }
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
}

/// A command as it goes out: sealed, so that not even its sender can read it back.
fn seal(command: Command, context: &RequestContext) -> Result<Outgoing, BackendError> {
    let credential = context.credential.clone();
    let needed = || refused(401, CREDENTIAL_NEEDED, None);
    let (subject, seal_to, message_id, work) = match command {
        Command::Exchange { state, query, owner, cookies } => {
            let StateOwner { account, integration_id: integration, connection_id: name, return_to: _, seal_to } = owner;
            let key = ConnectionKey { account, integration, name };
            let message_id = callback_id(&state, &query, credential.as_ref(), &cookies);
            let work = Work::Exchange { query, cookies, credential };
            (CommandSubject::connection(&key, Verb::Exchange), seal_to, Some(message_id), work)
        }
        Command::Put { integration, account, seal_to, body } => {
            let config =
                std::str::from_utf8(&body).map_err(|_| refused(400, "the body must be a JSON object", None))?;
            let work = Work::Put { credential: credential.ok_or_else(needed)?, config: Secret::new(config) };
            (CommandSubject::config(integration, account, Verb::Put), seal_to, None, work)
        }
        Command::Delete { integration, account, seal_to } => {
            let work = Work::Delete { credential: credential.ok_or_else(needed)? };
            (CommandSubject::config(integration, account, Verb::Delete), seal_to, None, work)
        }
    };
    let mut outgoing = Outgoing::seal(&subject, work, |order| seal::seal_order(&seal_to, order))
        .map_err(|_| BackendError::Unavailable)?
        .with_ttl(COMMAND_TTL);
    if let Some(message_id) = message_id {
        outgoing = outgoing.with_message_id(&message_id);
    }
    if let Some(traceparent) = &context.traceparent {
        outgoing = outgoing.with_header(HEADER_TRACEPARENT, traceparent);
    }
    Ok(outgoing)
}

/// The same callback again is a duplicate; one that differs in anything is not. So a callback that is refused without
/// using the login up, for want of a code or with a foreign credential, does not keep the right one out.
fn callback_id(state: &Secret, query: &Secret, credential: Option<&Credential>, cookies: &[Cookie]) -> String {
    let credential = credential.map_or("", Credential::expose);
    let cookies = cookies.iter().flat_map(|cookie| [cookie.name.as_str(), cookie.value.expose()]);
    let parts: Vec<&str> = [state.expose(), query.expose(), credential].into_iter().chain(cookies).collect();
    hash_of(&Secret::new(parts.join("\n")))
}

fn refused(status: u16, error: &str, retry_after: Option<u64>) -> BackendError {
    BackendError::Refused { status, error: error.to_owned(), retry_after }
}
