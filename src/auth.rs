//! Whose credential this is. Asked by workers for every call and command; nobody else judges.

pub mod api_key;

use serde::{Deserialize, Serialize};

use crate::command::Credential;
use crate::nats::{Nats, NatsError};
use crate::subject::Account;
use crate::system;

/// What a credential may do beside reading its own account's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May change configs, when its account is listed in `auth.admin_accounts`, too.
    Admin,
    /// May log in and read.
    Member,
}

/// A proven caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account that it acts for.
    pub account: Account,
    /// What it may do.
    pub role: Role,
    /// What the audit log calls it (`key:<id>`).
    pub actor: String,
}

impl Caller {
    /// Whether it may change configs: its role says so and its account is listed.
    #[must_use]
    pub fn is_admin(&self, admin_accounts: &[Account]) -> bool {
        self.role == Role::Admin && admin_accounts.contains(&self.account)
    }
}

/// Why a caller is not proven.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No credential came.
    #[error("a credential is needed: send `X-Api-Key` or `Authorization: Bearer`")]
    Missing,
    /// The credential is not valid: unknown, wrong, expired or revoked. Which of these is not told.
    #[error("the credential is not valid or has expired")]
    Invalid,
    /// It has made as many requests as it may; seconds until the next one.
    #[error("too many requests with this credential; try again in {0} s")]
    Limited(u64),
    /// It cannot be checked now.
    #[error(transparent)]
    Away(#[from] NatsError),
}

/// Finds out who is calling.
#[derive(Clone)]
pub struct Authenticator {
    keys: api_key::Keys,
}

impl Authenticator {
    /// One that knows what is on this bus.
    #[must_use]
    pub fn new(nats: Nats) -> Self {
        Self { keys: api_key::Keys::new(nats) }
    }

    /// Finds out who is calling.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, credential: &Credential) -> Result<Caller, AuthError> {
        match credential.0.expose().split_once(' ') {
            Some(("X-Api-Key", key)) => self.keys.authenticate(key, system::now()).await,
            _ => Err(AuthError::Invalid),
        }
    }
    /// Counts a request of a proven caller.
    ///
    /// # Errors
    /// [`AuthError::Limited`].
    pub fn admit(&self, caller: &Caller) -> Result<(), AuthError> {
        self.keys.admit(&caller.actor).map_err(|wait| AuthError::Limited(wait.as_secs() + 1))
    }

    /// Hears of changed credentials, for as long as it is polled.
    pub async fn watch(&self) -> std::convert::Infallible {
        self.keys.watch().await
    }
}
