//! The routes of integrations' configs.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::gateway::backend::{Backend, Command, RequestContext, Whoami};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::{Asked, Query};

/// Entries of a page when the caller names no number.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

pub(in crate::gateway) async fn list(backend: &Backend, mut asked: Asked) -> Result<Reply, HttpError> {
    let body = page(&mut asked.query)?;
    asked.query.end()?;
    answer(backend, Call::Configs, &asked.context, body).await
}

pub(in crate::gateway) async fn get(backend: &Backend, asked: Asked) -> Result<Reply, HttpError> {
    let integration = asked.names.integration()?;
    asked.query.end()?;
    let body = Map::from_iter([("integration_id".to_owned(), integration.as_str().into())]);
    answer(backend, Call::Config, &asked.context, body).await
}

pub(in crate::gateway) async fn put(backend: &Backend, asked: Asked, body: Bytes) -> Result<Reply, HttpError> {
    let integration = asked.names.integration()?;
    asked.query.end()?;
    let Whoami { account, admin: _, seal_to } = admin(backend, &asked.context).await?;
    backend.command(Command::Put { integration, account, seal_to, body }, &asked.context).await?;
    Ok(reply::success())
}

pub(in crate::gateway) async fn delete(backend: &Backend, asked: Asked) -> Result<Reply, HttpError> {
    let integration = asked.names.integration()?;
    asked.query.end()?;
    let Whoami { account, admin: _, seal_to } = admin(backend, &asked.context).await?;
    backend.command(Command::Delete { integration, account, seal_to }, &asked.context).await?;
    Ok(reply::success())
}

/// Asks whose credential it is.
async fn whoami(backend: &Backend, context: &RequestContext) -> Result<Whoami, HttpError> {
    let answer = backend.call(Call::Whoami, context, &json!({})).await?;
    serde_json::from_slice(&answer).map_err(|_| HttpError::Unreadable)
}

/// Spares the queue what a worker would refuse anyway; the worker judges again.
async fn admin(backend: &Backend, context: &RequestContext) -> Result<Whoami, HttpError> {
    let who = whoami(backend, context).await?;
    if who.admin { Ok(who) } else { Err(HttpError::Unauthorized("only admins may change configs")) }
}

/// Which page of a list is wanted.
pub(in crate::gateway) fn page(query: &mut Query) -> Result<Map<String, Value>, HttpError> {
    let limit = query.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let mut body = Map::from_iter([("limit".to_owned(), limit.into())]);
    query.pass("cursor", &mut body);
    Ok(body)
}

/// Makes a call and passes its answer on.
pub(in crate::gateway) async fn answer(
    backend: &Backend,
    call: Call,
    context: &RequestContext,
    body: Map<String, Value>,
) -> Result<Reply, HttpError> {
    Ok(reply::json(StatusCode::OK, backend.call(call, context, &Value::Object(body)).await?))
}
