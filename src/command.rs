//! What travels on the work queue: an envelope that anyone may see, and the order sealed inside it.

mod credential;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::credential::{CREDENTIAL_NEEDED, Credential};
use crate::secret::{self, Secret};
use crate::subject::{CommandSubject, Verb};

/// Version of the envelope and of what is sealed inside.
pub const VERSION: u8 = 1;

/// Header: id of the command that a message is the work of.
pub const HEADER_COMMAND: &str = "Oauth-Command";
/// Header: subject that the answer goes to.
pub const HEADER_REPLY: &str = "Oauth-Reply";
/// Header: the caller's credential.
pub const HEADER_CREDENTIAL: &str = "Oauth-Credential";
/// Header: public curve key of whoever sealed the order.
pub const HEADER_SENDER: &str = "Oauth-Sender";
/// Header: a record's refresh token and origin, sealed.
pub const HEADER_SEALED_REFRESH: &str = "Oauth-Sealed-Refresh";
/// Header: a record's status.
pub const HEADER_STATUS: &str = "Oauth-Status";
/// Header of an answer to a call: seconds after which to ask again.
pub const HEADER_RETRY_AFTER: &str = "Retry-After";
/// Header of a stored connection: whether there is anything to refresh, [`REFRESH_NONE`] or [`REFRESH_PAUSED`]; none
/// when there is. So the repair pass needs to read headers only.
pub const HEADER_REFRESH: &str = "Oauth-Refresh";
/// [`HEADER_REFRESH`]: no lifetime, no refresh token, or not active.
pub const REFRESH_NONE: &str = "none";
/// [`HEADER_REFRESH`]: the integration has no config at the moment.
pub const REFRESH_PAUSED: &str = "paused";
/// Header: the trace that a message belongs to (W3C Trace Context).
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// A command as it lies on the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`].
    pub v: u8,
    /// Id of the command, 128 bits in base64url.
    pub id: String,
    /// The order, sealed to the workers' curve key; base64url.
    pub sealed: String,
}

/// What is sealed in the envelope. It repeats where it was sent to, so that it works nowhere else.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The subject it was sent to.
    pub subject: String,
    /// The envelope's id.
    pub id: String,
    /// What to do.
    pub work: Work,
}

/// The work itself, one variant a verb.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Work {
    /// A provider's answer to an authorization request.
    Exchange {
        /// The callback's whole query, undecoded.
        #[serde(serialize_with = "secret::in_clear")]
        query: Secret,
        /// Cookies that bind a login to a browser: name and value.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cookies: Vec<Cookie>,
        /// The credential that came with the callback, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<Credential>,
    },
    /// A config to be put in force.
    Put {
        /// Whose wish it is.
        credential: Credential,
        /// The config's JSON as it came.
        #[serde(serialize_with = "secret::in_clear")]
        config: Secret,
    },
    /// A connection to be refreshed. Believed only when a worker sealed it.
    Refresh {
        /// Whose wish it is; none when it was due.
        actor: Option<String>,
        /// The sequence it is meant for: a newer one needs nothing.
        sequence: u64,
        /// Whether its turn at the integration was booked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        booked: bool,
    },
    /// A connection to be revoked and deleted. Believed only when a worker sealed it.
    Revoke {
        /// Whose wish it is.
        actor: String,
        /// Id of the command that made the connection: one that a later login made is left alone.
        login_id: String,
    },
    /// A config to be deleted.
    Delete {
        /// Whose wish it is.
        credential: Credential,
    },
}

impl Work {
    /// The verb whose work it is.
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
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(serialize_with = "secret::in_clear")]
    pub value: Secret,
}

/// What a worker answers to a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerReply {
    /// An HTTP status.
    pub status: u16,
    /// What the caller gets; `{"error": …}` unless the status is 200.
    pub body: Value,
    /// Seconds after which to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl WorkerReply {
    /// A success.
    #[must_use]
    pub fn ok(body: Value) -> Self {
        Self { status: 200, body, retry_after: None }
    }

    /// A refusal with a text for people.
    #[must_use]
    pub fn error(status: u16, text: &str) -> Self {
        Self { status, body: serde_json::json!({ "error": text }), retry_after: None }
    }

    /// The same, with the time to wait before asking again.
    #[must_use]
    pub fn after(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait.map(|wait| wait.as_secs().max(1)), ..self }
    }
}

/// Why an envelope or order cannot be worked on. No retry mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON of the envelope's shape.
    #[error("envelope is not of the known form")]
    Envelope,
    /// Another version.
    #[error("envelope version {0} is not known here")]
    Version(u8),
    /// Not JSON of the order's shape.
    #[error("order is not of the known form")]
    Order,
    /// Sealed for another subject, id or verb.
    #[error("order was sealed for another subject, id or verb")]
    Misplaced,
}

impl Envelope {
    /// Reads a message's payload.
    ///
    /// # Errors
    /// [`Malformed`] for anything but a known envelope.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let envelope: Self = serde_json::from_slice(payload).map_err(|_| Malformed::Envelope)?;
        let is_id = crate::subject::is_id(&envelope.id);
        match (envelope.v, is_id) {
            (VERSION, true) => Ok(envelope),
            (VERSION, false) => Err(Malformed::Envelope),
            (version, _) => Err(Malformed::Version(version)),
        }
    }
}

impl Order {
    /// Reads an opened order and checks that it was sealed for this place.
    ///
    /// # Errors
    /// [`Malformed`] when it is no order or was sealed for another place.
    pub fn parse(opened: &[u8], subject: &CommandSubject, id: &str) -> Result<Work, Malformed> {
        let order: Self = serde_json::from_slice(opened).map_err(|_| Malformed::Order)?;
        let fits = order.subject == subject.subject() && order.id == id && order.work.verb() == subject.verb;
        if fits { Ok(order.work) } else { Err(Malformed::Misplaced) }
    }
}

#[cfg(test)]
mod tests;
