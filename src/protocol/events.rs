//! Publishes events to the audit log `OAUTH_EVENTS`, whose subjects tenants may read.
//!
//! A publisher continues only after its event is stored. If publishing is repeated after a crash, the message id makes the
//! event appear once.

use crate::event::Event;
use crate::jetstream::{self, Nats, NatsError};

/// Publishes an event. `cause` is the id of the command, login or key that the event is about; each cause has at most one
/// event of a kind. Without a cause the event is stored each time.
pub(crate) async fn publish_event(nats: &Nats, event: &Event<'_>, cause: Option<&str>) -> Result<(), NatsError> {
    let message_id = cause.map(|cause| format!("{cause}.{}", event.kind.as_str()));
    let body = serde_json::to_vec(event).map_err(NatsError::unreadable)?;
    nats.publish(&event.subject(), jetstream::headers(message_id.as_deref()), body.into()).await.map(drop)
}
