//! The routes of integrations' configs.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::gateway::backend::{Bus, Caller, Command, Whoami};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::{Asked, Query};

/// Entries of a page when the caller names no number.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

pub(in crate::gateway) async fn list(bus: &Bus, mut asked: Asked) -> Result<Reply, HttpError> {
    let body = page(&mut asked.query)?;
    asked.query.end()?;
    answer(bus, Call::Configs, &asked.caller, body).await
}

pub(in crate::gateway) async fn get(bus: &Bus, asked: Asked) -> Result<Reply, HttpError> {
    let integration = asked.names.integration()?;
    asked.query.end()?;
    let body = Map::from_iter([("integration_id".to_owned(), integration.as_str().into())]);
    answer(bus, Call::Config, &asked.caller, body).await
}

pub(in crate::gateway) async fn put(bus: &Bus, asked: Asked, body: Bytes) -> Result<Reply, HttpError> {
    let integration = asked.names.integration()?;
    asked.query.end()?;
    let Whoami { account, admin: _, seal_to } = admin(bus, &asked.caller).await?;
    bus.command(Command::Put { integration, account, seal_to, body }, &asked.caller).await?;
    Ok(reply::success())
}

pub(in crate::gateway) async fn delete(bus: &Bus, asked: Asked) -> Result<Reply, HttpError> {
    let integration = asked.names.integration()?;
    asked.query.end()?;
    let Whoami { account, admin: _, seal_to } = admin(bus, &asked.caller).await?;
    bus.command(Command::Delete { integration, account, seal_to }, &asked.caller).await?;
    Ok(reply::success())
}

/// Asks whose credential it is.
async fn whoami(bus: &Bus, caller: &Caller) -> Result<Whoami, HttpError> {
    let answer = bus.call(Call::Whoami, caller, &json!({})).await?;
    serde_json::from_slice(&answer).map_err(|_| HttpError::Unreadable)
}

/// Spares the queue what a worker would refuse anyway; the worker judges again.
async fn admin(bus: &Bus, caller: &Caller) -> Result<Whoami, HttpError> {
    let who = whoami(bus, caller).await?;
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
    bus: &Bus,
    call: Call,
    caller: &Caller,
    body: Map<String, Value>,
) -> Result<Reply, HttpError> {
    Ok(reply::json(StatusCode::OK, bus.call(call, caller, &Value::Object(body)).await?))
}
