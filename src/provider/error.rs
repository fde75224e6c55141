mod connect;

use std::error::Error;
use std::fmt;
use std::time::Duration;

pub(crate) use self::connect::{ConnectFailure, Peer};
use super::guard::GuardError;

/// A request without a response. The texts contain nothing of the request and no URL, because a URL may hold secrets.
///
/// After [`Self::Connect`] and the variants before it, the request was not sent. After the variants that follow, it may
/// have reached the provider, so an authorization code in it may be used up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error("cannot set up the HTTP client for providers; check oauth.ca and oauth.proxy")]
    Setup(#[source] Cause),
    /// A header contains a control character.
    #[error("the request has an invalid header")]
    Header(#[from] reqwest::header::InvalidHeaderValue),
    #[error("the provider's address is refused: {0}")]
    Refused(GuardError),
    /// No connection, in time or at all.
    #[error("cannot connect to the provider: {failure}")]
    Connect { failure: ConnectFailure, source: Cause },
    #[error("the provider did not respond in time")]
    Timeout(#[source] Cause),
    #[error("the provider's response is larger than 256 KiB")]
    TooLarge { status: u16, retry_after: Option<Duration> },
    /// The connection broke, or the response is not HTTP.
    #[error("the provider's response broke off or is not HTTP")]
    Protocol(#[source] Cause),
}

/// A library's error. `Debug` omits it, because the libraries print addresses of the internal network.
#[derive(thiserror::Error)]
#[error(transparent)]
pub(crate) struct Cause(Box<dyn Error + Send + Sync>);

impl Cause {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

impl From<reqwest::Error> for Cause {
    fn from(error: reqwest::Error) -> Self {
        Self(Box::new(error.without_url()))
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

impl ProviderError {
    /// For a caller with its own time limit.
    pub(crate) fn timed_out(elapsed: tokio::time::error::Elapsed) -> Self {
        Self::Timeout(Cause::new(elapsed))
    }

    /// True if no connection was opened: nothing of the request was sent, and the next try may succeed.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }

    /// An error before the response's head.
    pub(super) fn from_send(error: reqwest::Error, peer: Peer) -> Self {
        if let Some(refusal) = guard_error(&error) {
            return Self::Refused(refusal);
        }
        match (error.is_connect(), error.is_timeout()) {
            (true, _) => Self::Connect { failure: ConnectFailure::of(&error, peer), source: error.into() },
            (false, true) => Self::Timeout(error.into()),
            (false, false) => Self::Protocol(error.into()),
        }
    }

    /// An error in the response's body.
    pub(super) fn from_body(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout(error.into()) } else { Self::Protocol(error.into()) }
    }
}

/// Finds the guard's error in the chain of causes: its resolver can only return it through the HTTP client.
fn guard_error(error: &reqwest::Error) -> Option<GuardError> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(refusal) = cause.downcast_ref::<GuardError>() {
            return Some(*refusal);
        }
        source = cause.source();
    }
    None
}
