//! Calls: requests with an answer that are not stored.
//!
//! A gateway's call is authenticated by the credential that it carries, a node's by the account in its subject, and the
//! admin's by its subject, which the bus guarantees. Calls that gateways and nodes may make have one implementation
//! ([`answer_call`]).
//!
//! Calls of gateways, of nodes and of the admin arrive on connections of their own, without headers
//! ([`crate::jetstream::receiver`]): nothing that a caller writes can end them. Answers go out on the worker's ordinary
//! connection.

mod admin;
mod call_ids;
mod change;
mod failures;
mod gateway;
mod keys;
mod list;
mod login;
mod micro;
mod nodes;
mod outcome;
mod providers;
mod reads;
mod running;
mod sealed;
pub(crate) mod status;
mod token;

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, error, warn};

use self::call_ids::{CallIds, Checked};
use self::running::{Arrived, Running};

use self::status::Failure;
use crate::auth::{AuthError, VerifiedCaller};
use crate::command::{BUS_UNAVAILABLE, WorkerReply};
use crate::jetstream::ConnectError;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::{ConnectionKey, ConnectionName, Integration, NodeCall};
use crate::worker::context::{Busy, Context};

/// Largest question in bytes: four times the largest refresh token. A question stays in memory until its answer.
const QUESTION_BYTES: usize = 64 * 1024;
/// Longest error text in characters. It is sent in a header too, and may quote the caller's input.
const ERROR_CHARS: usize = 500;
/// Queue group of all workers: each call reaches one of them.
const QUEUE: &str = "tokenbus";
/// Time that a caller should wait after NATS was unavailable, or while too many calls wait.
const RETRY_WAIT: Duration = Duration::from_secs(2);
/// Longest wait at shutdown for the last answers to be sent. While NATS is unavailable they cannot be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Text for callers while NATS lacks a stream.
const STORE_LOST: &str =
    "NATS came back without the data of tokenbus; an operator finds more at `/readyz` and in the worker's log";
/// Longest trace context in characters.
const TRACE_CHARS: usize = 64;

/// Why a call fails.
enum CallError {
    Refused(Failure, String),
    /// A failure of the store or of NATS, which the caller cannot change.
    Store(StoreError),
    /// A complete answer, such as the refusal of a command.
    Answered(WorkerReply),
}

impl CallError {
    fn is_missing(&self) -> bool {
        match self {
            Self::Refused(failure, _) => *failure == Failure::NotFound,
            Self::Answered(answer) => answer.status == Failure::NotFound.status(),
            Self::Store(_) => false,
        }
    }
}

impl From<Busy> for CallError {
    fn from(Busy: Busy) -> Self {
        Self::Answered(busy())
    }
}

/// Builds the answer of a worker that has too many calls.
fn busy() -> WorkerReply {
    Failure::Busy.answer_after("this worker has too many calls; try again", RETRY_WAIT)
}

