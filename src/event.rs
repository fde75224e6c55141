//! Audit events: who did what, and when. They contain no secret.

mod of_record;
mod reads;
mod refusals;

pub(crate) use self::of_record::{EventDetails, RecordEvent};
pub(crate) use self::reads::{Reads, Tally};
pub(crate) use self::refusals::{Refusal, RefusalSum, Refusals};

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::Origin;
use crate::oauth::ProviderAnswer;
use crate::oauth::error::Cause;
use crate::subject::{self, Account, CommandSubject, ConnectionKey, ConnectionName};

/// The kind of an event; the last token of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A login began.
    LoginStarted,
    /// A login ended in a stored connection.
    Connected,
    /// A login failed.
    ExchangeFailed,
    /// A connection has a new access token.
    Refreshed,
    /// A refresh failed and will be tried again.
    RefreshFailed,
    /// The grant has ended: only a login, or a refresh that a caller asks for, can renew the connection.
    NeedsReauthorization,
    /// An access token expired while its refreshes failed.
    TokenExpired,
    /// The refresh token ends soon, and a refresh does not prolong it.
    ReauthorizationDue,
    /// The provider did not say whose account a connection is, or not all facts about it. The next refresh
    /// repeats a request that failed; an ID token and a callback come with a login only.
    FactsMissing,
    /// The provider did not replace a new access token by a long-lived one. The schedule asks again.
    UpgradeFailed,
    /// A part of the provider's answer is too large to keep.
    PartsLeftOut,
    /// A login has replaced the grant of another one, and the provider was asked to revoke that.
    GrantReplaced,
    /// A connection was deleted.
    Revoked,
    /// A reader received access tokens.
    Read,
    /// A config was created or replaced.
    ConfigPut,
    /// A config was deleted.
    ConfigDeleted,
    /// An API key was created.
    ApiKeyCreated,
    /// An API key was revoked.
    ApiKeyRevoked,
    /// Credentials were rejected, or lacked a scope.
    AuthenticationFailed,
    /// Callers who are no admins tried to change configs or API keys.
    AdminRefused,
    /// A dead letter was dropped.
    DeadLetterDropped,
    /// `tokenbus setup` ran.
    StoreSetUp,
    /// `tokenbus keys rotate` ended.
    KeysRotated,
}

impl EventKind {
    /// Returns true if the event tells of a change of what is stored. Such events are never dropped.
    pub(crate) fn is_change(self) -> bool {
        match self {
            Self::Connected
            | Self::Refreshed
            | Self::NeedsReauthorization
            | Self::TokenExpired
            | Self::ReauthorizationDue
            | Self::GrantReplaced
            | Self::Revoked
            | Self::ConfigPut
            | Self::ConfigDeleted
            | Self::ApiKeyCreated
            | Self::ApiKeyRevoked
            | Self::DeadLetterDropped
            | Self::StoreSetUp
            | Self::KeysRotated => true,
            Self::LoginStarted
            | Self::ExchangeFailed
            | Self::RefreshFailed
            | Self::FactsMissing
            | Self::UpgradeFailed
            | Self::PartsLeftOut
            | Self::Read
            | Self::AuthenticationFailed
            | Self::AdminRefused => false,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoginStarted => "login_started",
            Self::Connected => "connected",
            Self::ExchangeFailed => "exchange_failed",
            Self::Refreshed => "refreshed",
            Self::RefreshFailed => "refresh_failed",
            Self::NeedsReauthorization => "needs_reauthorization",
            Self::TokenExpired => "token_expired",
            Self::ReauthorizationDue => "reauthorization_due",
            Self::FactsMissing => "facts_missing",
            Self::UpgradeFailed => "upgrade_failed",
            Self::PartsLeftOut => "parts_left_out",
            Self::GrantReplaced => "grant_replaced",
            Self::Revoked => "revoked",
            Self::Read => "read",
            Self::ConfigPut => "config_put",
            Self::ConfigDeleted => "config_deleted",
            Self::ApiKeyCreated => "api_key_created",
            Self::ApiKeyRevoked => "api_key_revoked",
            Self::AuthenticationFailed => "authentication_failed",
            Self::AdminRefused => "admin_refused",
            Self::DeadLetterDropped => "dead_letter_dropped",
            Self::StoreSetUp => "store_set_up",
            Self::KeysRotated => "keys_rotated",
        }
    }
}

