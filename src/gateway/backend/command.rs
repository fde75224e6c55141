//! Commands, and the sealed messages that carry them.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::{BackendError, RequestContext};
use crate::command::{Cookie, Credential, HEADER_TRACEPARENT, Work};
use crate::login::hash_of;
use crate::protocol::outgoing::Outgoing;
use crate::seal;
use crate::secret::Secret;
use crate::subject::{Account, CommandSubject, ConnectionKey, ConnectionName, Integration, Verb};

/// Age at which the queue drops a command. A callback is useless by then: RFC 6749 §4.1.2 recommends that authorization
/// codes expire after ten minutes at most.
const COMMAND_TTL: Duration = Duration::from_mins(10);

/// The login that a state belongs to: the answer to [`Call::State`].
#[derive(Debug, Clone, Deserialize)]
pub struct StateOwner {
    /// The account that started the login.
    pub account: Account,
    pub integration_id: Integration,
    pub connection_id: ConnectionName,
    /// The page that the person came from, as the worker's allow-list accepted it.
    pub return_to: Option<String>,
    /// Public curve key of the workers, to seal the command to.
    pub seal_to: String,
}

/// A command before it is sealed to the public curve key `seal_to` of the workers.
#[derive(Debug)]
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
pub(super) fn seal(command: Command, context: &RequestContext) -> Result<Outgoing, BackendError> {
    let credential = context.credential.clone();
    let mut message_id = None;
    let (subject, seal_to, work) = match command {
        Command::Exchange { state, query, owner, cookies } => {
            let StateOwner { account, integration_id: integration, connection_id: name, return_to: _, seal_to } = owner;
            let key = ConnectionKey { account, integration, name };
            message_id = Some(callback_id(&state, &query, credential.as_ref(), &cookies));
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
    let seal = |order: &[u8]| seal::seal_order(&seal_to, order);
    let mut outgoing = Outgoing::seal(&subject, context.origin.clone(), work, seal)?.with_ttl(COMMAND_TTL);
    if let Some(message_id) = message_id {
        outgoing = outgoing.with_message_id(&message_id);
    }
    if let Some(traceparent) = &context.traceparent {
        outgoing = outgoing.with_header(HEADER_TRACEPARENT, traceparent);
    }
    Ok(outgoing)
}

/// Derives the message id of a callback from all that its command holds. A callback that is rejected before it consumes
/// the login (no code, another account's credential) therefore has another id than the correct one and does not block it.
fn callback_id(state: &Secret, query: &Secret, credential: Option<&Credential>, cookies: &[Cookie]) -> String {
    let credential = credential.map_or("", Credential::expose);
    let cookies = cookies.iter().flat_map(|cookie| [cookie.name.as_str(), cookie.value.expose()]);
    let parts: Vec<&str> = [state.expose(), query.expose(), credential].into_iter().chain(cookies).collect();
    hash_of(&Secret::new(parts.join("\n")))
}
