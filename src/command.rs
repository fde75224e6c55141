//! Commands on the work queue: a readable envelope with a sealed order inside.

mod credential;
mod origin;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::credential::{CREDENTIAL_NEEDED, Credential};
pub use self::origin::Origin;
pub(crate) use self::origin::is_plain_request_id;
use crate::oauth::error::Cause;
use crate::secret::{self, Secret};
use crate::subject::{CommandSubject, Verb};

/// Version of the envelope and of the order inside.
pub const VERSION: u8 = 2;

/// Longest time from the making of an order to its storing. Half of the server's duplicate window of two
/// minutes, so that the window still knows the message id of an order that is in time.
pub(crate) const MAX_AGE: Duration = Duration::from_mins(1);

/// Header: id of the command that published the message.
pub const HEADER_COMMAND: &str = "Oauth-Command";
/// Header: subject of the reply.
pub const HEADER_REPLY: &str = "Oauth-Reply";
/// Header: public curve key of the process that sealed the order.
pub const HEADER_SENDER: &str = "Oauth-Sender";
/// Header: the sealed part of a record, a [`SealedPart`](crate::connection::SealedPart).
pub const HEADER_SEALED_REFRESH: &str = "Oauth-Sealed-Refresh";
/// Header of a record: a sealed [`RecordEvent`](crate::event::RecordEvent).
pub(crate) const HEADER_SEALED_EVENT: &str = "Oauth-Sealed-Event";
/// Header of a tombstone: a sealed [`WaitingRevocation`](crate::connection::WaitingRevocation).
pub(crate) const HEADER_SEALED_REVOCATION: &str = "Oauth-Sealed-Revocation";
/// Header: a record's status.
pub const HEADER_STATUS: &str = "Oauth-Status";
/// Header of a reply to a call: seconds to wait before the next try.
pub const HEADER_RETRY_AFTER: &str = "Retry-After";
/// Header of a reply to a node's call: the code of the failure, for programs.
pub const HEADER_REASON: &str = "Oauth-Reason";
/// Header of a stored connection that has no schedule or waits for a config: [`REFRESH_NONE`] or [`REFRESH_PAUSED`]. Lets the
/// repair pass read headers only.
pub const HEADER_REFRESH: &str = "Oauth-Refresh";
/// [`HEADER_REFRESH`]: time changes nothing about the connection.
pub const REFRESH_NONE: &str = "none";
/// [`HEADER_REFRESH`]: the integration has no config now, or one that does not fit the grant.
pub const REFRESH_PAUSED: &str = "paused";
/// Header of a stored connection whose identity is known: the mark of its grant. Connections with the same mark may share a
/// grant.
pub(crate) const HEADER_IDENTITY: &str = "Oauth-Identity";
/// Header of a command, and field of a call: the trace of the message (W3C Trace Context).
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// Reason in a worker's answer to a call that it could not carry out, because no server or no leader of a stream answered it.
pub(crate) const BUS_UNAVAILABLE: &str = "bus_unavailable";
/// Reason in a worker's answer to a deletion that was sent before the connection last changed.
pub(crate) const CHANGED_SINCE: &str = "changed_since";

/// A command as published to the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    pub v: u8,
    /// Id of the command: 128 random bits in base64url.
    pub id: String,
    /// The [`Order`], sealed to the workers' curve key, in base64url.
    pub sealed: String,
}

/// The sealed content of an envelope. It repeats the subject and id, so that a captured order cannot be sent as another
/// command, and names its time and message id, so that it cannot be sent twice. Fields of later releases are ignored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The subject to which the command was published.
    pub subject: String,
    /// The envelope's id.
    pub id: String,
    /// The bus's time when the order was made, in milliseconds since 1970. Of a deletion that another worker may have taken
    /// before, up to 30 s earlier: when its caller's wait began.
    pub time: i64,
    /// The message id under which the order is stored.
    pub message_id: String,
    /// Key of the answer, in base64url.
    #[serde(serialize_with = "secret::in_clear")]
    pub answer_key: Secret,
    /// Origin of the request that led to the command.
    #[serde(default)]
    pub origin: Origin,
    pub work: Work,
}

/// Where and when a command was stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) subject: &'a CommandSubject,
    pub(crate) message_id: &'a str,
    pub(crate) time: Timestamp,
}

