//! `login`: builds an authorization request (RFC 6749 §4.1.1) and stores the pending login. `ticket`: describes the login of
//! a start link. `start`: consumes the link's ticket and returns the request's URL.

use serde::Deserialize;
use serde_json::{Value, json};

use super::status::Failure;
use super::{CallError, Checked, bad_request, no_config, replayed, too_many};
use crate::config::BindLogins;
use crate::event::{Event, EventKind};
use crate::integration::Pkce;
use crate::jetstream::NatsError;
use crate::login::{self, PendingLogin, Variables};
use crate::oauth::{authorization, pkce};
use crate::secret::Secret;
use crate::store::{Start, StoreError};
use crate::subject::{Account, ConnectionKey, ConnectionName, Integration};
use crate::system;
use crate::worker::context::{Context, DELETED_PER_CONNECTION, UsedUp};

/// Seconds to wait when too many logins are pending. Each ends after `oauth.login_ttl` at the latest.
const RETRY_AFTER: u64 = 10;
/// Error for an unknown, expired or used ticket.
const UNKNOWN_TICKET: &str = "this link is unknown, has expired or was used already; start the login again";
/// Characters at the two ends of a public key that pages show of an account without a name.
const SHOWN_KEY_BEGIN: usize = 6;
const SHOWN_KEY_END: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginQuestion {
    integration_id: Integration,
    connection_id: ConnectionName,
    #[serde(default)]
    scopes: Option<String>,
    #[serde(default)]
    return_to: Option<String>,
    #[serde(default)]
    bind: Option<Bind>,
    #[serde(default)]
    variables: Variables,
    #[serde(default)]
    params: Variables,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bind {
    /// The browser that opens its start link.
    Browser,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketQuestion {
    ticket: Secret,
}

pub(super) async fn begin(
    context: &Context,
    Checked { caller, ids, permit: _ }: Checked<'_>,
    question: LoginQuestion,
) -> Result<Value, CallError> {
    let LoginQuestion { integration_id: integration, connection_id: name, scopes, return_to, bind, variables, params } =
        question;
    let config = context.store.config(&integration).await?.ok_or_else(no_config)?;
    let config = config.with_login_params(params).map_err(bad_request)?;
    let scope = config.scope_text(&config.narrow_scopes(scopes.as_deref()).map_err(bad_request)?);
    let issued_at = config.issued_at_login(&variables).map_err(bad_request)?;
    config.check_new_values(&issued_at.variables).map_err(bad_request)?;
    let return_to = return_to
        .map(|wanted| login::return_to(&wanted, &context.config.oauth.return_to))
        .transpose()
        .map_err(bad_request)?;

    let key = ConnectionKey { account: caller.account.clone(), integration: integration.clone(), name: name.clone() };
    check_quota(context, &key).await?;
    let (nats, most) = (&context.nats, context.config.max_pending_logins(&caller.account));
    if !context.limits.pending_logins.admit(nats, &caller.account, most).await.map_err(StoreError::from)? {
        let text = format!(
            "{most} logins of this account are pending, which is all that `oauth.max_pending_logins` allows; \
             finish some, or try again later"
        );
        return Err(too_many(&text, RETRY_AFTER));
    }
    let state = login::state_from(&ids.random("state").map_err(StoreError::seal("state"))?);
    let hash = login::hash_of(&state);
    let verifier = (config.pkce == Pkce::S256).then(|| pkce::verifier(&system::random()));
    let request = authorization::AuthorizationRequest {
        state: &state,
        code_challenge: verifier.as_ref().map(pkce::challenge),
        scope: &scope,
        variables: &config.authorization_values(&issued_at.variables).map_err(bad_request)?,
        nonce: &login::nonce_of(&state),
    };
    let oauth_url = authorization::request_url(&config, &request).map_err(bad_request)?;

    let is_bound = bind.is_some() || context.config.oauth.bind == BindLogins::All;
    let cookie = is_bound.then(|| login::state_from(&system::random()));
    let sealed_verifier = verifier.map(|verifier| context.store.seal_verifier(&hash, &verifier)).transpose()?;
    let login = PendingLogin {
        integration,
        integration_name: Some(config.name.clone()),
        name,
        sealed_verifier,
        return_to,
        redirect_url: config.redirect_url.clone(),
        issued_at,
        variables_hash: Some(login::hash_of_variables(&config)),
        scope: Some(scope),
        cookie_hash: cookie.as_ref().map(login::hash_of),
    };
    match context.store.put_login(&hash, &caller.account, &login).await {
        Err(StoreError::Nats(NatsError::WrongLastSequence)) => return Err(replayed()),
        stored => stored?,
    }
    let origin = caller.origin.for_events(context.config.events.client_address);
    let event = Event::about_connection(&key, EventKind::LoginStarted, &caller.actor, context.clock.now());
    context.publish_event(&key.account, &event.from(&origin), Some(&hash)).await.map_err(StoreError::from)?;
    let Some(cookie_value) = cookie else { return Ok(json!({ "oauth_url": oauth_url })) };
    // The gateway builds the link from the ticket, because it knows its public URL.
    let ticket = login::state_from(&system::random());
    let ConnectionKey { account: _, integration, name } = key;
    let oauth_url = Secret::new(oauth_url);
    let start = Start { oauth_url, integration, name, cookie_name: login::cookie_name(&hash), cookie_value };
    context.store.put_ticket(&login::hash_of(&ticket), &caller.account, &start).await?;
    Ok(json!({ "ticket": ticket.expose() }))
}

/// Refuses a login of a new connection if the account has as many as it may have, or has deleted too many. A deleted connection
/// can be connected again, because that needs no new name.
async fn check_quota(context: &Context, key: &ConnectionKey) -> Result<(), CallError> {
    let most = context.config.max_connections(&key.account);
    let used_up = context.limits.connections.used_up(&context.nats, &key.account, most).await;
    let Some(used_up) = used_up.map_err(StoreError::from)? else { return Ok(()) };
    let text = match used_up {
        UsedUp::Connections if context.store.stored_connection(key).await?.is_none() => {
            format!("the account has {most} connections, which is all that `limits.connections` allows; delete some")
        }
        UsedUp::DeletedNames if !context.store.has_name(key).await? => format!(
            "the account has the names of {} deleted connections, {DELETED_PER_CONNECTION} for each connection that \
             `limits.connections` allows; connect under one of them, or ask the operator for a higher limit",
            most.saturating_mul(DELETED_PER_CONNECTION)
        ),
        UsedUp::Connections | UsedUp::DeletedNames => return Ok(()),
    };
    Err(too_many(&text, RETRY_AFTER))
}

/// Returns the names of the account, the integration and the connection that a ticket is for. The ticket is the credential,
/// and stays usable.
pub(super) async fn describe(context: &Context, TicketQuestion { ticket }: TicketQuestion) -> Result<Value, CallError> {
    let found = context.store.ticket(&login::hash_of(&ticket)).await?;
    let (account, Start { integration, name, .. }) = found.ok_or_else(unknown_ticket)?;
    let config = context.store.config(&integration).await?;
    let integration_name = config.map_or_else(|| integration.to_string(), |config| config.name);
    let account_name = context.config.accounts.get(&account).and_then(|settings| settings.name.clone());
    let account_name = account_name.unwrap_or_else(|| shortened(&account));
    Ok(json!({ "account_name": account_name, "integration_name": integration_name, "connection_id": name }))
}

fn unknown_ticket() -> CallError {
    CallError::Refused(Failure::Unauthorized, UNKNOWN_TICKET.to_owned())
}

/// Shortens a public key: `AC75JG…7A2D`.
fn shortened(account: &Account) -> String {
    let key = account.as_str();
    let begin = key.get(..SHOWN_KEY_BEGIN).unwrap_or(key);
    let end = key.get(key.len().saturating_sub(SHOWN_KEY_END)..).unwrap_or_default();
    format!("{begin}…{end}")
}

/// Consumes a ticket and returns the authorization URL and the cookie. The ticket is the credential.
pub(super) async fn start(context: &Context, TicketQuestion { ticket }: TicketQuestion) -> Result<Value, CallError> {
    let start = context.store.take_ticket(&login::hash_of(&ticket)).await?.ok_or_else(unknown_ticket)?;
    let Start { oauth_url, cookie_name, cookie_value, integration: _, name: _ } = &start;
    let max_age = context.config.oauth.login_ttl.as_secs();
    let cookie = json!({ "name": cookie_name, "value": cookie_value.expose(), "max_age": max_age });
    Ok(json!({ "oauth_url": oauth_url.expose(), "cookie": cookie }))
}
