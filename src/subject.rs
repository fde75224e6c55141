//! Every subject, stream, bucket and key name: built, parsed and validated here and nowhere else.
//!
//! Under `ms.integration.oauth`, five or six tokens are facts, seven are commands, eight are the
//! clock. Names hold no dot, star, angle bracket or space, so no caller can widen a subject.

mod call;
mod command;
mod name;
pub mod pattern;
pub mod permission;
mod reply;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::call::{NodeCall, events_about, events_of, tokens_of};
pub use self::command::{CommandSubject, dead};
pub use self::name::{Account, ConnectionName, Integration, NameError};
pub use self::reply::{Waiter, parse_reply};

/// Stream of connection and config records.
pub const OAUTH: &str = "OAUTH";
/// Work queue of commands.
pub const OAUTH_COMMANDS: &str = "OAUTH_COMMANDS";
/// Scheduled refreshes, and those that are due.
pub const OAUTH_SCHEDULE: &str = "OAUTH_SCHEDULE";
/// Commands given up.
pub const OAUTH_DEAD: &str = "OAUTH_DEAD";
/// Audit events.
pub const OAUTH_EVENTS: &str = "OAUTH_EVENTS";

/// Bucket of stored connections, key `<account>.<integration>.<name>`.
pub const CONNECTIONS: &str = "oauth_connections";
/// Bucket of configs in force, key `<integration>`.
pub const CONFIGS: &str = "oauth_configs";
/// Bucket of pending logins, key `<hash of state>.<account>`; and of their start tickets,
/// key `<hash of ticket>.<account>.start`.
pub const STATES: &str = "oauth_states";
/// Bucket of API keys, key `<key id>`.
pub const API_KEYS: &str = "oauth_api_keys";
/// Bucket of the nonces of signed requests, key = hash of user and nonce.
pub const NONCES: &str = "oauth_nonces";
/// Bucket of what workers know of all that is stored, keys [`META_KEYS`], [`META_MARKS`] and [`META_REPAIR`].
pub const META: &str = "oauth_meta";
/// Key in [`META`]: the ids of the sealing keys in use.
pub const META_KEYS: &str = "keys";
/// Key in [`META`]: up to where the buckets' highest sequence is known.
pub const META_MARKS: &str = "marks";
/// Key in [`META`]: when the last repair pass began.
pub const META_REPAIR: &str = "repair";

/// What the stream `OAUTH` takes in.
pub const RECORDS_IN: &str = "oauth.record.>";
/// What the stream `OAUTH` stores records as.
pub const RECORDS_STORED: &str = "ms.integration.oauth.>";
/// The stored connection records, sent out again once they are committed.
pub const TOKENS: &str = "ms.integration.oauth.*.*.*";
/// Where they are sent out: the same subject, each star in its place.
pub const TOKENS_OUT: &str = "ms.integration.oauth.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}";
/// All commands.
pub const COMMANDS: &str = "ms.integration.oauth.*.*.*.*";
/// All schedules.
pub const SCHEDULES: &str = "ms.integration.oauth.*.*.*.refresh.*";
/// All schedules that are due.
pub const SCHEDULES_DUE: &str = "ms.integration.oauth.*.*.*.refresh.due";
/// All dead letters.
pub const DEAD_LETTERS: &str = "oauth.dead.>";
/// All events.
pub const EVENTS: &str = "ms.oauth.*.event.*.*.*";
/// What answers to the program's own commands are addressed to, in place of an edge's id.
pub const ADMIN_EDGE: &str = "admin";
/// All calls of the edge.
pub const EDGE_CALLS: &str = "oauth.edge.*";
/// Where JetStream is asked about the account.
pub const JETSTREAM_INFO: &str = "$JS.API.INFO";
/// Where all workers say which sealing keys they hold.
pub const WORKER_KEYS: &str = "oauth.worker.keys";

const ROOT: &str = "ms.integration.oauth";
const CONFIG: &str = "config";

/// What a worker is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Exchange an authorization code (connection).
    Exchange,
    /// Refresh the access token (connection).
    Refresh,
    /// Revoke and delete (connection).
    Revoke,
    /// Create or replace (config).
    Put,
    /// Delete (config).
    Delete,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Exchange, Self::Refresh, Self::Revoke, Self::Put, Self::Delete];

    /// The last token of the command's subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Refresh => "refresh",
            Self::Revoke => "revoke",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }

    /// Whether it is about a config, not a connection.
    #[must_use]
    pub fn is_config(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }

    /// The subjects that this verb's consumer takes; no two verbs overlap.
    #[must_use]
    pub fn filter(self) -> String {
        if self.is_config() {
            format!("{ROOT}.{CONFIG}.*.*.{}", self.as_str())
        } else {
            format!("{ROOT}.*.*.*.{}", self.as_str())
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which connection: what one account holds at one integration under one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionKey {
    /// Whose it is.
    pub account: Account,
    /// At which provider.
    pub integration: Integration,
    /// Under which name.
    pub name: ConnectionName,
}

impl ConnectionKey {
    fn path(&self) -> String {
        let Self { account, integration, name } = self;
        format!("{account}.{integration}.{name}")
    }

    /// The token subject: where the record is stored and what nodes subscribe to.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{ROOT}.{}", self.path())
    }

    /// Where the worker publishes the record.
    #[must_use]
    pub fn record_subject(&self) -> String {
        format!("oauth.record.{}", self.path())
    }

    /// The key in [`CONNECTIONS`].
    #[must_use]
    pub fn kv_key(&self) -> String {
        self.path()
    }

    /// Where a scheduled refresh is published.
    #[must_use]
    pub fn schedule_at(&self) -> String {
        format!("{ROOT}.{}.refresh.at", self.path())
    }

    /// Where the server puts it once it is due.
    #[must_use]
    pub fn schedule_due(&self) -> String {
        format!("{ROOT}.{}.refresh.due", self.path())
    }

    /// Takes a token subject apart.
    ///
    /// # Errors
    /// [`NameError`] when it is none.
    pub fn parse_subject(subject: &str) -> Result<Self, NameError> {
        let path = subject.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('.')).ok_or(NameError::Subject)?;
        Self::parse_kv_key(path)
    }

    /// Takes the subject of a due refresh apart.
    ///
    /// # Errors
    /// [`NameError`] when it is none.
    pub fn parse_due(subject: &str) -> Result<Self, NameError> {
        let path = subject.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('.')).ok_or(NameError::Subject)?;
        Self::parse_kv_key(path.strip_suffix(".refresh.due").ok_or(NameError::Subject)?)
    }

    /// Takes a key of [`CONNECTIONS`] apart.
    ///
    /// # Errors
    /// [`NameError`] naming the part that does not fit.
    pub fn parse_kv_key(key: &str) -> Result<Self, NameError> {
        let [account, integration, name] = tokens(key)?;
        Self::parse(account, integration, name)
    }

    /// Checks the form of the three names.
    ///
    /// # Errors
    /// [`NameError`] naming the part that does not fit.
    pub fn parse(account: &str, integration: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self {
            account: Account::parse(account)?,
            integration: Integration::parse(integration)?,
            name: ConnectionName::parse(name)?,
        })
    }
}

