//! The calls of nodes, and what a tenant receives: subjects that carry the account, which the bus vouches for.

use super::{Account, ConnectionKey, NameError, ROOT, tokens};

/// What a node may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeCall {
    /// A connection with its access token.
    Token,
    /// The account's connections.
    List,
    /// A URL for a person to log in at.
    Login,
    /// A new access token.
    Refresh,
    /// To revoke and delete a connection.
    Delete,
}

impl NodeCall {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Token, Self::List, Self::Login, Self::Refresh, Self::Delete];

    /// The last token of the call's subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::List => "list",
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Delete => "delete",
        }
    }

    /// The call of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.as_str() == name)
    }

    /// Its subject, whoever asks.
    #[must_use]
    pub fn filter(self) -> String {
        format!("ms.oauth.*.{}", self.as_str())
    }

    /// Its subject for one account.
    #[must_use]
    pub fn subject(self, account: &Account) -> String {
        format!("ms.oauth.{account}.{}", self.as_str())
    }

    /// The account that a call's subject names. The bus lets nobody but that account publish there.
    ///
    /// # Errors
    /// [`NameError`] when it is another subject, or the account is none.
    pub fn account_of(self, subject: &str) -> Result<Account, NameError> {
        let path = subject.strip_prefix("ms.oauth.").ok_or(NameError::Subject)?;
        let [account, call] = tokens(path)?;
        if call == self.as_str() { Account::parse(account) } else { Err(NameError::Subject) }
    }
}

/// One account's connection records, as they are sent out.
#[must_use]
pub fn tokens_of(account: &Account) -> String {
    format!("{ROOT}.{account}.*.*")
}

/// One account's events.
#[must_use]
pub fn events_of(account: &Account) -> String {
    format!("ms.oauth.{account}.event.*.*.*")
}

/// One connection's events.
#[must_use]
pub fn events_about(key: &ConnectionKey) -> String {
    let ConnectionKey { account, integration, name } = key;
    format!("ms.oauth.{account}.event.{integration}.{name}.*")
}