/// Builds a 429 with the seconds to wait.
fn too_many(text: &str, seconds: u64) -> CallError {
    CallError::Answered(Failure::RateLimited.answer_after(text, Duration::from_secs(seconds)))
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<AuthError> for CallError {
    fn from(error: AuthError) -> Self {
        match status::answer_to_auth_error(error) {
            Ok(refusal) => Self::Answered(refusal),
            Err(error) => Self::Store(error),
        }
    }
}

/// Builds a 400. Truncates the text, which may quote the caller's input.
fn bad_request(error: impl std::fmt::Display) -> CallError {
    CallError::Refused(Failure::BadRequest, error.to_string().chars().take(ERROR_CHARS).collect())
}

/// Serves calls until `stop`, then finishes the running ones and stores the sums of reads.
pub(crate) async fn serve(context: Arc<Context>, stop: CancellationToken) -> Result<(), ConnectError> {
    let sums = async {
        reads::run(&context, stop.clone()).await;
        Ok(())
    };
    let gateways = gateway::serve(Arc::clone(&context), stop.clone());
    let admin = admin::serve(Arc::clone(&context), stop.clone());
    let ended = tokio::try_join!(gateways, nodes::serve(Arc::clone(&context), stop.clone()), admin, sums);
    reads::flush(&context).await;
    // The last answers must leave before the connection is dropped.
    drop(tokio::time::timeout(FLUSH_TIMEOUT, context.nats.client().flush()).await);
    ended.map(drop)
}

/// Sends an answer. It may get lost; the caller then stops waiting at its own deadline.
async fn send(context: &Context, reply: String, headers: HeaderMap, payload: Bytes) {
    if let Err(error) = context.nats.send_answer(reply, headers, payload).await {
        warn!("answer to a call not sent: {error}");
    }
}

/// Returns the part of a trace context that logs show.
fn shortened(traceparent: &str) -> String {
    traceparent.chars().take(TRACE_CHARS).collect()
}

/// Logs the outcome of a call and builds its answer. Details of failures go to the log only.
fn log_and_build_answer(span: &Span, done: Result<Value, CallError>) -> WorkerReply {
    let answer = match done {
        Ok(body) => WorkerReply::ok(body),
        Err(CallError::Refused(failure, text)) => failure.answer(&text),
        Err(CallError::Answered(answer)) => answer,
        Err(CallError::Store(StoreError::Nats(error))) if error.is_missing_stream() => {
            span.in_scope(|| error!("{error}"));
            Failure::Unavailable.answer_after(STORE_LOST, RETRY_WAIT)
        }
        Err(CallError::Store(StoreError::Nats(error))) if error.is_unavailable() => {
            span.in_scope(|| warn!("{error}"));
            let answer = Failure::Unavailable.answer_after("the message bus is not available; try again", RETRY_WAIT);
            answer.with_reason(BUS_UNAVAILABLE)
        }
        Err(CallError::Store(error)) => {
            span.in_scope(|| error!("{error}"));
            Failure::Unreadable
                .answer("a stored value cannot be read; an operator finds the reason in the worker's log")
        }
    };
    span.in_scope(|| debug!(status = answer.status, "answered"));
    answer
}

/// Returns a text of an answer's body in a form that a header can carry: truncated, without control characters.
fn text_of(body: &Value, field: &str) -> String {
    let text = body.get(field).and_then(Value::as_str).unwrap_or_default();
    text.chars().take(ERROR_CHARS).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// Answers a call that gateways and nodes share. All answers with tokens pass here, so tokens that the caller's scopes
/// don't show are removed here, and reads are counted here.
async fn answer_call(context: &Context, checked: Checked<'_>, call: NodeCall, body: &[u8]) -> Result<Value, CallError> {
    let Checked { caller, ids: _, permit: _ } = checked;
    let mut answer = match call {
        NodeCall::Login => login::begin(context, checked, parse(body)?).await,
        NodeCall::Token => token::token(context, checked, &parse(body)?).await,
        NodeCall::Refresh => {
            let question: ConnectionQuestion = parse(body)?;
            let key = question.key(caller);
            change::refresh(context, checked, &key, question.refresh_token.as_ref(), question.began).await
        }
        NodeCall::Delete => change::delete(context, checked, parse(body)?).await,
        NodeCall::List => list::connections(context, caller, parse(body)?).await,
        NodeCall::Failures => failures::list(context, &caller.account, &parse(body)?).await,
    }?;
    caller.rights.scopes.hide_tokens(&mut answer);
    reads::count(context, caller, &answer).await?;
    Ok(answer)
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, CallError> {
    if body.len() > QUESTION_BYTES {
        return Err(CallError::Refused(Failure::TooLarge, format!("a question has at most {QUESTION_BYTES} bytes")));
    }
    // Derived parsers read the fields of an object from an array too, in the order of their declaration.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(bad_request("a question is a JSON object, not an array"));
    }
    serde_json::from_slice(body).map_err(|error| bad_request(remove_values(&error.to_string())))
}

/// Removes the caller's value from serde's error text. The value may be a secret in the wrong field, and errors of nodes'
/// calls appear in the micro service's statistics.
fn remove_values(error: &str) -> String {
    let kinds = ["invalid type", "invalid value", "unknown variant"];
    let Some(kind) = kinds.into_iter().find(|kind| error.starts_with(kind)) else { return error.to_owned() };
    let expected = error.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
    format!("{kind}, expected {expected}")
}

/// Refuses a call that was sent again, by another than its sender.
fn replayed() -> CallError {
    CallError::Refused(Failure::BadRequest, "this call was made before".to_owned())
}

fn no_config() -> CallError {
    CallError::Refused(Failure::NotFound, "no config with that integration_id".to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionQuestion {
    integration_id: Integration,
    connection_id: ConnectionName,
    /// Seconds that the token must stay valid.
    #[serde(default)]
    min_valid: Option<u32>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    /// Of a later try: the bus's time at which the call was first made, in milliseconds since 1970.
    #[serde(default)]
    began: Option<i64>,
}

impl ConnectionQuestion {
    fn key(&self, caller: &VerifiedCaller) -> ConnectionKey {
        let (integration, name) = (self.integration_id.clone(), self.connection_id.clone());
        ConnectionKey { account: caller.account.clone(), integration, name }
    }
}

fn no_connection() -> CallError {
    CallError::Refused(Failure::NotFound, "no connection with that integration_id and connection_id".to_owned())
}
