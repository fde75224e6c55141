//! The routes of integrations' configs.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::gateway::backend::{Backend, Command, RequestContext, Whoami};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::{ParsedRequest, Query};

/// Entries of a page if the caller names no number.
const PAGE_ENTRIES: u32 = 100;
/// Most entries of a page, as in the worker.
const MAX_PAGE_ENTRIES: u32 = 1000;

pub(in crate::gateway) async fn list(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let body = page(&mut request.query)?;
    request.query.expect_empty()?;
    forward(backend, Call::Configs, &request.context, body).await
}

pub(in crate::gateway) async fn get(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let integration = request.names.integration()?;
    let mut body = Map::from_iter([("integration_id".to_owned(), integration.as_str().into())]);
    request.query.move_flag_to("settings", &mut body)?;
    request.query.expect_empty()?;
    forward(backend, Call::Config, &request.context, body).await
}

pub(in crate::gateway) async fn put(
    backend: &Backend,
    request: ParsedRequest,
    body: Bytes,
) -> Result<Reply, HttpError> {
    let integration = request.names.integration()?;
    request.query.expect_empty()?;
    let Whoami { account, admin: _, seal_to } = require_admin(backend, &request.context).await?;
    backend.command(Command::Put { integration, account, seal_to, body }, &request.context).await?;
    Ok(reply::success())
}

pub(in crate::gateway) async fn delete(backend: &Backend, request: ParsedRequest) -> Result<Reply, HttpError> {
    let integration = request.names.integration()?;
    request.query.expect_empty()?;
    let Whoami { account, admin: _, seal_to } = require_admin(backend, &request.context).await?;
    backend.command(Command::Delete { integration, account, seal_to }, &request.context).await?;
    Ok(reply::success())
}

/// Returns the account and the key to seal to. Rejecting other callers here only spares the queue a command: the worker
/// checks the credential again.
async fn require_admin(backend: &Backend, context: &RequestContext) -> Result<Whoami, HttpError> {
    let answer = backend.call(Call::Whoami, context, &json!({})).await?;
    let whoami: Whoami = serde_json::from_slice(&answer).map_err(HttpError::invalid_answer)?;
    if whoami.admin { Ok(whoami) } else { Err(HttpError::Unauthorized("only admins may change configs")) }
}

/// Takes `limit` and `cursor` of a list.
pub(in crate::gateway) fn page(query: &mut Query) -> Result<Map<String, Value>, HttpError> {
    let limit = query.number("limit", 1..=MAX_PAGE_ENTRIES)?.unwrap_or(PAGE_ENTRIES);
    let mut body = Map::from_iter([("limit".to_owned(), limit.into())]);
    query.move_to("cursor", &mut body);
    Ok(body)
}

/// Makes a call and returns its answer unchanged.
pub(in crate::gateway) async fn forward(
    backend: &Backend,
    call: Call,
    context: &RequestContext,
    body: Map<String, Value>,
) -> Result<Reply, HttpError> {
    Ok(reply::json(StatusCode::OK, backend.call(call, context, &Value::Object(body)).await?))
}
