//! Failures of calls and commands.

use std::str::Utf8Error;

use serde::{Deserialize, Serialize};

use super::session::SessionError;
use crate::command::{BUS_UNAVAILABLE, CHANGED_SINCE, CREDENTIAL_NEEDED};
use crate::jetstream::NatsError;
use crate::login::UNKNOWN_STATE;
use crate::oauth::error::Cause;
use crate::seal::SealError;

/// Help for the person who set up an integration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// What the provider blames.
    pub(crate) cause: Cause,
    /// The value to change, and where.
    #[serde(rename = "hint")]
    pub(crate) text: String,
}

/// A call or command without a result for the caller. The texts go to the caller.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The worker's own answer, without any secret.
    #[error("{error}")]
    Refused {
        status: u16,
        error: String,
        /// The code of the failure, if it has one.
        reason: Option<String>,
        /// Only of a login that a provider refuses.
        hint: Option<Hint>,
        retry_after_seconds: Option<u64>,
    },
    /// Another command is using this login.
    #[error("{UNKNOWN_STATE}")]
    UsedState,
    #[error("{CREDENTIAL_NEEDED}")]
    NoCredential,
    #[error("the body must be a JSON object")]
    NotText(#[from] Utf8Error),
    #[error("another command of the same kind is running for this connection or config; try again")]
    Occupied,
    /// Connected, but no worker listens, or none answers in time.
    #[error("no worker answers; start one on this bus, or read the workers' logs")]
    NoWorker(#[source] NatsError),
    #[error("the message bus is not available")]
    Unavailable(#[from] NatsError),
    #[error("the message bus is not available")]
    Disconnected,
    #[error("the command cannot be sealed for the workers")]
    Seal(#[from] SealError),
    #[error("a worker's answer could not be read")]
    InvalidAnswer(#[source] serde_json::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The gateway did not send the call.
    #[error("too many calls of this client are waiting; try again")]
    Throttled,
    #[error("accepted and still running; look again in a moment")]
    Deadline,
}

impl BackendError {
    /// Returns true if a worker did nothing, and the same call may succeed when it is sent again: no server or no leader of a
    /// stream answered the worker, or the call looked too old.
    pub(super) fn asks_for_another_try(&self) -> bool {
        let reasons = [BUS_UNAVAILABLE, CHANGED_SINCE];
        matches!(self, Self::Refused { status: 503, reason: Some(reason), .. } if reasons.contains(&reason.as_str()))
    }

    /// Returns true if what the call asks for may still be done.
    pub(super) fn may_run(&self) -> bool {
        matches!(
            self,
            Self::Refused { status: 504, .. }
                | Self::NoWorker(NatsError::Away(_))
                | Self::Unavailable(NatsError::Away(_))
                | Self::Deadline
        )
    }

    /// Returns true if a worker did not find what a call names.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
