//! Pending logins, stored under the hash of their state until the callback or `oauth.login_ttl`.
//!
//! A login is consumed once: its entry is replaced by a deletion marker that holds the id of the consuming command and
//! names the connection.
//! Only the attempt that stored the marker may send the authorization code. A later delivery of the same command finds
//! its own id and knows that the code may have been sent.

use async_nats::HeaderMap;

use super::{Store, StoreError, json, parse};
use crate::command::HEADER_COMMAND;
use crate::jetstream::header;
use crate::jetstream::kv::{self, Entry, Swapped, Write};
use crate::login::{ConsumedLogin, PendingLogin};
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{self, Account, STATES};

pub(crate) enum FoundLogin {
    /// The state was never given out, or has expired.
    Unknown,
    Used {
        account: Account,
        /// Id of the command that consumed the login.
        command_id: String,
        /// Missing in markers of earlier releases.
        login: Option<ConsumedLogin>,
    },
    Pending {
        account: Account,
        login: Box<PendingLogin>,
        /// For [`Store::consume_login`].
        revision: u64,
    },
}

/// The consumer of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consumer {
    /// The code may be sent, once.
    ThisDelivery,
    /// An earlier delivery of the same command: the code may have been sent.
    ThisCommand,
    /// Another callback.
    Another,
}

impl Store {
    pub(crate) async fn put_login(
        &self,
        state_hash: &str,
        account: &Account,
        login: &PendingLogin,
    ) -> Result<(), StoreError> {
        Ok(kv::create(&self.nats, STATES, &subject::state_key(state_hash, account), json(login)?).await?)
    }

    pub(crate) async fn login(&self, state_hash: &str) -> Result<FoundLogin, StoreError> {
        let Some(entry) = kv::get(&self.nats, STATES, &subject::state_key_of_any(state_hash)).await? else {
            return Ok(FoundLogin::Unknown);
        };
        let account = entry.key.rsplit('.').next().unwrap_or_default();
        let account = Account::parse(account).map_err(StoreError::unreadable(format!("{STATES}/{state_hash}")))?;
        let Some(value) = &entry.value else {
            let command_id = consuming_command(&entry).to_owned();
            return Ok(FoundLogin::Used { account, command_id, login: serde_json::from_slice(&entry.payload).ok() });
        };
        let login = Box::new(parse(STATES, state_hash, value)?);
        Ok(FoundLogin::Pending { account, login, revision: entry.revision })
    }

    /// Consumes a login for an attempt to exchange its code. At most one attempt gets [`Consumer::ThisDelivery`].
    ///
    /// # Errors
    /// If the outcome is unknown. The login may then be consumed.
    pub(crate) async fn consume_login(
        &self,
        state_hash: &str,
        account: &Account,
        login: &PendingLogin,
        revision: u64,
        command_id: &str,
    ) -> Result<Consumer, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_COMMAND, command_id);
        let key = subject::state_key(state_hash, account);
        let at = kv::At { bucket: STATES, key: &key, replaces: revision };
        Ok(match kv::swap(&self.nats, at, Write::Delete { headers, body: json(&login.consumed())? }).await? {
            Swapped::Done => Consumer::ThisDelivery,
            Swapped::Lost(Some(entry)) if entry.value.is_none() && consuming_command(&entry) == command_id => {
                Consumer::ThisCommand
            }
            Swapped::Lost(_) => Consumer::Another,
        })
    }

    pub(crate) fn seal_verifier(&self, state_hash: &str, verifier: &Secret) -> Result<String, StoreError> {
        self.keyring
            .seal(seal_context(state_hash), verifier)
            .map_err(StoreError::seal(format!("{STATES}/{state_hash}")))
    }

    /// Opens the PKCE verifier. Call this before the login is consumed, so that a key that is missing for a moment costs
    /// no login.
    pub(crate) fn open_verifier(&self, state_hash: &str, sealed: &str) -> Result<Secret, StoreError> {
        self.keyring.open(seal_context(state_hash), sealed).map_err(StoreError::seal(format!("{STATES}/{state_hash}")))
    }
}

/// Id of the command that consumed a login, from the deletion marker.
fn consuming_command(entry: &Entry) -> &str {
    header(&entry.headers, HEADER_COMMAND)
}

fn seal_context(state_hash: &str) -> SealContext<'_> {
    SealContext { bucket: STATES, key: state_hash, field: "code_verifier", sequence: 0, bound_to: "" }
}
