//! Errors of the store.

use std::error::Error;

use crate::jetstream::NatsError;
use crate::protocol::high_water::Backwards;
use crate::seal::{KeyringError, SealError};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error("{what}: {source}")]
    Seal {
        /// Bucket and key, or subject.
        what: String,
        source: SealError,
    },
    /// The delivery took so long that the server has given the command to another worker.
    #[error("another worker has the command by now")]
    DeliveryLost,
    #[error("{what} does not have the known form: {source}")]
    Unreadable {
        /// Bucket and key, or subject.
        what: String,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{what}: `{field}` differs from the sealed value: it was changed by hand")]
    Changed {
        /// Bucket and key.
        what: String,
        field: String,
    },
    /// A key that stored values need is not in the keyring.
    #[error(
        "stored values are sealed with key `{0}`, which is not in the keyring: put it back there after the others, and start again; without it these values cannot be opened"
    )]
    MissingKey(String),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Backwards(#[from] Backwards),
}

impl StoreError {
    /// For `map_err`.
    pub(crate) fn unreadable<E: Into<Box<dyn Error + Send + Sync>>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Unreadable { what: what.into(), source: source.into() }
    }

    /// For `map_err`.
    pub(crate) fn seal(what: impl Into<String>) -> impl FnOnce(SealError) -> Self {
        move |source| Self::Seal { what: what.into(), source }
    }

    /// Returns true if the value at fault was not written by a worker: it is foreign, or was changed or moved. It may be
    /// replaced. A value that is sealed with a missing key is not junk.
    pub(crate) fn is_junk(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Changed { .. } => true,
            Self::Seal { source, .. } => match source {
                SealError::Form | SealError::Encoding(_) | SealError::Forged => true,
                SealError::MissingKey(_) | SealError::TooLarge | SealError::Order(_) | SealError::CurveKey(_) => false,
            },
            Self::Nats(_) | Self::DeliveryLost | Self::MissingKey(_) | Self::Keyring(_) | Self::Backwards(_) => false,
        }
    }

    /// Returns true if a command that failed with this error fails again at each retry, so that it is given up.
    ///
    /// This and [`StoreError::prevents_start`] disagree about a missing key, for a reason. A command can wait on the
    /// queue until an operator puts the key back: the running worker finds it, or rotation re-seals the value. A worker
    /// that starts without the key must not wait in silence, because people watch a start and can act on its error.
    pub(crate) fn is_permanent_for_command(&self) -> bool {
        match self {
            Self::Nats(NatsError::Refused { .. }) | Self::Unreadable { .. } | Self::Changed { .. } => true,
            Self::Nats(_)
            | Self::Seal { .. }
            | Self::MissingKey(_)
            | Self::Keyring(_)
            | Self::Backwards(_)
            | Self::DeliveryLost => false,
        }
    }

    /// Returns true if a worker that fails with this error at its start must end instead of trying again. See
    /// [`StoreError::is_permanent_for_command`] for the difference.
    pub(crate) fn prevents_start(&self) -> bool {
        match self {
            Self::MissingKey(_) | Self::Unreadable { .. } => true,
            Self::Nats(_)
            | Self::Seal { .. }
            | Self::Changed { .. }
            | Self::Keyring(_)
            | Self::Backwards(_)
            | Self::DeliveryLost => false,
        }
    }
}
