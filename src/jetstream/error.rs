//! Errors of requests to the server, with their causes.

use std::error::Error;
use std::fmt::{self, Debug, Display};

use async_nats::jetstream;
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    ConsumerError, ConsumerErrorKind, DeleteMessageErrorKind, LastRawMessageErrorKind, PurgeErrorKind,
};

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
    /// A message with the same message id has a leader, which the other servers have not confirmed yet (10158). If another
    /// server becomes the leader first, the message is lost. With `after_retry` it may be from an earlier try of this publish.
    #[error("the same message is being stored at this moment")]
    InFlight { after_retry: bool },
    /// The server cannot store or read this now: no space, a limit of the stream, or no leader. The same request may succeed
    /// later.
    #[error("refused by the server for now: {description} ({code})")]
    RefusedForNow { code: u64, description: String },
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

/// Code of a refusal because the stream does not exist.
const NO_STREAM: u64 = 10_059;

/// Codes of refusals that end when space is free again, a leader is elected or a lost stream is restored: limits of the
/// account, the server and the stream (10002, 10023, 10026, 10028, 10047, 10054, 10077), a cluster or stream without a leader
/// (10004, 10007 to 10009, 10039, 10041, 10076, 10118, 10119, 10163, 10194, 10195), too many requests (10167), and no stream
/// (10059).
const FOR_NOW: [u64; 21] = [
    10_002, 10_004, 10_007, 10_008, 10_009, 10_023, 10_026, 10_028, 10_039, 10_041, 10_047, 10_054, NO_STREAM, 10_076,
    10_077, 10_118, 10_119, 10_163, 10_167, 10_194, 10_195,
];

/// A kind of error of the client library that may hold the server's own error.
pub(super) trait ErrorKind: Clone + Debug + Display + PartialEq + Send + Sync + 'static {
    fn refusal(self) -> Option<jetstream::Error>;
}

macro_rules! with_refusal {
    ($($kind:ty),*) => {$(
        impl ErrorKind for $kind {
            fn refusal(self) -> Option<jetstream::Error> {
                if let Self::JetStream(refusal) = self { Some(refusal) } else { None }
            }
        }
    )*};
}
with_refusal!(
    GetStreamErrorKind,
    ConsumerInfoErrorKind,
    ConsumerErrorKind,
    PurgeErrorKind,
    DeleteMessageErrorKind,
    LastRawMessageErrorKind
);

impl NatsError {
    /// For `map_err`: the server's own error, or that the request has no answer.
    pub(super) fn of_request<K: ErrorKind>(request: &'static str) -> impl FnOnce(async_nats::error::Error<K>) -> Self {
        move |error| match error.kind().refusal() {
            Some(refusal) => Self::refused(refusal.error_code().0, refusal.to_string()),
            None => Self::away_because(request)(error),
        }
    }

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

    /// Returns true if the bus is not available or refuses for now, so that the same request may succeed later.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Away(_) | Self::NotSent(_) | Self::InFlight { .. } | Self::RefusedForNow { .. })
    }

    /// Returns true if no server answers, or the stream has no leader: so it is during an election, and while this process
    /// moves to another server.
    pub(crate) fn is_without_leader(&self) -> bool {
        matches!(self, Self::Away(_) | Self::NotSent(_) | Self::RefusedForNow { code: 10_008 | 10_009, .. })
    }

    /// Returns true if the server has answered, and has stored nothing.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::WrongLastSequence
            | Self::Occupied
            | Self::InFlight { .. }
            | Self::RefusedForNow { .. }
            | Self::Refused { .. } => true,
            Self::Away(_) | Self::NotSent(_) | Self::Consumer { .. } | Self::Unreadable(_) => false,
        }
    }

    /// Returns true if the server does not have the stream.
    pub(crate) fn is_missing_stream(&self) -> bool {
        matches!(self, Self::RefusedForNow { code: NO_STREAM, .. })
    }

    /// Returns true if the stream, the account or the disk is full.
    pub(crate) fn is_lack_of_space(&self) -> bool {
        matches!(self, Self::RefusedForNow { code: 10_002 | 10_023 | 10_047 | 10_077, .. })
    }

    /// Sorts a JetStream error by its code.
    pub(super) fn refused(code: u64, description: String) -> Self {
        match code {
            10_071 | 10_164 => Self::WrongLastSequence,
            // The server uses this code for every limit of a stream and tells them apart only by their text.
            10_077 if description.contains("per subject") => Self::Occupied,
            10_158 => Self::InFlight { after_retry: false },
            code if FOR_NOW.contains(&code) => Self::RefusedForNow { code, description },
            code => Self::Refused { code, description },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<K: ErrorKind>(kind: impl FnOnce(jetstream::Error) -> K) {
        let refusal = r#"{"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}"#;
        let refusal = serde_json::from_str(refusal).unwrap();
        let error = NatsError::of_request("cannot ask")(async_nats::error::Error::new(kind(refusal)));
        let text = error.to_string();
        assert!(text.starts_with("refused by the server for now: JetStream system temporarily unavailable"), "{text}");
    }

    #[test]
    fn a_refusal_has_the_servers_own_error() {
        check(GetStreamErrorKind::JetStream);
        check(ConsumerInfoErrorKind::JetStream);
        check(ConsumerErrorKind::JetStream);
        check(PurgeErrorKind::JetStream);
        check(DeleteMessageErrorKind::JetStream);
        check(LastRawMessageErrorKind::JetStream);
        let silent = NatsError::of_request("cannot ask")(async_nats::error::Error::new(PurgeErrorKind::TimedOut));
        assert_eq!(silent.to_string(), "NATS did not answer in time: cannot ask: timed out");
    }
}
