//! The state of a connection, as nodes receive it.
//!
//! An [`OauthConnection`] is the JSON body of a push on the connection's
//! [token subject](crate::subject::ConnectionKey::subject) and of the answer to
//! [`NodeCall::Token`](crate::subject::NodeCall::Token). A node uses `access_token` while `status` is
//! [`Status::Active`]; in the other states a person has to log in again. Of two states, the one with the higher
//! `sequence` is newer. A push has its sequence in the header `Nats-Sequence`, not in the body;
//! [`TokenSource`](crate::client::TokenSource) fills it in.
//!
//! ```
//! use tokenbus::connection::{OauthConnection, Status};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let push = r#"{
//!     "access_token": "xoxb-1", "token_type": "Bearer", "expires_in": 3600, "status": "active",
//!     "expiry": "2026-01-01T12:00:00.000000+00:00", "subject": "…"
//! }"#;
//! let connection: OauthConnection = serde_json::from_str(push)?;
//! assert_eq!(connection.status, Status::Active);
//! let token = connection.access_token.ok_or("active connections have a token")?;
//! let header = format!("{} {}", connection.token_type, token.expose()); // for the request to the provider
//! # assert_eq!(header, "Bearer xoxb-1");
//! assert_eq!(format!("{token}"), "[redacted]"); // printing a token does not reveal it
//! # Ok(())
//! # }
//! ```

mod expiry;
mod issued_identity;
pub(crate) mod lifecycle;
mod refresh_token_end;
mod revocation;
mod stored;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::expiry::MIN_MARGIN;
use self::refresh_token_end::refresh_token_end;
pub(crate) use self::revocation::WaitingRevocation;
pub(crate) use self::stored::{GrantFacts, RefreshFailure, ResultRecord, SealedPart, StoredConnection};
pub use crate::oauth::Identity;
use crate::oauth::token::{BEARER, TokenSet};
use crate::secret::{self, Secret};

/// For tests and benches, which reach these items through `tokenbus::internals`.
#[cfg(feature = "internals")]
pub(crate) mod internals {
    pub use super::lifecycle::model::{Model, ModelConfig, Reply, Summary};
    pub use super::stored::{GrantFacts, SealedPart, StoredConnection};
}

/// [`OauthConnection::status_reason`] while refreshes are paused because the integration has no config.
pub(crate) const NO_CONFIG: &str = "no_config";
/// The same while the config has another client or another origin than the grant.
pub(crate) const CONFIG_CHANGED: &str = "config_changed";
/// Reason of a refresh that is held because another worker may have sent the refresh token.
pub(crate) const INTERRUPTED: &str = "refresh_interrupted";
/// [`OauthConnection::status_reason`] for a reader who asks for a longer validity than a token without refresh token has.
pub(crate) const NO_REFRESH_TOKEN: &str = "no_refresh_token";
/// Error for callers who ask for a new token of a connection that only a login can renew.
pub(crate) const NEEDS_LOGIN: &str = "the connection needs reauthorization: log in again";

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The connection has an access token, and is refreshed before it expires if the provider allows it.
    Active,
    /// The provider no longer accepts the connection's tokens. A person has to log in again.
    NeedsReauthorization,
    /// The connection was deleted.
    Revoked,
}

impl Status {
    /// The status as in JSON and in the header `Oauth-Status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NeedsReauthorization => "needs_reauthorization",
            Self::Revoked => "revoked",
        }
    }
}

/// A connection as nodes and HTTP callers receive it.
///
/// The body of a record, and so of a push, has no `refresh_token`, `sequence` or `modified`. The last two are properties of
/// the stored record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OauthConnection {
    /// The access token (RFC 6749 §1.4). Stays until it expires, also in the status [`Status::NeedsReauthorization`].
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub access_token: Option<Secret>,
    /// The token type (RFC 6749 §7.1) in the provider's spelling; `Bearer` if the provider did not send one.
    pub token_type: String,
    /// The refresh token (RFC 6749 §1.5). Nodes never receive it.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_in_clear")]
    pub refresh_token: Option<Secret>,
    /// Expiry of the access token; `None` if the provider did not send a lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339_micros")]
    pub expiry: Option<Timestamp>,
    /// Lifetime of the access token in seconds, as the provider sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<i64>,
    /// End of the refresh token, if the provider or the config states one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339_micros")]
    pub refresh_token_expiry: Option<Timestamp>,
    /// Stream sequence of the record; 0 if not known. The higher one of two is newer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// The token subject.
    pub subject: String,
    /// Time at which the record was stored, in Unix seconds; 0 if not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub modified: u64,
    /// The connection's state.
    pub status: Status,
    /// Why the connection is not refreshed, or why its last refresh failed, from a fixed list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// The scope that the provider granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The account at the provider, if the integration's config says where its id is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Further fields of the provider's answers that the integration's config selects.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

impl OauthConnection {
    /// Makes an active connection from the answer of a token endpoint.
    #[must_use]
    #[doc(hidden)]
    pub fn issued(subject: String, tokens: TokenSet) -> Self {
        let TokenSet { access_token, token_type, refresh_token, expires_in, expiry, scope, identity, metadata, .. } =
            tokens;
        Self {
            access_token: Some(access_token),
            token_type,
            refresh_token,
            expiry,
            expires_in,
            refresh_token_expiry: None,
            sequence: 0,
            subject,
            modified: 0,
            status: Status::Active,
            status_reason: None,
            scope,
            identity,
            metadata,
        }
        .without_tokens_in_facts()
    }

    /// Drops each fact that holds one of the tokens: scope, type, identity, and values of the metadata. Callers without
    /// credentials see facts, they are stored in clear, and the config decides from where in an answer they are taken.
    #[must_use]
    pub(crate) fn without_tokens_in_facts(mut self) -> Self {
        let tokens = [self.access_token.as_ref(), self.refresh_token.as_ref()].into_iter().flatten();
        let tokens: Vec<&str> = tokens.map(Secret::expose).filter(|token| !token.is_empty()).collect();
        // A short text may be a part of an ordinary one.
        let holds = |text: &str, token: &str| if token.len() < 8 { text == token } else { text.contains(token) };
        let holds_token = |text: &str| tokens.iter().any(|token| holds(text, token));
        let is_plain =
            |identity: &Identity| !holds_token(&identity.id) && !identity.label.as_deref().is_some_and(holds_token);
        self.identity = self.identity.filter(is_plain);
        self.scope = self.scope.filter(|scope| !holds_token(scope));
        if holds_token(&self.token_type) {
            BEARER.clone_into(&mut self.token_type);
        }
        self.metadata.retain(|name, value| !holds_token(name) && !holds_text(value, &holds_token));
        self
    }
}

/// Returns true if such a text is anywhere in the value.
fn holds_text(value: &Value, is_such: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is_such(text),
        Value::Array(values) => values.iter().any(|value| holds_text(value, is_such)),
        Value::Object(fields) => fields.iter().any(|(name, value)| is_such(name) || holds_text(value, is_such)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
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
