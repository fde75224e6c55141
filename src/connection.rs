//! A connection: what travels as its record, what is stored of it, and what callers see.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::WorkerReply;
use crate::integration::IssuedAt;
use crate::oauth::token::TokenSet;
use crate::secret::{self, Secret};

/// Why a connection is not refreshed when its integration has no config at the moment.
pub const NO_CONFIG: &str = "no_config";
/// What whoever asks for a new token is told when only a login can bring one.
pub const NEEDS_LOGIN: &str = "the connection needs reauthorization: log in again";

/// How long before its expiry a token is refreshed at the latest, unless its lifetime is shorter than twice that.
pub const LEAST_MARGIN: Duration = Duration::from_mins(1);

/// Whether a connection can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Holds a token.
    Active,
    /// The provider takes its tokens no more: somebody has to log in again.
    NeedsReauthorization,
    /// Deleted by its owner.
    Revoked,
}

impl Status {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NeedsReauthorization => "needs_reauthorization",
            Self::Revoked => "revoked",
        }
    }
}

/// A connection as HTTP callers and nodes see it (`OauthConnection`). Its record's body is the same without
/// `refresh_token`, `sequence` and `modified`, which the record gets by being stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OauthConnection {
    /// The access token (RFC 6749 §1.4).
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub access_token: Option<Secret>,
    /// As the provider wrote it, `Bearer` when it named none (RFC 6749 §7.1).
    pub token_type: String,
    /// The refresh token (RFC 6749 §1.5).
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub refresh_token: Option<Secret>,
    /// When the access token ends; none when the provider names no lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339_micros")]
    pub expiry: Option<Timestamp>,
    /// Lifetime in seconds as the provider gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// Stream sequence of the record; 0 before it is stored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// The token subject.
    pub subject: String,
    /// Unix seconds of the record; 0 before it is stored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub modified: u64,
    /// Whether it can be used.
    pub status: Status,
    /// Why it is not refreshed as it should be, from a fixed list; none when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// The scope that was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What else the provider sent and the config asked to keep.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A connection as it lies in the bucket: secrets sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredConnection {
    /// The connection; `access_token` and `refresh_token` hold sealed forms.
    #[serde(flatten)]
    pub connection: OauthConnection,
    /// Where its tokens were issued.
    pub issued_at: IssuedAt,
    /// Id of the command that made it: refreshes keep it, another login brings another.
    #[serde(default)]
    pub login_id: String,
    /// The last refresh, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_failure: Option<RefreshFailure>,
}

/// What a record's `Oauth-Sealed-Refresh` header holds once opened: what step 5 of a callback needs beside the body.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedPart {
    /// The refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub refresh_token: Option<Secret>,
    /// Where the tokens were issued.
    pub issued_at: IssuedAt,
    /// Id of the command that made the connection.
    #[serde(default)]
    pub login_id: String,
}

impl OauthConnection {
    /// An active connection of what a token endpoint answered.
    #[must_use]
    pub fn issued(subject: String, tokens: TokenSet) -> Self {
        let TokenSet { access_token, token_type, refresh_token, expires_in, expiry, scope, metadata } = tokens;
        Self {
            access_token: Some(access_token),
            token_type,
            refresh_token,
            expiry,
            expires_in,
            sequence: 0,
            subject,
            modified: 0,
            status: Status::Active,
            status_reason: None,
            scope,
            metadata,
        }
    }

    /// The same without anything to use it with, and why.
    #[must_use]
    pub fn without_tokens(self, status: Status, reason: Option<&str>) -> Self {
        Self {
            access_token: None,
            refresh_token: None,
            expiry: None,
            expires_in: None,
            status,
            status_reason: reason.map(str::to_owned),
            ..self
        }
    }

