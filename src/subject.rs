//! Names on the bus: the subjects a workflow node uses, and the validated names they are built from.
//!
//! A connection is identified by a [`ConnectionKey`]: the account that owns it, the integration (OAuth provider), and the
//! name the account chose. With it a node
//!
//! - subscribes to [`ConnectionKey::subject`], where each new state of the connection arrives as an
//!   [`OauthConnection`](crate::connection::OauthConnection); [`tokens_of`] covers all connections of an account;
//! - makes calls such as [`NodeCall::Token`] with [`client::call`](crate::client::call);
//! - subscribes to audit events with [`events_of`] or [`events_about`].
//!
//! The account in a node's subjects is proof of who is calling: the bus lets an account publish and subscribe only under
//! its own key. Names contain no dot, `*`, `>` or space, so a name cannot widen a subject.
//!
//! ```
//! use tokenbus::subject::{ConnectionKey, NodeCall, events_about, tokens_of};
//!
//! # fn main() -> Result<(), tokenbus::subject::NameError> {
//! let account = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
//! let key = ConnectionKey::parse(account, "acme", "workspace1")?;
//! assert_eq!(key.subject(), format!("ms.integration.oauth.{account}.acme.workspace1"));
//! assert_eq!(tokens_of(&key.account), format!("ms.integration.oauth.{account}.*.*"));
//! assert_eq!(NodeCall::Token.subject(&key.account), format!("ms.oauth.{account}.token"));
//! assert_eq!(events_about(&key), format!("ms.oauth.{account}.event.acme.workspace1.*"));
//!
//! // The subject of a push names the connection.
//! assert_eq!(ConnectionKey::parse_subject(&key.subject())?, key);
//! # Ok(())
//! # }
//! ```
//!
//! docs/subjects.md has the payloads.

// All names on the bus are built, parsed and validated in this module. Under `ms.integration.oauth`, subjects of five or six
// tokens are records, those of seven are commands, and those of eight belong to schedules.

mod call;
mod command;
mod config;
mod connection;
mod fixed;
mod key;
mod name;
pub(crate) mod pattern;
pub(crate) mod permission;
mod reply;
mod server;

pub use self::call::{NodeCall, events_about, events_of, tokens_of};
pub use self::connection::ConnectionKey;
pub use self::name::{Account, ConnectionName, Integration, NameError};

pub(crate) use self::call::{
    admin_call, again_call, edge_call, event_subject, events_matching, events_of_kind, is_seal_key_call, node_call,
    parse_admin_call, parse_again_call, parse_edge_call, seal_key_calls, service_call, service_calls,
};
pub(crate) use self::command::{CommandSubject, Verb, dead_letter};
pub(crate) use self::config::{config_record_subject, config_subject, parse_config_subject};
pub(crate) use self::fixed::*;
pub(crate) use self::key::{
    connections_at, connections_of, integration_of, split_account, state_key, state_key_of_any, states_of, ticket_key,
    ticket_key_of_any, with_account,
};
pub(crate) use self::name::is_id;
pub(crate) use self::reply::{Waiter, parse_reply};
pub(crate) use self::server::{
    account_claims, consumer_delete, consumer_info, consumer_next, direct_get, kv_stream, kv_subject, message_delete,
    message_get, stream_info, stream_restore, stream_snapshot,
};

/// For tests and benches, which reach these items through `tokenbus::internals`.
#[cfg(feature = "internals")]
pub(crate) mod internals {
    pub use super::command::{CommandSubject, Verb};
    pub use super::fixed::CONNECTIONS;
    pub use super::permission::needed_by_worker;
    pub use super::server::kv_subject;
}

const ROOT: &str = "ms.integration.oauth";
const CONFIG: &str = "config";

/// Splits a path into exactly N tokens.
fn tokens<const N: usize>(path: &str) -> Result<[&str; N], NameError> {
    let parts: Vec<&str> = path.split('.').collect();
    <[&str; N]>::try_from(parts).or(Err(NameError::Subject))
}

#[cfg(test)]
mod tests;
