//! The workflow node's side of the bus: a token that stays valid, and the calls it is built on.
//!
//! Both work on a NATS client that the node has connected as a user of its own account. [`TokenSource`] subscribes to the
//! connection's token subject and asks a worker when a push may have been missed; [`call`] makes one call.
//!
//! ```no_run
//! use tokenbus::client::TokenSource;
//! use tokenbus::subject::ConnectionKey;
//!
//! # async fn example(client: async_nats::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let account = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
//! let key = ConnectionKey::parse(account, "acme", "workspace1")?;
//! let mut source = TokenSource::open(client, key).await?;
//! let connection = source.token().await?; // waits until a person has logged in
//! if let Some(token) = &connection.access_token {
//!     println!("a token of {} characters", token.expose().len());
//! }
//! # Ok(())
//! # }
//! ```

mod token_source;

use std::error::Error;
use std::time::Duration;

use async_nats::client::{Request, RequestError, RequestErrorKind};
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use serde_json::Value;

pub use self::token_source::{TokenSource, TokenSourceError};
use crate::command::{HEADER_REASON, HEADER_RETRY_AFTER};
use crate::jetstream::header;
use crate::subject::{Account, NodeCall};

/// Longest wait for an answer. Workers give up a call earlier, so that their error arrives first.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// Tries of a call that changes nothing, which share [`CALL_TIMEOUT`].
const TRIES: u32 = 3;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No worker serves this account's calls: none is running, or the account does not import the service.
    #[error("no worker answers for this account")]
    NoWorker,
    /// The call may have been carried out nevertheless.
    #[error("no answer in time")]
    TimedOut,
    /// The worker refused the call.
    #[error("{error}")]
    Refused {
        /// The status that the same call has over HTTP, such as 404 for an unknown connection.
        status: u16,
        /// Text for people, without secrets.
        error: String,
        /// The code of the failure for programs, such as `config_changed`; only for failures that have one.
        reason: Option<String>,
        /// Seconds to wait before the next try.
        retry_after: Option<u64>,
    },
    /// The call was not sent: the client is closed, or the NATS user may not publish it.
    #[error("the call was not sent: {0}")]
    NotSent(#[source] RequestError),
    /// The answer is not JSON of the expected shape; worker and node may be of different releases.
    #[error("unreadable answer")]
    Unreadable(#[source] Box<dyn Error + Send + Sync>),
}

impl CallError {
    /// Returns true if the integration or the connection does not exist.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// Makes a call and returns the body of the answer, which is the JSON of the HTTP interface.
///
/// Repeats a call for a token or a list that gets no answer, up to three times in all.
///
/// The fields of `question` are `integration_id` and `connection_id`, and by call `scopes`, `min_valid` (seconds),
/// `limit` or `cursor`; docs/subjects.md lists them.
///
/// # Errors
/// After [`CallError::TimedOut`] a refresh or deletion may have been carried out. All other errors mean that it was not.
pub async fn call(client: &Client, account: &Account, call: NodeCall, question: &Value) -> Result<Bytes, CallError> {
    // A worker that is stopped swallows a call. Another one answers the next try, or joins a refresh that is under way.
    let tries = match call {
        NodeCall::Token | NodeCall::List | NodeCall::Failures => TRIES,
        NodeCall::Login | NodeCall::Refresh | NodeCall::Delete => 1,
    };
    let mut answer = Err(CallError::TimedOut);
    for _ in 0..tries {
        answer = ask(client, call.subject(account), question, CALL_TIMEOUT / tries).await;
        if !matches!(answer, Err(CallError::TimedOut)) {
            break;
        }
    }
    answer
}

/// Sends a question to a call's subject and returns the body of the answer.
async fn ask(client: &Client, subject: String, question: &Value, timeout: Duration) -> Result<Bytes, CallError> {
    let request = Request::new().payload(question.to_string().into()).timeout(Some(timeout));
    let answer = client.send_request(subject, request).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => CallError::NoWorker,
        RequestErrorKind::TimedOut => CallError::TimedOut,
        RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::Other => {
            CallError::NotSent(error)
        }
    })?;
    let empty = HeaderMap::new();
    let headers = answer.headers.as_ref().unwrap_or(&empty);
    match header(headers, NATS_SERVICE_ERROR_CODE) {
        "" => Ok(answer.payload),
        code => Err(CallError::Refused {
            status: code.parse().map_err(unreadable)?,
            error: header(headers, NATS_SERVICE_ERROR).to_owned(),
            reason: headers.get(HEADER_REASON).map(|reason| reason.as_str().to_owned()),
            retry_after: header(headers, HEADER_RETRY_AFTER).parse().ok(),
        }),
    }
}

fn unreadable(error: impl Error + Send + Sync + 'static) -> CallError {
    CallError::Unreadable(error.into())
}
