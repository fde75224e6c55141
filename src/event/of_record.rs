//! Events that are stored with their records.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Event, EventKind};
use crate::command::Origin;
use crate::subject::{Account, ConnectionName, Integration};

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
        let Self { kind, account, actor, reason, origin } = self;
        let event = Event {
            integration_id: Some(integration.as_str()),
            connection_id: name.map(ConnectionName::as_str),
            reason: reason.as_deref(),
            ..Event::new(*kind, account.as_str(), actor, time)
        };
        event.from(origin)
    }
}
