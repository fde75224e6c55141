//! The parts of a connection that only workers see.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{OauthConnection, Status, optional_in_clear};
use crate::command::WorkerReply;
use crate::integration::IssuedAt;
use crate::secret::Secret;

/// A connection with everything that workers know about it. The bucket holds its JSON sealed as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredConnection {
    #[serde(flatten)]
    pub connection: OauthConnection,
    /// The token endpoint and client that the tokens belong to. They are sent nowhere else.
    pub issued_at: IssuedAt,
    /// Id of the command of the login that made the connection. Refreshes keep the id; another login sets another.
    #[serde(default)]
    pub login_id: String,
    /// Set if the last refresh failed. Stored beside the sealed value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_failure: Option<RefreshFailure>,
    /// Fields that a later release has sealed. They are kept, because releases can run side by side.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl StoredConnection {
    /// Removes everything about the grant and its owner. A tombstone says only that the connection was deleted.
    #[must_use]
    pub(crate) fn deleted(self) -> Self {
        let OauthConnection { token_type, subject, .. } = self.connection;
        let connection = OauthConnection {
            access_token: None,
            token_type,
            refresh_token: None,
            expiry: None,
            expires_in: None,
            sequence: 0,
            subject,
            modified: 0,
            status: Status::Revoked,
            status_reason: None,
            scope: None,
            metadata: Map::new(),
        };
        let (issued_at, unknown) = (IssuedAt::default(), Map::new());
        Self { connection, issued_at, login_id: self.login_id, refresh_failure: None, unknown }
    }
}

/// Content of a record's header `Oauth-Sealed-Refresh`: the fields of a [`StoredConnection`] that nodes must not see. With
/// them, any worker can write the bucket entry from the record alone.
#[derive(Serialize, Deserialize)]
pub struct SealedPart {
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub refresh_token: Option<Secret>,
    pub issued_at: IssuedAt,
    #[serde(default)]
    pub login_id: String,
    /// Fields of a later release.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A failed refresh, as stored in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshFailure {
    /// Number of failures in a row.
    pub count: u32,
    /// Until this time, callers get this failure as the answer.
    pub until: Timestamp,
    /// HTTP status of the answer.
    pub status: u16,
    /// The reason, from a fixed list.
    pub reason: String,
}

impl RefreshFailure {
    /// Returns the answer for callers, or `None` once a refresh may be tried again.
    #[must_use]
    pub fn answer(&self, now: Timestamp) -> Option<WorkerReply> {
        let wait = Duration::try_from(self.until.duration_since(now)).ok().filter(|wait| !wait.is_zero())?;
        Some(WorkerReply::error(self.status, &self.reason).after(Some(wait)))
    }
}
