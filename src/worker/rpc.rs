//! Calls: questions answered at once from what is kept. The edge's are judged by the credential that came with them,
//! nodes' by the account in their subject; what both may ask is one implementation.

mod change;
mod gateway;
mod keys;
mod list;
mod login;
mod nodes;
mod reads;
pub(crate) mod status;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, error, warn};

use self::status::Failure;
use crate::auth::{AuthError, VerifiedCaller};
use crate::command::WorkerReply;
use crate::connection::{NO_CONFIG, OauthConnection, Status};
use crate::jetstream::{Nats, Patience};
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::{ConnectionKey, ConnectionName, Integration, NodeCall};
use crate::system;
use crate::worker::context::Context;

/// Calls worked on at once by one process.
const CONCURRENCY: usize = 1_024;
/// Of these, calls of one account: some wait for a provider, and others are not to wait with them.
const SHARE: usize = CONCURRENCY / 2;
/// Bytes of a question, which is held until it is answered: room for a refresh token four times.
const QUESTION_BYTES: usize = 64 * 1024;
/// Characters of an error's text: an answer has to fit into a message, and its header into what clients read.
const ERROR_CHARS: usize = 500;
/// The queue group: of all workers, one gets each call.
const QUEUE: &str = "tokenbus";
/// Seconds that a caller should wait after NATS was unavailable, or while too many of its calls run.
const RETRY_AFTER: u64 = 2;
const RETRY_WAIT: Duration = Duration::from_secs(RETRY_AFTER);
/// Pause before calls are served on a new connection.
const ANEW: Duration = Duration::from_millis(100);
/// How long the end of a subscription is waited for.
const UNSUBSCRIBE: Duration = Duration::from_secs(1);

/// Why a call gets no answer but an error.
enum CallError {
    Refused(Failure, String),
    /// Not the caller's fault.
    Store(StoreError),
    /// A refusal as it is.
    Answered(WorkerReply),
}

/// Too much of something, and the seconds until it may be asked for again.
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
        match status::of_auth_error(error) {
            Ok(refusal) => Self::Answered(refusal),
            Err(error) => Self::Store(error),
        }
    }
}

/// The text may name what the caller wrote, however long that is.
fn bad_request(error: impl std::fmt::Display) -> CallError {
    CallError::Refused(Failure::BadRequest, error.to_string().chars().take(ERROR_CHARS).collect())
}

/// Serves all calls until told to stop, then ends those under way and writes down what was read.
///
/// # Errors
/// When a subscription is refused or ends.
pub(crate) async fn serve(context: Arc<Context>, stop: CancellationToken) -> Result<(), async_nats::Error> {
    let edge = apart(&context, "tokenbus worker: calls of gateways", &stop, gateway::serve);
    let nodes = apart(&context, "tokenbus worker: calls of nodes", &stop, nodes::serve);
    let sums = async {
        reads::run(&context, stop.clone()).await;
        Ok(())
    };
    let ended = tokio::try_join!(edge, nodes, sums);
    reads::flush(&context).await;
    ended.map(drop)
}

/// Serves calls on a connection of their own, and on another one when that is lost: callers can write headers at which
/// the client library ends a connection, or gives up. What they end is theirs alone.
async fn apart<S>(
    context: &Arc<Context>,
    name: &str,
    stop: &CancellationToken,
    serve: impl Fn(Nats, Arc<Context>, CancellationToken) -> S,
) -> Result<(), async_nats::Error>
where
    S: Future<Output = Result<(), async_nats::Error>>,
{
    loop {
        let nats = Nats::connect(&context.config.nats, name, Patience::Forever).await?;
        match serve(nats.clone(), Arc::clone(context), stop.clone()).await {
            Ok(()) => {
                // The last answers are still on their way.
                drop(tokio::time::timeout(UNSUBSCRIBE, nats.client().flush()).await);
                return Ok(());
            }
            Err(_) if stop.is_cancelled() => return Ok(()),
            Err(error) => warn!("{name} broke off: {error}; serving them on a new connection"),
        }
        tokio::time::sleep(ANEW).await;
    }
}

/// What the caller is told; the rest goes to the log.
fn told(span: &Span, done: Result<Value, CallError>) -> WorkerReply {
    let answer = match done {
        Ok(body) => WorkerReply::ok(body),
        Err(CallError::Refused(failure, text)) => failure.answer(&text),
        Err(CallError::Answered(answer)) => answer,
        Err(CallError::Store(StoreError::Nats(error))) if error.is_unavailable() => {
            span.in_scope(|| warn!("{error}"));
            Failure::Unavailable.answer_after("the message bus is not available; try again", RETRY_WAIT)
        }
        Err(CallError::Store(error)) => {
            span.in_scope(|| error!("{error}"));
            Failure::Unreadable
                .answer("what is stored cannot be read; an operator finds the reason in the worker's log")
        }
    };
    span.in_scope(|| debug!(status = answer.status, "answered"));
    answer
}

