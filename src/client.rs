//! For nodes: the calls of the bus, and a token that keeps itself new. All of it works on a NATS client that the caller
//! has connected, as a user of the account.
//!
//! ```no_run
//! use tokenbus::client::TokenSource;
//! use tokenbus::subject::ConnectionKey;
//!
//! # async fn example(client: async_nats::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let account = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
//! let key = ConnectionKey::parse(account, "slack", "workspace1")?;
//! let mut source = TokenSource::open(client, key).await?;
//! let connection = source.token().await?; // waits until somebody has logged in
//! if let Some(token) = &connection.access_token {
//!     println!("a token of {} characters", token.expose().len());
//! }
//! # Ok(())
//! # }
//! ```

mod token_source;

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use serde_json::Value;

pub use self::token_source::{TokenSource, TokenSourceError};
pub(crate) use self::token_source::{connects, pushed};
use crate::command::HEADER_RETRY_AFTER;
use crate::jetstream::header;
use crate::subject::{Account, NodeCall};

/// How long a call may take: workers end theirs before.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody serves calls, or none of this account, on this bus.
    #[error("no worker answers for this account")]
    NoWorker,
    /// There was no answer in time; what was asked may have happened.
    #[error("no answer in time")]
    TimedOut,
    /// The worker's refusal.
    #[error("{error}")]
    Refused {
        /// HTTP status that stands for it.
        status: u16,
        /// For people; no secret in it.
        error: String,
        /// Seconds after which to ask again.
        retry_after: Option<u64>,
    },
    /// The question could not be sent.
    #[error("the question could not be sent: {0}")]
    NotSent(String),
    /// The answer is not of the known form.
    #[error("the answer is not of the known form")]
    Unreadable,
}

impl CallError {
    /// Whether what was asked for does not exist.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// Makes a call for an account; the fields of `question` are those of the HTTP interface.
///
/// # Errors
/// [`CallError`].
pub async fn call(client: &Client, account: &Account, call: NodeCall, question: &Value) -> Result<Bytes, CallError> {
    let request = Request::new().payload(question.to_string().into()).timeout(Some(PATIENCE));
    let answer = client.send_request(call.subject(account), request).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => CallError::NoWorker,
        RequestErrorKind::TimedOut => CallError::TimedOut,
        RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::Other => {
            CallError::NotSent(error.to_string())
        }
    })?;
    let empty = HeaderMap::new();
    let headers = answer.headers.as_ref().unwrap_or(&empty);
    match header(headers, NATS_SERVICE_ERROR_CODE) {
        "" => Ok(answer.payload),
        code => Err(CallError::Refused {
            status: code.parse().map_err(|_| CallError::Unreadable)?,
            error: header(headers, NATS_SERVICE_ERROR).to_owned(),
            retry_after: header(headers, HEADER_RETRY_AFTER).parse().ok(),
        }),
    }
}