/// The audit log's name for the schedule.
pub(crate) const SCHEDULE_ACTOR: &str = "schedule";
/// Account in events about credentials that prove none, and about the store.
const NO_ACCOUNT: &str = "_";

/// An event's body.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// Owner of the connection or key; for a config, the admin's account.
    pub account: &'a str,
    /// `None` for a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_id: Option<&'a str>,
    /// `None` for a config or a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<&'a str>,
    /// A credential's id, `node:<account>` for a call on the bus, `browser` for a callback, `schedule` for a due refresh, or
    /// `cli` for `tokenbus` commands.
    pub actor: &'a str,
    /// Reason of a failure, from a fixed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// What a failed login blames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The value to change, in the config or at the provider, in our own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
    /// The provider's answer that led to a failure.
    #[serde(flatten)]
    pub provider: Option<&'a ProviderAnswer>,
    /// Sequence of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// End of the access token of that record; in `reauthorization_due`, of the refresh token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Timestamp>,
    /// Id of the HTTP request, as in the gateway's log. An event of a sum has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// Only with `events.client_address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_address: Option<IpAddr>,
    /// Number of reads or refusals that the event sums up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    pub time: Timestamp,
}

impl<'a> Event<'a> {
    #[must_use]
    pub(crate) fn subject(&self) -> String {
        subject::event_subject(self.account, self.integration_id, self.connection_id, self.kind.as_str())
    }

    /// Builds an event about the connection or config of a command.
    #[must_use]
    pub(crate) fn about(subject: &'a CommandSubject, event: EventKind, actor: &'a str, time: Timestamp) -> Self {
        Self {
            integration_id: Some(subject.integration.as_str()),
            connection_id: subject.name.as_ref().map(ConnectionName::as_str),
            ..Self::new(event, subject.account.as_str(), actor, time)
        }
    }

    #[must_use]
    pub(crate) fn about_connection(key: &'a ConnectionKey, event: EventKind, actor: &'a str, time: Timestamp) -> Self {
        Self {
            integration_id: Some(key.integration.as_str()),
            connection_id: Some(key.name.as_str()),
            ..Self::new(event, key.account.as_str(), actor, time)
        }
    }

    /// Adds the origin of the request that led to the event.
    #[must_use]
    pub(crate) fn from(self, origin: &'a Origin) -> Self {
        let Origin { client_address, request_id } = origin;
        Self { request_id: request_id.as_deref(), client_address: *client_address, ..self }
    }

    fn new(kind: EventKind, account: &'a str, actor: &'a str, time: Timestamp) -> Self {
        Self {
            kind,
            account,
            integration_id: None,
            connection_id: None,
            key_id: None,
            actor,
            reason: None,
            cause: None,
            hint: None,
            provider: None,
            sequence: None,
            expiry: None,
            request_id: None,
            client_address: None,
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
        Self { key_id: Some(id), ..Self::new(event, account.as_str(), actor, time) }
    }

    /// Builds an event about the store of all accounts.
    #[must_use]
    pub(crate) fn about_store(event: EventKind, actor: &'a str, time: Timestamp) -> Self {
        Self::new(event, NO_ACCOUNT, actor, time)
    }

    /// Builds an event that sums up refusals.
    #[must_use]
    pub(crate) fn about_refusals(refusal: &'a Refusal, count: u64, time: Timestamp) -> Self {
        let Refusal { kind, account, actor, reason } = refusal;
        let account = account.as_ref().map_or(NO_ACCOUNT, Account::as_str);
        Self { reason: Some(reason), count: Some(count), ..Self::new(*kind, account, actor, time) }
    }
}
