//! The routes of connections: login, token, refresh, list, delete.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::call::{Call, START_PATH};
use crate::gateway::backend::Backend;
use crate::gateway::routes::configs::{answer, page};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::Asked;
use crate::secret::Secret;

/// Longest remaining lifetime that a caller may ask of a token: a day, in seconds.
const MAX_MIN_VALID: u32 = 86_400;

/// What a worker answers to `login`: where to go, or a ticket to that.
#[derive(Deserialize)]
struct Begun {
    #[serde(default)]
    oauth_url: Option<Secret>,
    #[serde(default)]
    ticket: Option<Secret>,
}

pub(in crate::gateway) async fn login(
    backend: &Backend,
    public_url: Option<&Url>,
    mut asked: Asked,
) -> Result<Reply, HttpError> {
    let mut body = named(&asked)?;
    let query = &mut asked.query;
    query.pass("scopes", &mut body);
    query.pass("return_to", &mut body);
    if let Some(bind) = query.take("bind") {
        if bind.expose() != "browser" {
            return Err(HttpError::bad("bind can only be `browser`"));
        }
        body.insert("bind".to_owned(), "browser".into());
    }
    let variables = query.take_all("var.");
    query.end()?;
    if !variables.is_empty() {
        body.insert("variables".to_owned(), variables.into());
    }
    let answered = backend.call(Call::Login, &asked.context, &Value::Object(body)).await?;
    let Begun { oauth_url, ticket } = serde_json::from_slice(&answered).map_err(|_| HttpError::Unreadable)?;
    let oauth_url = oauth_url.or_else(|| Some(start_link(public_url?, &ticket?)));
    let oauth_url = oauth_url.ok_or(HttpError::Unreadable)?;
    Ok(reply::json(StatusCode::OK, json!({ "oauth_url": oauth_url.expose() }).to_string()))
}

/// The one-time link to the start of a bound login. Its host is the one of the settings, whatever `Host` says.
fn start_link(public_url: &Url, ticket: &Secret) -> Secret {
    let base = public_url.as_str().trim_end_matches('/');
    Secret::new(format!("{base}{START_PATH}?ticket={}", ticket.expose()))
}

pub(in crate::gateway) async fn token(backend: &Backend, mut asked: Asked) -> Result<Reply, HttpError> {
    let mut body = named(&asked)?;
    if let Some(seconds) = asked.query.number("min_valid", 0, MAX_MIN_VALID)? {
        body.insert("min_valid".to_owned(), seconds.into());
    }
    asked.query.end()?;
    answer(backend, Call::Token, &asked.context, body).await
}

pub(in crate::gateway) async fn refresh(backend: &Backend, mut asked: Asked) -> Result<Reply, HttpError> {
    let mut body = named(&asked)?;
    asked.query.pass("refresh_token", &mut body);
    asked.query.end()?;
    answer(backend, Call::Refresh, &asked.context, body).await
}

pub(in crate::gateway) async fn list(backend: &Backend, mut asked: Asked) -> Result<Reply, HttpError> {
    let mut body = page(&mut asked.query)?;
    if asked.names.has_integration() {
        body.insert("integration_id".to_owned(), asked.names.integration()?.as_str().into());
    }
    asked.query.end()?;
    answer(backend, Call::List, &asked.context, body).await
}

pub(in crate::gateway) async fn revoke(backend: &Backend, asked: Asked) -> Result<Reply, HttpError> {
    let body = named(&asked)?;
    asked.query.end()?;
    answer(backend, Call::Delete, &asked.context, body).await
}

/// The body of a call about the connection in the path.
fn named(asked: &Asked) -> Result<Map<String, Value>, HttpError> {
    let (integration, connection) = (asked.names.integration()?, asked.names.connection()?);
    Ok(Map::from_iter([
        ("integration_id".to_owned(), integration.as_str().into()),
        ("connection_id".to_owned(), connection.as_str().into()),
    ]))
}
