//! Publishes events to the audit log `OAUTH_EVENTS`, whose subjects tenants may read.
//!
//! A publisher continues only after its event is stored. If publishing is repeated after a crash, the message id makes the
//! event appear once.

use serde::Deserialize;

use crate::event::{Event, EventKind};
use crate::jetstream::{self, Nats, NatsError};
use crate::subject::{self, Account};

/// Publishes an event. `cause` is the id of the command, login or key that the event is about; each cause has at most one
/// event of a kind. Without a cause the event is stored each time.
pub(crate) async fn publish_event(nats: &Nats, event: &Event<'_>, cause: Option<&str>) -> Result<(), NatsError> {
    let message_id = cause.map(|cause| message_id(cause, event.kind));
    let body = serde_json::to_vec(event).map_err(NatsError::unreadable)?;
    nats.publish(&event.subject(), jetstream::headers(message_id.as_deref()), body.into()).await.map(drop)
}

/// Returns the message id of a cause's event.
#[must_use]
pub(crate) fn message_id(cause: &str, kind: EventKind) -> String {
    format!("{cause}.{}", kind.as_str())
}

/// Publishes the text of an event about an API key that was stored before a crash. Within the server's window for
/// duplicates the event appears once, if the first try succeeded after all.
pub(crate) async fn publish_stored_event(nats: &Nats, event: &str, cause: &str) -> Result<(), NatsError> {
    #[derive(Deserialize)]
    struct About {
        event: EventKind,
        account: Account,
    }
    let About { event: kind, account } = serde_json::from_str(event).map_err(NatsError::unreadable)?;
    let message_id = message_id(cause, kind);
    let subject = subject::event_subject(account.as_str(), None, None, kind.as_str());
    nats.publish(&subject, jetstream::headers(Some(&message_id)), event.to_owned().into()).await.map(drop)
}
