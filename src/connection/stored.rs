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
    #[serde(flatten)]
    pub grant: GrantFacts,
    /// Set if the last refresh failed. Sealed for itself, beside the sealed connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_failure: Option<RefreshFailure>,
    /// Fields that a later release has sealed. They are kept, because releases can run side by side.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl StoredConnection {
    /// Removes everything about the grant and its identity. A tombstone says only that the connection was deleted.
    #[must_use]
    pub(crate) fn deleted(self) -> Self {
        let OauthConnection { token_type, subject, .. } = self.connection;
        let connection = OauthConnection {
            access_token: None,
            token_type,
            refresh_token: None,
            expiry: None,
            expires_in: None,
            refresh_token_expiry: None,
            sequence: 0,
            subject,
            modified: 0,
            status: Status::Revoked,
            status_reason: None,
            scope: None,
            identity: None,
            metadata: Map::new(),
        };
        let (issued_at, grant, unknown) = (IssuedAt::default(), GrantFacts::default(), Map::new());
        Self { connection, issued_at, login_id: self.login_id, grant, refresh_failure: None, unknown }
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
    #[serde(flatten)]
    pub grant: GrantFacts,
    /// Fields of a later release.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Facts about a grant beside its tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantFacts {
    /// Lifetime in seconds of an access token that was removed when it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token_lifetime: Option<i64>,
    /// The scope that the login asked for, if the provider's answer had none: RFC 6749 §5.1 allows that where they are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_scope: Option<String>,
    /// True while a request for identity or metadata is to be sent again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub facts_missing: bool,
    /// True while the access token is to be exchanged for a long-lived one. The refresh token is then the access token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upgrade_missing: bool,
    /// True if the last refresh left the end of the refresh token as it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh_token_end_is_fixed: bool,
    /// Time of the last `reauthorization_due` event, or from which on such events are due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reauthorization_warned: Option<Timestamp>,
    /// Time from which the lifetime of the refresh token counts: its issue, or its last use if that moves its end. Absent in
    /// connections of earlier releases, and without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_since: Option<Timestamp>,
    /// The record with the result of the last login or refresh, if a later record only reports that time has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<ResultRecord>,
    /// Name of the event that reports the record, where it does not follow from the status. A text, because a later release
    /// may have further names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_event: Option<String>,
}

/// A record with the result of a login or refresh: new tokens, or the end of the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRecord {
    pub sequence: u64,
    /// Time of the record, in Unix seconds.
    pub modified: u64,
}

/// A failed refresh, as noted in the bucket. Alone it changes nothing: a connection ends only with an answer of the
/// provider, or with its access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshFailure {
    /// Number of failures in a row that were due, or, after the grant has ended, that callers asked for.
    pub count: u32,
    /// Until this time, callers get this failure as the answer.
    pub until: Timestamp,
    /// HTTP status of the answer.
    pub status: u16,
    /// The reason, from a fixed list.
    pub reason: String,
    /// Time of the first failure since the last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Number of failures since then that were unclear.
    #[serde(default)]
    pub unclear: u32,
    /// Time of the first refusal of the grant since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
    /// Time of the next scheduled try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    /// True once the event `token_expired` was published.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub token_expired: bool,
}

impl RefreshFailure {
    #[must_use]
    pub(crate) fn new(reason: &str, status: u16, until: Timestamp) -> Self {
        let reason = reason.to_owned();
        let (since, refused_at, next_try) = (None, None, None);
        Self { count: 0, until, status, reason, since, unclear: 0, refused_at, next_try, token_expired: false }
    }

    /// Drops the history by which the provider's next answer could end the grant.
    #[must_use]
    pub(crate) fn without_history(self) -> Self {
        Self { since: None, unclear: 0, refused_at: None, ..self }
    }

    /// Returns the answer for callers, or `None` once a refresh may be tried again.
    #[must_use]
    pub fn answer(&self, now: Timestamp) -> Option<WorkerReply> {
        let wait = Duration::try_from(self.until.duration_since(now)).ok().filter(|wait| !wait.is_zero())?;
        Some(WorkerReply::error(self.status, &self.reason).with_reason(&self.reason).after(Some(wait)))
    }
}