/// The error in an answer's body, fit for a header: it may name what a caller wrote, which may be long, and a header has
/// no line breaks.
fn error_text(body: &Value) -> String {
    let text = body.get("error").and_then(Value::as_str).unwrap_or_default();
    text.chars().take(ERROR_CHARS).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// What nodes and the edge may ask alike. Whatever token goes out is counted here.
async fn carry_out(
    context: &Context,
    caller: &VerifiedCaller,
    call: NodeCall,
    body: &[u8],
) -> Result<Value, CallError> {
    let Some(_place) = context.limits.calls.take(&caller.account, SHARE) else {
        return Err(too_many("too many calls of this account are under way; try again", RETRY_AFTER));
    };
    let answer = match call {
        NodeCall::Login => login::begin(context, caller, parse(body)?).await,
        NodeCall::Token => token(context, caller, &parse(body)?).await,
        NodeCall::Refresh => {
            let question: ConnectionQuestion = parse(body)?;
            change::refresh(context, caller, &question.key(caller), question.refresh_token.as_ref()).await
        }
        NodeCall::Delete => change::delete(context, caller, &parse::<ConnectionQuestion>(body)?.key(caller)).await,
        NodeCall::List => list::connections(context, caller, parse(body)?).await,
    }?;
    reads::count(context, caller, &answer).await?;
    Ok(answer)
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, CallError> {
    if body.len() > QUESTION_BYTES {
        return Err(CallError::Refused(Failure::TooLarge, format!("a question has at most {QUESTION_BYTES} bytes")));
    }
    serde_json::from_slice(body).map_err(|error| bad_request(without_values(&error.to_string())))
}

/// What was wrong, without the value that was: it may be a secret in the wrong place, and errors of nodes' calls are in
/// the service's statistics, for people who are to see none.
fn without_values(error: &str) -> String {
    let kinds = ["invalid type", "invalid value", "unknown variant"];
    let Some(kind) = kinds.into_iter().find(|kind| error.starts_with(kind)) else { return error.to_owned() };
    let expected = error.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
    format!("{kind}, expected {expected}")
}

fn no_config() -> CallError {
    CallError::Refused(Failure::NotFound, "no config with that integration_id".to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionQuestion {
    integration_id: Integration,
    connection_id: ConnectionName,
    /// Seconds that the token has to be good for.
    #[serde(default)]
    min_valid: Option<u32>,
    #[serde(default)]
    refresh_token: Option<Secret>,
}

impl ConnectionQuestion {
    fn key(&self, caller: &VerifiedCaller) -> ConnectionKey {
        let (integration, name) = (self.integration_id.clone(), self.connection_id.clone());
        ConnectionKey { account: caller.account.clone(), integration, name }
    }
}

/// The connection, refreshed first when it ends soon. While a refresh fails, the old token is served as long as it is
/// good.
async fn token(context: &Context, caller: &VerifiedCaller, question: &ConnectionQuestion) -> Result<Value, CallError> {
    let key = question.key(caller);
    let connection = read(context, &key).await?;
    let usual = context.config.refresh.min_valid.map(|wish| connection.min_valid_default(wish));
    let min_valid = question.min_valid.map(|seconds| Duration::from_secs(seconds.into())).or(usual);
    let is_paused = connection.status_reason.as_deref() == Some(NO_CONFIG);
    if !connection.is_kept_alive() || is_paused || !connection.is_near_expiry(system::now(), min_valid) {
        return Ok(json!(connection));
    }
    match change::refresh(context, caller, &key, None).await {
        Err(refused @ (CallError::Refused(..) | CallError::Answered(_))) => {
            // As it is now: with the old token while that is good, or with a status that says why not.
            let connection = read(context, &key).await?;
            let is_good =
                connection.status != Status::Active || connection.expiry.is_none_or(|expiry| expiry > system::now());
            let is_limited = matches!(&refused, CallError::Answered(answer) if status::is_rate_limited(answer));
            if is_good {
                Ok(json!(connection))
            } else if is_limited {
                Err(refused)
            } else {
                Err(CallError::Refused(
                    Failure::Unreadable,
                    "the token has expired and cannot be refreshed at the moment".to_owned(),
                ))
            }
        }
        refreshed => refreshed,
    }
}

/// The connection, which says so when it is not refreshed because its integration has no config.
async fn read(context: &Context, key: &ConnectionKey) -> Result<OauthConnection, CallError> {
    let store = &context.store;
    let (connection, config) = tokio::join!(store.connection(key), store.has_config(&key.integration));
    let mut connection = connection?.ok_or_else(no_connection)?;
    // A token is worth more than the word about it: while that cannot be had, all is taken to be well.
    explain(&mut connection, config.unwrap_or(true));
    Ok(connection)
}

/// Says in the connection whether it is paused for want of a config.
fn explain(connection: &mut OauthConnection, has_config: bool) {
    let is_paused = connection.status_reason.as_deref() == Some(NO_CONFIG);
    if connection.is_kept_alive() && has_config == is_paused {
        connection.status_reason = (!has_config).then(|| NO_CONFIG.to_owned());
    }
    // Nobody can bring a new one: then it is as with a connection that needs reauthorization.
    if !has_config && connection.expiry.is_some_and(|expiry| expiry <= system::now()) {
        connection.access_token = None;
    }
}

fn no_connection() -> CallError {
    CallError::Refused(Failure::NotFound, "no connection with that integration_id and connection_id".to_owned())
}
