//! The routes of an account's API keys.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::configs::{answer, page};
use super::error::HttpError;
use super::reply::Reply;
use super::request::Asked;
use crate::bus::Bus;

pub(super) async fn list(bus: &Bus, mut asked: Asked) -> Result<Reply, HttpError> {
    let body = page(&mut asked.query)?;
    asked.query.end()?;
    answer(bus, "keys", &asked.caller, body).await
}

pub(super) async fn create(bus: &Bus, asked: Asked, body: Bytes) -> Result<Reply, HttpError> {
    asked.query.end()?;
    let body = serde_json::from_slice(&body).map_err(|_| HttpError::bad("the body must be a JSON object"))?;
    answer(bus, "keys-create", &asked.caller, body).await
}

pub(super) async fn revoke(bus: &Bus, asked: Asked) -> Result<Reply, HttpError> {
    let body: Map<String, Value> = Map::from_iter([("key_id".to_owned(), asked.names.key().into())]);
    asked.query.end()?;
    answer(bus, "keys-revoke", &asked.caller, body).await
}