/// The work of a command, one variant for each verb.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Work {
    /// Exchanges the code in a provider's answer to an authorization request.
    Exchange {
        /// The whole query of the callback, not decoded.
        #[serde(serialize_with = "secret::in_clear")]
        query: Secret,
        /// The cookies of the callback that bind logins to browsers.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cookies: Vec<Cookie>,
        /// The credential of the callback, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
    },
    /// Creates or replaces a config.
    Put {
        credential: Credential,
        /// The JSON of the config as received.
        #[serde(serialize_with = "secret::in_clear")]
        config: Secret,
    },
    /// Refreshes a connection. Accepted only if a worker sealed it.
    Refresh {
        /// The caller who asked for the refresh; `None` if it was due.
        actor: Option<String>,
        /// Sequence of the record that needs the refresh. If the current one is newer, nothing is done.
        sequence: u64,
        /// True if the refresh limiter reserved a slot for this time, or if a hold ends then.
        #[serde(default, rename = "booked", skip_serializing_if = "std::ops::Not::not")]
        slot_reserved: bool,
    },
    /// Revokes and deletes a connection. Accepted only if a worker sealed it.
    Revoke {
        /// The caller who asked for it.
        actor: String,
        /// Id of the login that made the connection. A connection that a later login made is not deleted.
        login_id: String,
        /// True to leave the grant at the provider alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep_grant: bool,
        /// True to revoke the grant also if another connection shares it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        even_if_shared: bool,
    },
    /// Deletes a config.
    Delete { credential: Credential },
}

impl Work {
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Self::Exchange { .. } => Verb::Exchange,
            Self::Refresh { .. } => Verb::Refresh,
            Self::Revoke { .. } => Verb::Revoke,
            Self::Put { .. } => Verb::Put,
            Self::Delete { .. } => Verb::Delete,
        }
    }
}

/// A cookie that binds a login to the browser it began in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cookie {
    pub name: String,
    #[serde(serialize_with = "secret::in_clear")]
    pub value: Secret,
}

/// A worker's reply to a command or a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerReply {
    /// HTTP status for the caller.
    pub status: u16,
    /// Body for the caller; `{"error": …}` unless the status is 200, and then with `reason`, `cause` and `hint` if there are any.
    pub body: Value,
    /// Seconds to wait before the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl WorkerReply {
    #[must_use]
    pub fn ok(body: Value) -> Self {
        Self { status: 200, body, retry_after: None }
    }

    /// A failure with a text for people.
    #[must_use]
    pub fn error(status: u16, text: &str) -> Self {
        Self { status, body: serde_json::json!({ "error": text }), retry_after: None }
    }

    /// Sets the time to wait before the next try, at least a second.
    #[must_use]
    pub fn after(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait.map(|wait| wait.as_secs().max(1)), ..self }
    }

    /// Adds the code of a failure that has one, for programs. The text is for people.
    #[must_use]
    pub(crate) fn with_reason(mut self, reason: &str) -> Self {
        if let Some(body) = self.body.as_object_mut() {
            body.insert("reason".to_owned(), reason.into());
        }
        self
    }

    /// Adds to a failure what the provider blames, and what an administrator should change.
    #[must_use]
    pub(crate) fn with_hint(mut self, cause: Option<Cause>, hint: Option<&str>) -> Self {
        if let (Some(cause), Some(hint), Some(body)) = (cause, hint, self.body.as_object_mut()) {
            body.insert("cause".to_owned(), serde_json::json!(cause));
            body.insert("hint".to_owned(), hint.into());
        }
        self
    }
}

/// An envelope or order that is not valid. A retry cannot succeed.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("envelope is not valid JSON of the expected fields")]
    Envelope(#[source] serde_json::Error),
    #[error("the id of an envelope must be 128 bits in base64url")]
    Id,
    #[error("envelope version {0} is not supported; is the sender newer?")]
    Version(u8),
    /// Without the cause, whose text may repeat secret values of the order.
    #[error("order is not valid JSON of the expected fields")]
    Order,
    #[error("order was sealed for another subject, id or verb")]
    Misplaced,
    #[error("order was sealed for another message id, or at another time: it is a copy")]
    Replayed,
}

impl Envelope {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let envelope: Self = serde_json::from_slice(payload).map_err(Malformed::Envelope)?;
        let is_id = crate::subject::is_id(&envelope.id);
        match (envelope.v, is_id) {
            (VERSION, true) => Ok(envelope),
            (VERSION, false) => Err(Malformed::Id),
            (version, _) => Err(Malformed::Version(version)),
        }
    }
}

impl Order {
    /// Reads an opened order. Returns it if it was sealed for this subject, id and verb, and is no copy.
    pub(crate) fn parse(opened: &[u8], id: &str, stored: Stored<'_>) -> Result<Self, Malformed> {
        let Stored { subject, message_id, time } = stored;
        let Ok(order) = serde_json::from_slice::<Self>(opened) else { return Err(Malformed::Order) };
        if order.subject != subject.subject() || order.id != id || order.work.verb() != subject.verb {
            return Err(Malformed::Misplaced);
        }
        let made = Timestamp::from_millisecond(order.time).unwrap_or(Timestamp::MIN);
        let is_in_time = time.duration_since(made).unsigned_abs() <= MAX_AGE;
        if is_in_time && order.message_id == message_id { Ok(order) } else { Err(Malformed::Replayed) }
    }
}

#[cfg(test)]
mod tests;
