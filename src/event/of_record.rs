//! Events that are stored with their records.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Event, EventKind};
use crate::command::Origin;
use crate::oauth::ProviderAnswer;
use crate::subject::{Account, ConnectionName, Integration};

/// An event's parts that depend on its command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventDetails<'a> {
    pub kind: EventKind,
    pub actor: &'a str,
    pub reason: Option<&'a str>,
    pub provider: Option<&'a ProviderAnswer>,
}

impl<'a> EventDetails<'a> {
    pub(crate) const fn new(kind: EventKind, actor: &'a str, reason: Option<&'a str>) -> Self {
        Self { kind, actor, reason, provider: None }
    }
}

/// The parts of a record's event that only its command knows. A record holds them, sealed, so that the command which replaces
/// the record can publish an event that a crash left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordEvent {
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// The account that the event belongs to; for a config, the admin's.
    pub account: Account,
    pub actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The provider's answer that led to the change.
    #[serde(flatten)]
    pub provider: Option<ProviderAnswer>,
    #[serde(default)]
    pub origin: Origin,
}

impl RecordEvent {
    /// Builds the event of a record that was stored at that time.
    pub(crate) fn event<'a>(
        &'a self,
        integration: &'a Integration,
        name: Option<&'a ConnectionName>,
        time: Timestamp,
    ) -> Event<'a> {
        let Self { kind, account, actor, reason, provider, origin } = self;
        let event = Event {
            integration_id: Some(integration.as_str()),
            connection_id: name.map(ConnectionName::as_str),
            reason: reason.as_deref(),
            provider: provider.as_ref(),
            ..Event::new(*kind, account.as_str(), actor, time)
        };
        event.from(origin)
    }
}