/// All events of that kind.
#[must_use]
pub fn events_of_kind(event: &str) -> String {
    format!("ms.oauth.*.event.*.*.{event}")
}

/// Where a config's record is stored.
#[must_use]
pub fn config_subject(integration: &Integration) -> String {
    format!("{ROOT}.{CONFIG}.{integration}")
}

/// The integration whose config's record is stored there.
#[must_use]
pub fn parse_config_subject(subject: &str) -> Option<Integration> {
    let path = subject.strip_prefix(ROOT)?.strip_prefix('.')?;
    Integration::parse(path.strip_prefix(CONFIG)?.strip_prefix('.')?).ok()
}

/// Where the worker publishes a config's record.
#[must_use]
pub fn config_record_subject(integration: &Integration) -> String {
    format!("oauth.record.{CONFIG}.{integration}")
}

/// The key of a pending login in [`STATES`].
#[must_use]
pub fn state_key(state_hash: &str, account: &Account) -> String {
    format!("{state_hash}.{account}")
}

/// The filter that finds a pending login whoever's it is.
#[must_use]
pub fn state_key_of_any(state_hash: &str) -> String {
    format!("{state_hash}.*")
}

/// The filter of one account's pending logins in [`STATES`].
#[must_use]
pub fn states_of(account: &Account) -> String {
    format!("*.{account}")
}

/// The key of a start ticket in [`STATES`]: one token longer than a login's, so that neither is taken for the other.
#[must_use]
pub fn ticket_key(ticket_hash: &str, account: &Account) -> String {
    format!("{ticket_hash}.{account}.start")
}

/// The filter that finds a start ticket whoever's it is.
#[must_use]
pub fn ticket_key_of_any(ticket_hash: &str) -> String {
    format!("{ticket_hash}.*.start")
}

/// Where an event goes that is about an account itself, not one of its connections or configs.
#[must_use]
pub fn account_event(account: &Account, event: &str) -> String {
    format!("ms.oauth.{account}.event._._.{event}")
}

/// The subject of a key in a bucket, as the server stores it.
#[must_use]
pub fn kv_subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// The stream behind a bucket.
#[must_use]
pub fn kv_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Where JetStream is asked about a stream.
#[must_use]
pub fn stream_info(stream: &str) -> String {
    format!("$JS.API.STREAM.INFO.{stream}")
}

/// Where a stream's leader is asked for a message.
#[must_use]
pub fn message_get(stream: &str) -> String {
    format!("$JS.API.STREAM.MSG.GET.{stream}")
}

/// Where a message is taken out of a stream.
#[must_use]
pub fn message_delete(stream: &str) -> String {
    format!("$JS.API.STREAM.MSG.DELETE.{stream}")
}

/// The filter of one account's connections in [`CONNECTIONS`], at one integration or all.
#[must_use]
pub fn connections_of(account: &Account, integration: Option<&Integration>) -> String {
    let integration = integration.map_or("*", Integration::as_str);
    format!("{account}.{integration}.*")
}

/// The filter of all accounts' connections at one integration in [`CONNECTIONS`].
#[must_use]
pub fn connections_at(integration: &Integration) -> String {
    format!("*.{integration}.*")
}

/// Where several messages of a stream are asked for at once.
#[must_use]
pub fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

/// The subject of one of the edge's calls.
#[must_use]
pub fn edge_call(call: &str) -> String {
    format!("oauth.edge.{call}")
}

/// Where the server's resolver is asked for an account's JWT, in the system account.
#[must_use]
pub fn account_claims(account: &Account) -> String {
    format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP")
}

/// Where an account's own users make a call on the bus.
#[must_use]
pub fn node_call(account: &Account, call: &str) -> String {
    format!("ms.oauth.{account}.{call}")
}

/// The name of the edge's call that a subject asks for.
#[must_use]
pub fn parse_edge_call(subject: &str) -> Option<&str> {
    subject.strip_prefix("oauth.edge.").filter(|call| !call.contains('.'))
}

/// Whether a text has the form of our ids: 128 bits in base64url, 22 characters.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 22 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn tokens<const N: usize>(path: &str) -> Result<[&str; N], NameError> {
    let parts: Vec<&str> = path.split('.').collect();
    parts.try_into().map_err(|_| NameError::Subject)
}

#[cfg(test)]
mod tests;
