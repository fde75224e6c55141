//! Pending logins: kept, found by their state's hash, consumed once.

use async_nats::HeaderMap;

use super::{Store, StoreError, json, parse, seal_error};
use crate::command::HEADER_COMMAND;
use crate::jetstream::{NatsError, header, kv};
use crate::login::PendingLogin;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{self, Account, STATES};
use crate::system;

/// A pending login as it was found.
pub enum FoundLogin {
    /// No such state: never there, or expired.
    Unknown,
    /// Consumed by the command with this id, in the attempt with this message id.
    Used {
        /// The command.
        command_id: String,
        /// The attempt.
        attempt: String,
    },
    /// Waiting for its callback.
    Pending {
        /// Whose it is.
        account: Account,
        /// What was kept.
        login: Box<PendingLogin>,
        /// What its consumption replaces.
        revision: u64,
    },
}

/// Who consumed a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumed {
    /// This attempt: the code may be sent, once.
    ByThisAttempt,
    /// An earlier delivery of the same command: the code may have been sent.
    ByThisCommand,
    /// Another callback.
    ByAnother,
}

impl Store {
    /// Keeps a new login until its callback.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_login(&self, state_hash: &str, account: &Account, login: &PendingLogin) -> Result<(), StoreError> {
        Ok(kv::put(&self.nats, STATES, &subject::state_key(state_hash, account), json(login)?, 0).await.map(drop)?)
    }

    /// Finds a login by its state's hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn login(&self, state_hash: &str) -> Result<FoundLogin, StoreError> {
        let Some(entry) = kv::get(&self.nats, STATES, &subject::state_key_of_any(state_hash)).await? else {
            return Ok(FoundLogin::Unknown);
        };
        let Some(value) = entry.value else {
            let text = |name| header(&entry.headers, name).to_owned();
            return Ok(FoundLogin::Used {
                command_id: text(HEADER_COMMAND),
                attempt: text(async_nats::header::NATS_MESSAGE_ID.as_ref()),
            });
        };
        let account = entry.key.rsplit('.').next().and_then(|account| Account::parse(account).ok());
        let account = account.ok_or_else(|| StoreError::Unreadable(format!("{STATES}/{state_hash}")))?;
        let login = Box::new(parse(STATES, state_hash, &value)?);
        Ok(FoundLogin::Pending { account, login, revision: entry.revision })
    }

    /// Consumes a login: the mark that the attempt to exchange its code began. Gives whether this attempt made it.
    ///
    /// # Errors
    /// [`StoreError`] when the outcome is not known.
    pub async fn consume_login(
        &self,
        state_hash: &str,
        account: &Account,
        revision: u64,
        command_id: &str,
    ) -> Result<Consumed, StoreError> {
        let attempt = system::random_id();
        let mut headers: HeaderMap = crate::jetstream::headers(Some(&attempt));
        headers.insert(HEADER_COMMAND, command_id);
        let key = subject::state_key(state_hash, account);
        let at = kv::At { bucket: STATES, key: &key, replaces: revision };
        match kv::delete(&self.nats, at, headers, bytes::Bytes::new()).await {
            Ok(_) => return Ok(Consumed::ByThisAttempt),
            Err(NatsError::WrongLastSequence | NatsError::InFlight) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(match self.login(state_hash).await? {
            FoundLogin::Used { attempt: by, .. } if by == attempt => Consumed::ByThisAttempt,
            FoundLogin::Used { command_id: by, .. } if by == command_id => Consumed::ByThisCommand,
            FoundLogin::Used { .. } | FoundLogin::Unknown | FoundLogin::Pending { .. } => Consumed::ByAnother,
        })
    }

    /// Seals a PKCE verifier for its login.
    ///
    /// # Errors
    /// [`StoreError::Seal`].
    pub fn seal_verifier(&self, state_hash: &str, verifier: &Secret) -> Result<String, StoreError> {
        self.keyring.seal(verifier_context(state_hash), verifier).map_err(seal_error(STATES, state_hash))
    }

    /// Opens a login's PKCE verifier.
    ///
    /// # Errors
    /// [`StoreError::Seal`].
    pub fn open_verifier(&self, state_hash: &str, sealed: &str) -> Result<Secret, StoreError> {
        self.keyring.open(verifier_context(state_hash), sealed).map_err(seal_error(STATES, state_hash))
    }
}

fn verifier_context(state_hash: &str) -> SealContext<'_> {
    SealContext { bucket: STATES, key: state_hash, field: "code_verifier", sequence: 0, bound_to: "" }
}
