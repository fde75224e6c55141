//! The routes of an account's API keys.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::call::Call;
use crate::gateway::backend::Backend;
use crate::gateway::routes::configs::{answer, page};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::Reply;
use crate::gateway::routes::request::Asked;

pub(in crate::gateway) async fn list(backend: &Backend, mut asked: Asked) -> Result<Reply, HttpError> {
    let body = page(&mut asked.query)?;
    asked.query.end()?;
    answer(backend, Call::Keys, &asked.context, body).await
}

pub(in crate::gateway) async fn create(backend: &Backend, asked: Asked, body: Bytes) -> Result<Reply, HttpError> {
    asked.query.end()?;
    let body = serde_json::from_slice(&body).map_err(|_| HttpError::bad("the body must be a JSON object"))?;
    answer(backend, Call::KeysCreate, &asked.context, body).await
}

pub(in crate::gateway) async fn revoke(backend: &Backend, asked: Asked) -> Result<Reply, HttpError> {
    let body: Map<String, Value> = Map::from_iter([("key_id".to_owned(), asked.names.key().into())]);
    asked.query.end()?;
    answer(backend, Call::KeysRevoke, &asked.context, body).await
}
