//! The routes of connections: login, token, refresh, list, delete.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::call::{Call, START_PATH};
use crate::gateway::backend::Backend;
use crate::gateway::routes::configs::{forward, page};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::ParsedRequest;
use crate::secret::Secret;

/// Longest remaining lifetime that a caller may ask of a token: a day.
const MAX_MIN_VALID_SECONDS: u32 = 86_400;

/// The worker's answer to [`Call::Login`]: the provider's URL, or for a login that is bound to a browser a ticket for it.
#[derive(Deserialize)]
struct LoginAnswer {
    #[serde(default)]
    oauth_url: Option<Secret>,
    #[serde(default)]
    ticket: Option<Secret>,
}

pub(in crate::gateway) async fn login(
    backend: &Backend,
    public_url: Option<&Url>,
    mut request: ParsedRequest,
) -> Result<Reply, HttpError> {
    let mut body = key_fields(&request)?;
    let query = &mut request.query;
    query.move_to("scopes", &mut body);
    query.move_to("return_to", &mut body);
    if let Some(bind) = query.take("bind") {
        if bind.expose() != "browser" {
            return Err(HttpError::bad_request("bind can only be `browser`"));
        }
        body.insert("bind".to_owned(), "browser".into());
    }
    let variables = query.take_prefixed("var.");
    let params = query.take_prefixed("param.");
    query.expect_empty()?;
    for (name, values) in [("variables", variables), ("params", params)] {
        if !values.is_empty() {
            body.insert(name.to_owned(), values.into());
        }
    }
    let answer = backend.call(Call::Login, &request.context, &Value::Object(body)).await?;
    let LoginAnswer { oauth_url, ticket } = serde_json::from_slice(&answer).map_err(HttpError::invalid_answer)?;
    let oauth_url = oauth_url.or_else(|| Some(start_link(public_url?, &ticket?)));
    let oauth_url = oauth_url.ok_or_else(|| HttpError::invalid_answer("neither oauth_url nor ticket"))?;
    Ok(reply::json(StatusCode::OK, json!({ "oauth_url": oauth_url.expose() }).to_string()))
}

/// Returns the one-time link that starts a bound login. Its host comes from the settings, never from the `Host` header.
fn start_link(public_url: &Url, ticket: &Secret) -> Secret {
    let base = public_url.as_str().trim_end_matches('/');
    Secret::new(format!("{base}{START_PATH}?ticket={}", ticket.expose()))
}

pub(in crate::gateway) async fn token(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let mut body = key_fields(&request)?;
    if let Some(seconds) = request.query.number("min_valid", 0..=MAX_MIN_VALID_SECONDS)? {
        body.insert("min_valid".to_owned(), seconds.into());
    }
    request.query.expect_empty()?;
    forward(backend, Call::Token, &request.context, body).await
}

pub(in crate::gateway) async fn refresh(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let mut body = key_fields(&request)?;
    request.query.move_to("refresh_token", &mut body);
    request.query.expect_empty()?;
    forward(backend, Call::Refresh, &request.context, body).await
}

pub(in crate::gateway) async fn list(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let mut body = page(&mut request.query)?;
    request.query.move_flag_to("tokens", &mut body)?;
    if request.names.has_integration() {
        body.insert("integration_id".to_owned(), request.names.integration()?.as_str().into());
    }
    request.query.expect_empty()?;
    forward(backend, Call::List, &request.context, body).await
}

pub(in crate::gateway) async fn revoke(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let mut body = key_fields(&request)?;
    request.query.move_flag_to("revoke", &mut body)?;
    request.query.expect_empty()?;
    forward(backend, Call::Delete, &request.context, body).await
}

/// Returns the fields of a call's body that name the connection in the path.
fn key_fields(request: &ParsedRequest) -> Result<Map<String, Value>, HttpError> {
    let (integration, connection) = (request.names.integration()?, request.names.connection()?);
    Ok(Map::from_iter([
        ("integration_id".to_owned(), integration.as_str().into()),
        ("connection_id".to_owned(), connection.as_str().into()),
    ]))
}
