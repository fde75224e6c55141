//! The routes of an account's API keys.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::call::Call;
use crate::gateway::backend::Backend;
use crate::gateway::routes::configs::{forward, page};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::Reply;
use crate::gateway::routes::request::ParsedRequest;

pub(in crate::gateway) async fn list(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let body = page(&mut request.query)?;
    request.query.expect_empty()?;
    forward(backend, Call::Keys, &request.context, body).await
}

pub(in crate::gateway) async fn create(
    backend: &Backend,
    request: ParsedRequest,
    body: Bytes,
) -> Result<Reply, HttpError> {
    request.query.expect_empty()?;
    let body = serde_json::from_slice(&body).map_err(HttpError::BodyNotJson)?;
    forward(backend, Call::KeysCreate, &request.context, body).await
}

pub(in crate::gateway) async fn revoke(backend: &Backend, request: ParsedRequest) -> Result<Reply, HttpError> {
    let body: Map<String, Value> = Map::from_iter([("key_id".to_owned(), request.names.key().into())]);
    request.query.expect_empty()?;
    forward(backend, Call::KeysRevoke, &request.context, body).await
}
