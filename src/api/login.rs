//! `login`: an authorization request (RFC 6749 §4.1.1) and what is kept until its answer.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{CallError, bad_request, no_config};
use crate::auth::Caller;
use crate::event::{Event, EventKind};
use crate::integration::Pkce;
use crate::login::{self, PendingLogin, Variables};
use crate::nats;
use crate::oauth::{authorization, pkce};
use crate::store;
use crate::subject::{CommandSubject, ConnectionKey, ConnectionName, Integration, Verb};
use crate::system;
use crate::worker::Service;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    integration_id: Integration,
    connection_id: ConnectionName,
    #[serde(default)]
    scopes: Option<String>,
    #[serde(default)]
    return_to: Option<String>,
    #[serde(default)]
    bind: Option<String>,
    #[serde(default)]
    variables: Variables,
}

pub(super) async fn begin(service: &Service, caller: &Caller, question: Question) -> Result<Value, CallError> {
    let Question { integration_id: integration, connection_id: name, scopes, return_to, bind, variables } = question;
    if bind.is_some() {
        return Err(bad_request("this version cannot bind a login to a browser yet; leave `bind` out"));
    }
    let config = service.store.config(&integration).await?.ok_or_else(no_config)?;
    let scopes = config.narrow_scopes(scopes.as_deref()).map_err(bad_request)?;
    let issued_at = config.issued_at(&variables).map_err(bad_request)?;
    let return_to = return_to
        .map(|wanted| login::return_to(&wanted, &service.config.oauth.return_to))
        .transpose()
        .map_err(bad_request)?;

    let state = login::state_from(&system::random());
    let hash = login::state_hash(&state);
    let verifier = (config.pkce == Pkce::S256).then(|| pkce::verifier(&system::random()));
    let params = authorization::AuthorizationParams {
        state: &state,
        code_challenge: verifier.as_ref().map(pkce::challenge),
        scopes: &scopes,
        variables: &issued_at.variables,
    };
    let oauth_url = authorization::url(&config, &params).map_err(bad_request)?;

    let sealed_verifier = verifier.map(|verifier| service.store.seal_verifier(&hash, &verifier)).transpose()?;
    let key = ConnectionKey { account: caller.account.clone(), integration: integration.clone(), name: name.clone() };
    let login = PendingLogin {
        integration,
        name,
        sealed_verifier,
        return_to,
        redirect_url: config.redirect_url.clone(),
        issued_at,
    };
    service.store.put_login(&hash, &caller.account, &login).await?;
    tell(service, &key, caller, &hash).await?;
    Ok(json!({ "oauth_url": oauth_url }))
}

async fn tell(service: &Service, key: &ConnectionKey, caller: &Caller, hash: &str) -> Result<(), CallError> {
    let subject = CommandSubject::connection(key, Verb::Exchange);
    let event = Event::about(&subject, EventKind::LoginStarted, &caller.actor, system::now());
    let name = event.event.as_str();
    let headers = nats::headers(Some(&format!("{hash}.{name}")));
    let body = store::json(&event)?;
    service.store.nats.publish(&subject.event_subject(name), headers, body).await.map_err(store::StoreError::from)?;
    Ok(())
}
