//! Authentication of callers. Only workers authenticate: they check every call and every command with the credential
//! that it carries, and trust nothing that a gateway says about the caller.
//!
//! Credentials are API keys, JWTs as bearer tokens, and requests signed by NATS users. A caller learns only that its
//! credential was rejected; the [`rejection`] goes to the worker's log.

pub(crate) mod account;
pub(crate) mod api_key;
pub(crate) mod bearer;
pub(crate) mod cache;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod nats_jwt;
pub(crate) mod ordinary_jwt;
mod rejection;
mod signed;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use self::api_key::ApiKeys;
use self::bearer::Bearers;
use self::jwks::NoKeys;
use self::rejection::{Reason, Rejection};
use crate::call::Call;
use crate::command::{CREDENTIAL_NEEDED, Credential};
use crate::jetstream::{Nats, NatsError};
use crate::signed::SCHEME;
use crate::subject::{Account, CommandSubject};
use crate::system;

/// Error text for a caller that needs to be an admin and isn't.
pub(crate) const ADMINS_ONLY: &str =
    "only admins may do this: the credential needs the role `admin`, and its account must be in `auth.admin_accounts`";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May do what members may, and change configs and API keys if the account is listed in `auth.admin_accounts`.
    Admin,
    /// May create, read, refresh and delete the account's connections.
    Member,
}

/// A caller whose credential was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCaller {
    pub account: Account,
    pub role: Role,
    /// Name in the audit log (`key:<id>`, `user:<U…>`, `jwt:<sub>`).
    pub actor: String,
}

impl VerifiedCaller {
    /// Returns true if the caller may change configs and API keys.
    #[must_use]
    pub fn is_admin(&self, admin_accounts: &[Account]) -> bool {
        self.role == Role::Admin && admin_accounts.contains(&self.account)
    }
}

/// Failed authentication.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("{CREDENTIAL_NEEDED}")]
    Missing,
    /// The text is the same for every reason, so that a caller who tries credentials learns nothing.
    #[error("the credential is not valid or has expired")]
    Rejected(#[source] Rejection),
    #[error("too many requests with this credential; try again in {retry_after_seconds} s")]
    Limited { retry_after_seconds: u64 },
    /// Nothing is known about the credential, because the bus is not available.
    #[error(transparent)]
    Bus(#[from] NatsError),
    /// Nothing is known about the credential, because its issuer's keys are not available.
    #[error("the credential cannot be checked now, because its issuer's keys cannot be fetched; try again")]
    NoKeys(#[from] NoKeys),
}

impl From<Rejection> for AuthError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Reason> for AuthError {
    fn from(reason: Reason) -> Self {
        Self::Rejected(reason.into())
    }
}

/// The call or command that carries the credential. A signed request must be signed for exactly this.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Call {
        call: Call,
        body: &'a [u8],
    },
    Command {
        subject: &'a CommandSubject,
        id: &'a str,
        queued: Timestamp,
        /// The config as it came, the callback's query, or nothing.
        content: &'a [u8],
    },
}

#[derive(Clone)]
pub(crate) struct Authenticator {
    nats: Nats,
    keys: ApiKeys,
    bearers: Arc<Bearers>,
}

impl Authenticator {
    #[must_use]
    pub(crate) fn new(nats: Nats, bearers: Bearers) -> Self {
        Self { keys: ApiKeys::new(nats.clone()), nats, bearers: Arc::new(bearers) }
    }

    pub(crate) async fn authenticate(
        &self,
        credential: &Credential,
        purpose: Purpose<'_>,
    ) -> Result<VerifiedCaller, AuthError> {
        let now = system::now();
        match credential.expose().split_once(' ') {
            Some(("X-Api-Key", key)) => self.keys.authenticate(key, now).await,
            Some(("Bearer", jwt)) => self.bearers.bearer(jwt, purpose, now).await.inspect_err(log_rejection),
            Some((SCHEME, text)) => {
                self.bearers.signed(&self.nats, text, purpose, now).await.inspect_err(log_rejection)
            }
            _ => Err(Reason::Scheme.into()),
        }
    }

    /// Counts a request against the caller's rate limit.
    ///
    /// # Errors
    /// [`AuthError::Limited`] if the limit is reached.
    pub(crate) fn admit(&self, caller: &VerifiedCaller) -> Result<(), AuthError> {
        self.keys.admit(&caller.actor).map_err(|wait| AuthError::Limited { retry_after_seconds: wait.as_secs() + 1 })
    }

    /// Follows changes of API keys. While this future is not polled, each key is read from the bus at each use.
    pub(crate) async fn watch(&self) -> std::convert::Infallible {
        self.keys.watch().await
    }
}

/// Logs the reason without its cause: a parser's message quotes the JWT.
fn log_rejection(error: &AuthError) {
    if let AuthError::Rejected(rejection) = error {
        info!(reason = %rejection, "credential rejected");
    }
}