    /// When it is refreshed next: before its expiry by a margin, the jitter (0 to 1) making it earlier by at most a
    /// tenth of that, never before a second from now. None without a refresh token or an expiry.
    #[must_use]
    pub fn refresh_at(&self, now: Timestamp, jitter: f64) -> Option<Timestamp> {
        let (expiry, _) = self.expiry.zip(self.refresh_token.as_ref()).filter(|_| self.status == Status::Active)?;
        let margin = self.margin();
        let earlier = margin + margin.mul_f64(0.1 * jitter.clamp(0.0, 1.0));
        let soonest = now.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now);
        Some(expiry.checked_sub(earlier).unwrap_or(soonest).max(soonest))
    }

    /// Whether it is refreshed at all: active, with a lifetime and a refresh token.
    #[must_use]
    pub fn is_kept_alive(&self) -> bool {
        self.status == Status::Active && self.expiry.is_some() && self.refresh_token.is_some()
    }

    /// How long a token has to be good for when its reader does not say: `wish`, but no more than half its lifetime,
    /// or every read would refresh it.
    #[must_use]
    pub fn min_valid_default(&self, wish: Duration) -> Duration {
        wish.min(self.lifetime() / 2)
    }

    /// Whether the access token ends within half the margin, or before `min_valid` is over.
    #[must_use]
    pub fn is_near_expiry(&self, now: Timestamp, min_valid: Option<Duration>) -> bool {
        let needed = min_valid.unwrap_or_else(|| self.margin() / 2);
        self.expiry.is_some_and(|expiry| expiry.checked_sub(needed).unwrap_or(Timestamp::MIN) <= now)
    }

    /// From when on it is near its expiry: within half the margin. None when it has no token or does not expire.
    #[must_use]
    pub fn near_expiry_at(&self) -> Option<Timestamp> {
        let (expiry, _) = self.expiry.zip(self.access_token.as_ref())?;
        expiry.checked_sub(self.margin() / 2).ok()
    }

    /// Whether its record is younger than that, or as little ahead of this clock.
    #[must_use]
    pub fn is_younger_than(&self, age: Duration, now: Timestamp) -> bool {
        let modified = i64::try_from(self.modified).unwrap_or(i64::MAX);
        let apart = now.as_second().saturating_sub(modified).saturating_abs();
        apart < i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
    }

    /// A minute or a tenth of the lifetime, whichever is longer, but at most half the lifetime.
    fn margin(&self) -> Duration {
        let lifetime = self.lifetime();
        LEAST_MARGIN.max(lifetime / 10).min(lifetime / 2)
    }

    fn lifetime(&self) -> Duration {
        self.expires_in.and_then(|seconds| u64::try_from(seconds).ok()).map_or(Duration::ZERO, Duration::from_secs)
    }
}

/// A refresh that failed, as the bucket remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshFailure {
    /// How often in a row.
    pub count: u32,
    /// Until when this failure is the answer to whoever asks.
    pub until: Timestamp,
    /// The HTTP status for whoever waits.
    pub status: u16,
    /// Why, from a fixed list.
    pub reason: String,
}

impl RefreshFailure {
    /// What to answer whoever asks, as long as this failure is the answer.
    #[must_use]
    pub fn answer(&self, now: Timestamp) -> Option<WorkerReply> {
        let wait = Duration::try_from(self.until.duration_since(now)).ok().filter(|wait| !wait.is_zero())?;
        Some(WorkerReply::error(self.status, &self.reason).after(Some(wait)))
    }
}

#[expect(clippy::ref_option, reason = "serde passes a reference")]
fn optional_in_clear<S: serde::Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => secret::in_clear(secret, serializer),
        None => serializer.serialize_none(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// RFC 3339 with six fraction digits and a numeric offset: `2025-06-01T12:00:00.000000+00:00`.
mod rfc3339_micros {
    use jiff::Timestamp;
    use jiff::fmt::temporal::DateTimePrinter;
    use jiff::tz::Offset;
    use serde::{Deserialize as _, Deserializer, Serializer};

    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_str(&PRINTER.timestamp_with_offset_to_string(time, Offset::UTC)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<Timestamp>::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests;
