//! `outcome`: what became of a login, for a browser whose callback comes again.

use serde::Deserialize;
use serde_json::{Value, json};

use super::CallError;
use super::status::Failure;
use crate::command::Cookie;
use crate::login::{ConsumedLogin, OTHER_BROWSER, UNKNOWN_STATE, hash_of};
use crate::protocol::commands;
use crate::secret::Secret;
use crate::store::{FoundLogin, StoreError};
use crate::subject::{CommandSubject, ConnectionKey, Verb};
use crate::worker::context::Context;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    state: Secret,
    /// The browser's login cookies.
    #[serde(default)]
    cookies: Vec<Cookie>,
}

/// Returns the connection that a login is for, and one of `pending`, `queued` (pending, and the queue holds a callback of this
/// connection), `running`, `connected` and `failed`. Returns no token, and nothing about the person.
pub(super) async fn outcome(context: &Context, Question { state, cookies }: Question) -> Result<Value, CallError> {
    let state_hash = hash_of(&state);
    let refuse = |text: &str| Err(CallError::Refused(Failure::Unauthorized, text.to_owned()));
    match context.store.login(&state_hash).await? {
        FoundLogin::Pending { account, login, revision: _ } => {
            if !login.is_of_browser(&state_hash, &cookies) {
                return refuse(OTHER_BROWSER);
            }
            let login = login.consumed();
            let key = ConnectionKey { account, integration: login.integration.clone(), name: login.name.clone() };
            let outcome = if queued_id(context, &key).await?.is_some() { "queued" } else { "pending" };
            Ok(answer(outcome, login))
        }
        FoundLogin::Used { account, command_id, login: Some(login) } => {
            if !login.is_of_browser(&state_hash, &cookies) {
                return refuse(OTHER_BROWSER);
            }
            let key = ConnectionKey { account, integration: login.integration.clone(), name: login.name.clone() };
            let outcome = outcome_of(context, &key, &command_id).await?;
            Ok(answer(outcome, login))
        }
        FoundLogin::Used { login: None, .. } | FoundLogin::Unknown => refuse(UNKNOWN_STATE),
    }
}

async fn outcome_of(context: &Context, key: &ConnectionKey, command_id: &str) -> Result<&'static str, CallError> {
    // Read the queue first: a command leaves it only after its connection is stored.
    let is_running = queued_id(context, key).await?.is_some_and(|queued| queued == command_id);
    let stored = context.store.stored_connection(key).await?;
    if stored.is_some_and(|stored| stored.login_id == command_id) {
        return Ok("connected");
    }
    Ok(if is_running { "running" } else { "failed" })
}

async fn queued_id(context: &Context, key: &ConnectionKey) -> Result<Option<String>, StoreError> {
    let subject = CommandSubject::connection(key, Verb::Exchange);
    Ok(commands::queued_id(&context.nats, &subject).await?)
}

fn answer(outcome: &str, login: ConsumedLogin) -> Value {
    let ConsumedLogin { integration, integration_name, name, return_to, cookie_hash: _ } = login;
    json!({
        "outcome": outcome,
        "integration_id": integration,
        "integration_name": integration_name,
        "connection_id": name,
        "return_to": return_to,
    })
}
