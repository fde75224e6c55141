//! The routes of connections: login, token, refresh, list, delete.

use serde_json::{Map, Value};

use super::configs::{answer, page};
use super::error::HttpError;
use super::reply::Reply;
use super::request::Asked;
use crate::bus::Bus;

/// Longest remaining lifetime that a caller may ask of a token: a day, in seconds.
const MAX_MIN_VALID: u32 = 86_400;

pub(super) async fn login(bus: &Bus, mut asked: Asked) -> Result<Reply, HttpError> {
    let mut body = named(&asked)?;
    let query = &mut asked.query;
    query.pass("scopes", &mut body);
    query.pass("return_to", &mut body);
    if let Some(bind) = query.take("bind") {
        if bind.expose() != "browser" {
            return Err(HttpError::bad("bind can be `browser` only"));
        }
        body.insert("bind".to_owned(), "browser".into());
    }
    let variables = query.take_all("var.");
    query.end()?;
    if !variables.is_empty() {
        body.insert("variables".to_owned(), variables.into());
    }
    answer(bus, "login", &asked.caller, body).await
}

pub(super) async fn token(bus: &Bus, mut asked: Asked) -> Result<Reply, HttpError> {
    let mut body = named(&asked)?;
    if let Some(seconds) = asked.query.number("min_valid", 0, MAX_MIN_VALID)? {
        body.insert("min_valid".to_owned(), seconds.into());
    }
    asked.query.end()?;
    answer(bus, "token", &asked.caller, body).await
}

pub(super) async fn refresh(bus: &Bus, mut asked: Asked) -> Result<Reply, HttpError> {
    let mut body = named(&asked)?;
    asked.query.pass("refresh_token", &mut body);
    asked.query.end()?;
    answer(bus, "refresh", &asked.caller, body).await
}

pub(super) async fn list(bus: &Bus, mut asked: Asked) -> Result<Reply, HttpError> {
    let mut body = page(&mut asked.query)?;
    if asked.names.has_integration() {
        body.insert("integration_id".to_owned(), asked.names.integration()?.as_str().into());
    }
    asked.query.end()?;
    answer(bus, "list", &asked.caller, body).await
}

pub(super) async fn revoke(bus: &Bus, asked: Asked) -> Result<Reply, HttpError> {
    let body = named(&asked)?;
    asked.query.end()?;
    answer(bus, "delete", &asked.caller, body).await
}

/// The body of a call about the connection in the path.
fn named(asked: &Asked) -> Result<Map<String, Value>, HttpError> {
    let (integration, connection) = (asked.names.integration()?, asked.names.connection()?);
    Ok(Map::from_iter([
        ("integration_id".to_owned(), integration.as_str().into()),
        ("connection_id".to_owned(), connection.as_str().into()),
    ]))
}
