//! Whose credential this is. Asked by workers for every call and command; nobody else judges.

pub(crate) mod account;
pub(crate) mod api_key;
pub(crate) mod bearer;
pub(crate) mod cache;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod nats_jwt;
pub(crate) mod ordinary_jwt;
mod signed;

use std::sync::Arc;

use jiff::Timestamp;

use serde::{Deserialize, Serialize};

use self::bearer::Bearers;
use crate::command::{CREDENTIAL_NEEDED, Credential};
use crate::jetstream::{Nats, NatsError};
use crate::signed::SCHEME;
use crate::subject::{Account, CommandSubject};
use crate::system;

/// What whoever is no admin is told where only admins may go on.
pub(crate) const ADMINS_ONLY: &str =
    "only admins may do this: the credential needs the role, its account a place in `auth.admin_accounts`";

/// What a credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What members may, and change configs and API keys, if the account is listed in `auth.admin_accounts`.
    Admin,
    /// Make, read, refresh and delete the account's connections.
    Member,
}

/// A proven caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCaller {
    /// The account that it acts for.
    pub account: Account,
    /// What it may do.
    pub role: Role,
    /// What the audit log calls it (`key:<id>`, `user:<U…>`, `jwt:<sub>`).
    pub actor: String,
}

impl VerifiedCaller {
    /// Whether it may change configs and API keys: its role says so and its account is listed.
    #[must_use]
    pub fn is_admin(&self, admin_accounts: &[Account]) -> bool {
        self.role == Role::Admin && admin_accounts.contains(&self.account)
    }
}

/// Why a caller is not proven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// No credential came.
    #[error("{CREDENTIAL_NEEDED}")]
    Missing,
    /// The credential is not valid: unknown, wrong, expired or revoked. Which of these is not told.
    #[error("the credential is not valid or has expired")]
    Invalid,
    /// It has made as many requests as it may; seconds until the next one.
    #[error("too many requests with this credential; try again in {0} s")]
    Limited(u64),
    /// It cannot be checked now.
    #[error("{0}")]
    Away(#[from] NatsError),
    /// It cannot be checked now, for want of its issuer's keys.
    #[error("the credential cannot be checked now: its issuer's keys are away; try again")]
    NoKeys,
}

/// What a credential came with. A signed request has to be the very one that asks for it.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// A call of the gateway.
    Call {
        /// Its name.
        name: &'a str,
        /// Its body.
        body: &'a [u8],
    },
    /// A command from the queue.
    Command {
        /// What it is about.
        subject: &'a CommandSubject,
        /// Its id.
        id: &'a str,
        /// When it was queued.
        queued: Timestamp,
        /// What it brings: a config as it came, a callback's query, nothing.
        content: &'a [u8],
    },
}

/// Finds out who is calling.
#[derive(Clone)]
pub(crate) struct Authenticator {
    nats: Nats,
    keys: api_key::ApiKeys,
    bearers: Arc<Bearers>,
}

impl Authenticator {
    /// One that knows what is on this bus, and JWTs.
    #[must_use]
    pub(crate) fn new(nats: Nats, bearers: Bearers) -> Self {
        Self { keys: api_key::ApiKeys::new(nats.clone()), nats, bearers: Arc::new(bearers) }
    }

    /// Finds out who is calling.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(crate) async fn authenticate(
        &self,
        credential: &Credential,
        purpose: Purpose<'_>,
    ) -> Result<VerifiedCaller, AuthError> {
        let now = system::now();
        match credential.expose().split_once(' ') {
            Some(("X-Api-Key", key)) => self.keys.authenticate(key, now).await,
            Some(("Bearer", jwt)) => self.bearers.bearer(jwt, purpose, now).await,
            Some((SCHEME, text)) => self.bearers.signed(&self.nats, text, purpose, now).await,
            _ => Err(AuthError::Invalid),
        }
    }

    /// Counts a request of a proven caller.
    ///
    /// # Errors
    /// [`AuthError::Limited`].
    pub(crate) fn admit(&self, caller: &VerifiedCaller) -> Result<(), AuthError> {
        self.keys.admit(&caller.actor).map_err(|wait| AuthError::Limited(wait.as_secs() + 1))
    }

    /// Hears of changed credentials, for as long as it is polled.
    pub(crate) async fn watch(&self) -> std::convert::Infallible {
        self.keys.watch().await
    }
}
