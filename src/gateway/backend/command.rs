//! Commands, and the sealed messages that carry them.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use super::{BackendError, RequestContext};
use crate::command::{Cookie, Credential, HEADER_TRACEPARENT, Work};
use crate::login::hash_of;
use crate::protocol::outgoing::{Draft, Outgoing};
use crate::seal;
use crate::secret::Secret;
use crate::subject::{Account, CommandSubject, ConnectionKey, ConnectionName, Integration, Verb};

/// Age at which the queue drops a command. A callback is useless by then: RFC 6749 §4.1.2 recommends that authorization
/// codes expire after ten minutes at most.
const COMMAND_TTL: Duration = Duration::from_mins(10);

/// Seconds for which identical callbacks share a message id. Parallel ones become one command; a later one is a command of
/// its own, so that a callback that a worker turned away works when it is repeated.
const CALLBACK_WINDOW: i64 = 20;

/// The login that a state belongs to: the answer to [`Call::State`](crate::call::Call::State).
#[derive(Debug, Clone, Deserialize)]
pub struct StateOwner {
    /// The account that started the login.
    pub account: Account,
    #[serde(flatten)]
    pub target: LoginTarget,
    /// Public curve key of the workers, to seal the command to.
    pub seal_to: String,
}

/// The connection that a login is for.
#[derive(Debug, Clone, Deserialize)]
pub struct LoginTarget {
    pub integration_id: Integration,
    /// For people.
    #[serde(default)]
    pub integration_name: Option<String>,
    pub connection_id: ConnectionName,
    /// The page that the person came from, as the worker's allow-list accepted it.
    pub return_to: Option<String>,
}

/// The message id of a callback's command.
#[derive(Clone, Copy)]
pub(super) enum MessageId<'a> {
    /// The same for identical callbacks, so that one of them is queued.
    OfCallback,
    /// The command's own.
    Fresh,
    /// A new one, for a command that was published before.
    Again(&'a Outgoing),
}

/// A command before it is sealed to the public curve key `seal_to` of the workers.
#[derive(Debug, Clone)]
pub enum Command {
    Exchange {
        state: Secret,
        /// The callback's whole raw query.
        query: Secret,
        owner: StateOwner,
        /// The request's `__Host-tokenbus-*` cookies, for logins that are bound to a browser.
        cookies: Vec<Cookie>,
    },
    /// Creates or replaces a config.
    Put {
        integration: Integration,
        /// The admin's account.
        account: Account,
        seal_to: String,
        /// The config, unparsed.
        body: Bytes,
    },
    /// Deletes a config.
    Delete {
        integration: Integration,
        /// The admin's account.
        account: Account,
        seal_to: String,
    },
}

/// Builds the message. Its content is sealed to the workers, so the gateway cannot open it again.
pub(super) fn seal(
    command: Command,
    id: MessageId<'_>,
    context: &RequestContext,
    time: Timestamp,
) -> Result<Outgoing, BackendError> {
    let credential = context.credential.clone();
    let mut message_id = None;
    let (subject, seal_to, work) = match command {
        Command::Exchange { state, query, owner, cookies } => {
            let StateOwner { account, target, seal_to } = owner;
            let key = ConnectionKey { account, integration: target.integration_id, name: target.connection_id };
            if matches!(id, MessageId::OfCallback) {
                let window = time.as_second() / CALLBACK_WINDOW;
                message_id = Some(callback_id(&state, &query, credential.as_ref(), &cookies, window));
            }
            let work = Work::Exchange { query, cookies, credential };
            (CommandSubject::connection(&key, Verb::Exchange), seal_to, work)
        }
        Command::Put { integration, account, seal_to, body } => {
            let config = Secret::new(std::str::from_utf8(&body)?);
            let work = Work::Put { credential: credential.ok_or(BackendError::NoCredential)?, config };
            (CommandSubject::config(integration, account, Verb::Put), seal_to, work)
        }
        Command::Delete { integration, account, seal_to } => {
            let work = Work::Delete { credential: credential.ok_or(BackendError::NoCredential)? };
            (CommandSubject::config(integration, account, Verb::Delete), seal_to, work)
        }
    };
    let first = match id {
        MessageId::Again(first) => Some(first),
        MessageId::OfCallback | MessageId::Fresh => None,
    };
    let draft = Draft { subject: &subject, origin: context.origin.clone(), work, time, message_id, first };
    let mut outgoing = Outgoing::seal(draft, |order| seal::seal_order(&seal_to, order))?.with_ttl(COMMAND_TTL);
    if let Some(traceparent) = &context.traceparent {
        outgoing = outgoing.with_header(HEADER_TRACEPARENT, traceparent);
    }
    Ok(outgoing)
}

/// Derives the message id of a callback from all that its command holds, and from the time window. A callback that is
/// rejected before it consumes the login (no code, another account's credential) therefore has another id than the correct
/// one and does not block it.
fn callback_id(
    state: &Secret,
    query: &Secret,
    credential: Option<&Credential>,
    cookies: &[Cookie],
    window: i64,
) -> String {
    let (window, credential) = (window.to_string(), credential.map_or("", Credential::expose));
    let cookies = cookies.iter().flat_map(|cookie| [cookie.name.as_str(), cookie.value.expose()]);
    let parts: Vec<&str> =
        [window.as_str(), state.expose(), query.expose(), credential].into_iter().chain(cookies).collect();
    hash_of(&Secret::new(parts.join("\n")))
}
