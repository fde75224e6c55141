//! Errors of requests to the server, with their causes.

use std::error::Error;
use std::fmt;

use async_nats::jetstream::stream::ConsumerError;

/// An error of the client library, whichever of its many types.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// Failed request to the server.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// No answer in time: the request may have been carried out.
    #[error("NATS did not answer in time: {0}")]
    Away(#[source] Unavailable),
    /// Not connected, or no service listens on the subject: the request has not been carried out.
    #[error("not sent to NATS: {0}")]
    NotSent(#[source] Unavailable),
    /// The expected last sequence is not the newest (10071, 10164).
    #[error("another writer was first")]
    WrongLastSequence,
    /// The subject already holds a message, and holds one at most (10077).
    #[error("subject is occupied")]
    Occupied,
    /// The server is still storing an earlier message with the same message id (10158).
    #[error("the same message is being stored at this moment")]
    InFlight,
    /// Any other JetStream error.
    #[error("refused by the server: {description} ({code})")]
    Refused { code: u64, description: String },
    /// A consumer could not be created.
    #[error("consumer {name}: {source}")]
    Consumer { name: String, source: ConsumerError },
    /// An answer or a stored value does not have its known form.
    #[error("unreadable answer from the server: {0}")]
    Unreadable(#[source] Cause),
}

/// A request that failed, with its cause.
#[derive(Debug)]
pub struct Unavailable {
    request: &'static str,
    cause: Option<Cause>,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}: {cause}", self.request),
            None => f.write_str(self.request),
        }
    }
}

impl Error for Unavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl NatsError {
    pub(crate) fn away(request: &'static str) -> Self {
        Self::Away(Unavailable { request, cause: None })
    }

    /// For `map_err`.
    pub(crate) fn away_because<E: Into<Cause>>(request: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::Away(Unavailable { request, cause: Some(cause.into()) })
    }

    pub(crate) fn not_sent(request: &'static str) -> Self {
        Self::NotSent(Unavailable { request, cause: None })
    }

    /// For `map_err`.
    pub(crate) fn not_sent_because<E: Into<Cause>>(request: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::NotSent(Unavailable { request, cause: Some(cause.into()) })
    }

    /// For `map_err`.
    pub(crate) fn unreadable(cause: impl Into<Cause>) -> Self {
        Self::Unreadable(cause.into())
    }

    /// Returns true if the bus is not available, so that the same request may succeed later.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Away(_) | Self::NotSent(_))
    }

    /// Returns true if the stream, the account or the disk is full.
    pub(super) fn is_lack_of_space(&self) -> bool {
        matches!(self, Self::Refused { code: 10_002 | 10_023 | 10_047 | 10_077, .. })
    }

    /// Sorts a JetStream error by its code.
    pub(super) fn refused(code: u64, description: String) -> Self {
        match code {
            10_071 | 10_164 => Self::WrongLastSequence,
            // The server uses this code for every limit of a stream and tells them apart only by their text.
            10_077 if description.contains("per subject") => Self::Occupied,
            10_158 => Self::InFlight,
            code => Self::Refused { code, description },
        }
    }
}
