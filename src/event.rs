//! Audit events: who, what, when. No secret in them.

mod reads;

pub(crate) use self::reads::{Reads, Tally};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::subject::{self, Account, CommandSubject, ConnectionKey, ConnectionName, Integration};

/// What happened; the last token of the event's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A login began.
    LoginStarted,
    /// A login ended in a stored connection.
    Connected,
    /// A login ended without one.
    ExchangeFailed,
    /// A connection got a new access token.
    Refreshed,
    /// A refresh failed; it is tried again.
    RefreshFailed,
    /// The provider takes the connection's tokens no more.
    NeedsReauthorization,
    /// A connection was deleted.
    Revoked,
    /// Access tokens were handed out.
    Read,
    /// A config was put in force.
    ConfigPut,
    /// A config was deleted.
    ConfigDeleted,
    /// An API key was made.
    ApiKeyCreated,
    /// An API key was revoked.
    ApiKeyRevoked,
}

impl EventKind {
    /// As in the subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoginStarted => "login_started",
            Self::Connected => "connected",
            Self::ExchangeFailed => "exchange_failed",
            Self::Refreshed => "refreshed",
            Self::RefreshFailed => "refresh_failed",
            Self::NeedsReauthorization => "needs_reauthorization",
            Self::Revoked => "revoked",
            Self::Read => "read",
            Self::ConfigPut => "config_put",
            Self::ConfigDeleted => "config_deleted",
            Self::ApiKeyCreated => "api_key_created",
            Self::ApiKeyRevoked => "api_key_revoked",
        }
    }
}

/// An event's body.
#[derive(Debug, Serialize)]
pub(crate) struct Event<'a> {
    /// What happened.
    pub event: EventKind,
    /// Whose connection, config or key it is about.
    pub account: &'a str,
    /// At which integration; none for a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_id: Option<&'a str>,
    /// Which connection; none for a config or a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<&'a str>,
    /// Which API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<&'a str>,
    /// Who did it: a credential's id, `node:<account>` for a call on the bus, `browser` for a callback, `schedule` for the
    /// clock, `cli` for the program's own commands.
    pub actor: &'a str,
    /// Why it failed, from a fixed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Sequence of the record it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// How often, where several reads are summed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When.
    pub time: Timestamp,
}

impl<'a> Event<'a> {
    #[must_use]
    pub(crate) fn subject(&self) -> String {
        subject::event_subject(self.account, self.integration_id, self.connection_id, self.event.as_str())
    }

    /// Builds an event about the connection or config of a command.
    #[must_use]
    pub(crate) fn about(subject: &'a CommandSubject, event: EventKind, actor: &'a str, time: Timestamp) -> Self {
        let connection = subject.name.as_ref().map(ConnectionName::as_str);
        Self::new(&subject.account, &subject.integration, connection, event, actor, time)
    }

    #[must_use]
    pub(crate) fn about_connection(key: &'a ConnectionKey, event: EventKind, actor: &'a str, time: Timestamp) -> Self {
        Self::new(&key.account, &key.integration, Some(key.name.as_str()), event, actor, time)
    }

    fn new(
        account: &'a Account,
        integration: &'a Integration,
        connection_id: Option<&'a str>,
        event: EventKind,
        actor: &'a str,
        time: Timestamp,
    ) -> Self {
        Self {
            event,
            account: account.as_str(),
            integration_id: Some(integration.as_str()),
            connection_id,
            key_id: None,
            actor,
            reason: None,
            sequence: None,
            count: None,
            time,
        }
    }

    /// Builds an event about an API key.
    #[must_use]
    pub(crate) fn about_key(
        account: &'a Account,
        id: &'a str,
        event: EventKind,
        actor: &'a str,
        time: Timestamp,
    ) -> Self {
        Self {
            event,
            account: account.as_str(),
            integration_id: None,
            connection_id: None,
            key_id: Some(id),
            actor,
            reason: None,
            sequence: None,
            count: None,
            time,
        }
    }
}
