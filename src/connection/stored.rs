//! The parts of a connection that only workers see.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{OauthConnection, optional_in_clear};
use crate::command::WorkerReply;
use crate::integration::IssuedAt;
use crate::secret::Secret;

/// A connection as stored in the bucket, with its secrets sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredConnection {
    /// Its `access_token` and `refresh_token` contain sealed values.
    #[serde(flatten)]
    pub connection: OauthConnection,
    /// The token endpoint and client that the tokens belong to. They are sent nowhere else.
    pub issued_at: IssuedAt,
    /// Id of the command of the login that made the connection. Refreshes keep the id; another login sets another.
    #[serde(default)]
    pub login_id: String,
    /// Set if the last refresh failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_failure: Option<RefreshFailure>,
}

/// Content of a record's header `Oauth-Sealed-Refresh`: the fields of a [`StoredConnection`] that nodes must not see. With
/// them, any worker can write the bucket entry from the record alone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedPart {
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub refresh_token: Option<Secret>,
    pub issued_at: IssuedAt,
    #[serde(default)]
    pub login_id: String,
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
