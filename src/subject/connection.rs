//! The key of a connection, and the subjects built from it.

use serde::{Deserialize, Serialize};

use super::{Account, ConnectionName, Integration, NameError, ROOT, tokens};

/// Identifies a connection: what one account holds at one integration under one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionKey {
    /// The account that owns the connection.
    pub account: Account,
    /// The OAuth provider, by the id of its config.
    pub integration: Integration,
    /// The name that the account chose.
    pub name: ConnectionName,
}

impl ConnectionKey {
    /// Validates the three names.
    ///
    /// # Errors
    /// Names the first part that is not valid.
    pub fn parse(account: &str, integration: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self {
            account: Account::parse(account)?,
            integration: Integration::parse(integration)?,
            name: ConnectionName::parse(name)?,
        })
    }

    /// Reads the key from a token subject, such as the subject of a push.
    ///
    /// # Errors
    /// Fails for any other subject.
    pub fn parse_subject(subject: &str) -> Result<Self, NameError> {
        let path = subject.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('.')).ok_or(NameError::Subject)?;
        Self::parse_kv_key(path)
    }

    /// The token subject. Each new state of the connection is published there after it is stored.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{ROOT}.{}", self.kv_key())
    }

    /// Reads the key from the subject of a due refresh.
    pub(crate) fn parse_due(subject: &str) -> Result<Self, NameError> {
        Self::parse_subject(subject.strip_suffix(".refresh.due").ok_or(NameError::Subject)?)
    }

    /// Reads a key of the bucket [`CONNECTIONS`](super::CONNECTIONS).
    #[doc(hidden)]
    pub fn parse_kv_key(key: &str) -> Result<Self, NameError> {
        let [account, integration, name] = tokens(key)?;
        Self::parse(account, integration, name)
    }

    /// Subject to which a worker publishes the record. The stream stores it under [`ConnectionKey::subject`].
    #[must_use]
    #[doc(hidden)]
    pub fn record_subject(&self) -> String {
        format!("oauth.record.{}", self.kv_key())
    }

    /// The key in the bucket [`CONNECTIONS`](super::CONNECTIONS).
    #[must_use]
    #[doc(hidden)]
    pub fn kv_key(&self) -> String {
        let Self { account, integration, name } = self;
        format!("{account}.{integration}.{name}")
    }

    /// Subject to which a worker publishes a scheduled refresh.
    #[must_use]
    pub(crate) fn schedule_at(&self) -> String {
        format!("{ROOT}.{}.refresh.at", self.kv_key())
    }

    /// Subject to which the server publishes the refresh when it is due.
    #[must_use]
    pub(crate) fn schedule_due(&self) -> String {
        format!("{ROOT}.{}.refresh.due", self.kv_key())
    }
}
