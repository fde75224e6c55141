//! Revocations of deleted connections that their provider has not accepted yet.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{StoredConnection, optional_in_clear};
use crate::integration::{IssuedAt, LoginRequests};
use crate::secret::Secret;

/// Largest token that is kept for another try. The headers of a message hold 64 KiB, and sealing adds a third.
const MAX_KEPT_TOKEN_BYTES: usize = 16 * 1024;
/// Quotation marks around a JSON text.
const QUOTES: usize = 2;

/// The tokens of a deleted connection. A tombstone holds them, sealed, until the provider has revoked them; no call returns
/// them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WaitingRevocation {
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub(crate) refresh_token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub(crate) access_token: Option<Secret>,
    pub(crate) issued_at: IssuedAt,
    /// Marks of the grant. If another connection has one of them, the tokens stay valid. Empty if nothing is to be spared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) marks: Vec<String>,
    /// Time of the deletion.
    pub(crate) since: Timestamp,
    /// Fields of a later release.
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

impl WaitingRevocation {
    pub(crate) fn of(stored: &StoredConnection, marks: Vec<String>, since: Timestamp) -> Self {
        Self {
            refresh_token: stored.connection.refresh_token.clone(),
            access_token: stored.connection.access_token.clone(),
            // A revocation needs none of the requests that follow a login.
            issued_at: IssuedAt { requests: LoginRequests::default(), ..stored.issued_at.clone() },
            marks,
            since,
            unknown: Map::new(),
        }
    }

    /// Drops a token that is too large for a tombstone. Only access tokens can be: revoking the refresh token ends the grant,
    /// and an access token ends by itself.
    #[must_use]
    pub(crate) fn without_large(self) -> Self {
        // As JSON, in which a quotation mark takes two bytes.
        let fits = |token: &Secret| {
            serde_json::to_string(token.expose()).is_ok_and(|json| json.len() <= MAX_KEPT_TOKEN_BYTES + QUOTES)
        };
        Self { refresh_token: self.refresh_token.filter(fits), access_token: self.access_token.filter(fits), ..self }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.refresh_token.is_some() || self.access_token.is_some()
    }

    /// Returns the time since the deletion.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.since)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn waiting(refresh: usize, access: usize) -> WaitingRevocation {
        let mut waiting: WaitingRevocation =
            serde_json::from_value(json!({ "issued_at": IssuedAt::default(), "since": "2026-01-01T00:00:00Z" }))
                .unwrap();
        let token = |length: usize| (length > 0).then(|| Secret::new("x".repeat(length)));
        (waiting.refresh_token, waiting.access_token) = (token(refresh), token(access));
        waiting
    }

    #[test]
    fn tokens_that_fit_into_a_tombstone_are_kept() {
        #[track_caller]
        fn check(refresh: usize, access: usize, expected: (bool, bool)) {
            let kept = waiting(refresh, access).without_large();
            assert_eq!((kept.refresh_token.is_some(), kept.access_token.is_some()), expected);
            assert_eq!(kept.has_token(), expected.0 || expected.1);
        }
        check(10, 10, (true, true));
        check(MAX_KEPT_TOKEN_BYTES, MAX_KEPT_TOKEN_BYTES, (true, true));
        check(10, MAX_KEPT_TOKEN_BYTES + 1, (true, false));
        check(0, MAX_KEPT_TOKEN_BYTES + 1, (false, false));
        let mut quotes = waiting(0, 10);
        quotes.refresh_token = Some(Secret::new("\"".repeat(MAX_KEPT_TOKEN_BYTES / 2 + 1)));
        assert_eq!(quotes.without_large().refresh_token, None, "as JSON it is larger");
    }

    #[test]
    fn a_stored_revocation_is_read_back_and_its_age_is_never_negative() {
        let text = serde_json::to_string(&waiting(3, 2)).unwrap();
        let read: WaitingRevocation = serde_json::from_str(&text).unwrap();
        assert_eq!(read.refresh_token, Some(Secret::new("xxx")));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(read.age(at("2026-01-01T00:01:00Z")), Duration::from_mins(1));
        assert_eq!(read.age(at("2025-12-31T00:00:00Z")), Duration::ZERO);
    }
}
