//! Subjects of calls and events. Those of nodes carry the account; the bus enforces that it is the caller's own.

use super::{Account, ConnectionKey, ConnectionName, Integration, NameError, ROOT, tokens};

/// Prefix of questions about micro services.
const SERVICES: &str = "$SRV";

/// A call that a node makes to a worker, with [`client::call`](crate::client::call).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeCall {
    /// Returns a connection with its access token, refreshed first if it expires soon.
    Token,
    /// Lists the account's connections.
    List,
    /// Returns a URL at which a person can log in.
    Login,
    /// Refreshes the access token and returns the connection.
    Refresh,
    /// Revokes and deletes a connection.
    Delete,
    /// Returns the last failures of a connection.
    Failures,
}

impl NodeCall {
    /// All calls.
    pub const ALL: [Self; 6] = [Self::Token, Self::List, Self::Login, Self::Refresh, Self::Delete, Self::Failures];

    /// The last token of the call's subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::List => "list",
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Delete => "delete",
            Self::Failures => "failures",
        }
    }

    /// The subject of this call for one account.
    #[must_use]
    pub fn subject(self, account: &Account) -> String {
        node_call(account, self.as_str())
    }

    /// The subject of this call for all accounts.
    pub(crate) fn filter(self) -> String {
        format!("ms.oauth.*.{}", self.as_str())
    }

    /// Returns the call that a subject ends with, and the text in the place of its account. Takes a fraction of the time of
    /// [`NodeCall::account_of`], which checks that text.
    pub(crate) fn split_subject(subject: &str) -> Option<(Self, &str)> {
        let (account, name) = subject.strip_prefix("ms.oauth.")?.split_once('.')?;
        Some((Self::ALL.into_iter().find(|call| call.as_str() == name)?, account))
    }

    /// Returns the account that a call's subject names. It is the caller's: the bus lets only that account publish there.
    pub(crate) fn account_of(self, subject: &str) -> Result<Account, NameError> {
        let path = subject.strip_prefix("ms.oauth.").ok_or(NameError::Subject)?;
        let [account, call] = tokens(path)?;
        if call == self.as_str() { Account::parse(account) } else { Err(NameError::Subject) }
    }
}

/// Filter of all token subjects of one account.
#[must_use]
pub fn tokens_of(account: &Account) -> String {
    format!("{ROOT}.{account}.*.*")
}

/// Filter of all audit events of one account.
#[must_use]
pub fn events_of(account: &Account) -> String {
    format!("ms.oauth.{account}.event.*.*.*")
}

/// Filter of the audit events about one connection.
#[must_use]
pub fn events_about(key: &ConnectionKey) -> String {
    let ConnectionKey { account, integration, name } = key;
    format!("ms.oauth.{account}.event.{integration}.{name}.*")
}

/// Filter of the events of one kind: an account's, or those of all accounts.
#[must_use]
pub(crate) fn events_of_kind(account: Option<&Account>, event: &str) -> String {
    let account = account.map_or("*", Account::as_str);
    format!("ms.oauth.{account}.event.*.*.{event}")
}

/// Subject of an event. An event about a config names no connection, and an event about an API key neither connection nor
/// integration.
#[must_use]
pub(crate) fn event_subject(account: &str, integration: Option<&str>, connection: Option<&str>, event: &str) -> String {
    let [integration, connection] = [integration, connection].map(|name| name.unwrap_or("_"));
    format!("ms.oauth.{account}.event.{integration}.{connection}.{event}")
}

/// Subject of a node's call, by the call's name.
#[must_use]
pub(crate) fn node_call(account: &Account, call: &str) -> String {
    format!("ms.oauth.{account}.{call}")
}

/// Subject of a gateway's call, by the call's name.
#[must_use]
pub(crate) fn edge_call(call: &str) -> String {
    format!("oauth.edge.{call}")
}

/// Subject of the second try of a gateway's call, by the call's name.
#[must_use]
pub(crate) fn again_call(call: &str) -> String {
    format!("oauth.again.{call}")
}

/// Returns the name of the gateway's call whose second try has this subject.
#[must_use]
pub(crate) fn parse_again_call(subject: &str) -> Option<&str> {
    subject.strip_prefix("oauth.again.").filter(|call| !call.contains('.'))
}

/// Subjects of both tries of the one call of gateways that is not sealed: it returns the workers' public curve key and
/// the bus's time.
#[must_use]
pub(crate) fn seal_key_calls() -> [String; 2] {
    [edge_call("seal-key"), again_call("seal-key")]
}

/// Returns true for a subject of [`seal_key_calls`].
#[must_use]
pub(crate) fn is_seal_key_call(subject: &str) -> bool {
    parse_edge_call(subject).or_else(|| parse_again_call(subject)) == Some("seal-key")
}

/// Returns the name of the gateway's call that has this subject.
#[must_use]
pub(crate) fn parse_edge_call(subject: &str) -> Option<&str> {
    subject.strip_prefix("oauth.edge.").filter(|call| !call.contains('.'))
}

/// Subjects of questions about micro services: to all, to those of that name, and to one.
#[must_use]
pub(crate) fn service_calls(name: &str, id: &str) -> [String; 3] {
    [format!("{SERVICES}.*"), format!("{SERVICES}.*.{name}"), format!("{SERVICES}.*.{name}.{id}")]
}

/// Returns the question about micro services that has this subject, such as `PING`.
#[must_use]
pub(crate) fn service_call(subject: &str) -> Option<&str> {
    subject.strip_prefix(SERVICES)?.strip_prefix('.')?.split('.').next()
}

/// Subject of an admin's call, by the call's name.
#[must_use]
pub(crate) fn admin_call(call: &str) -> String {
    format!("oauth.admin.{call}")
}

/// Returns the name of the admin's call that has this subject.
#[must_use]
pub(crate) fn parse_admin_call(subject: &str) -> Option<&str> {
    subject.strip_prefix("oauth.admin.").filter(|call| !call.contains('.'))
}

/// Filter of the audit events of one account or of all, about one integration or connection or about all.
#[must_use]
pub(crate) fn events_matching(
    account: Option<&Account>,
    integration: Option<&Integration>,
    connection: Option<&ConnectionName>,
) -> String {
    let account = account.map_or("*", Account::as_str);
    let integration = integration.map_or("*", Integration::as_str);
    let connection = connection.map_or("*", ConnectionName::as_str);
    format!("ms.oauth.{account}.event.{integration}.{connection}.*")
}
