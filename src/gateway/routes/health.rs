//! Whether it lives, whether it can work, and what it counted.

use hyper::StatusCode;

use crate::gateway::backend::{Backend, BackendError};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::metrics::Metrics;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::Asked;

pub(in crate::gateway) fn alive(asked: &Asked) -> Result<Reply, HttpError> {
    asked.query.end()?;
    Ok(reply::json(StatusCode::OK, r#"{"status":"alive"}"#))
}

pub(in crate::gateway) async fn ready(backend: &Backend, asked: &Asked) -> Result<Reply, HttpError> {
    asked.query.end()?;
    match backend.ready().await {
        Ok(()) => Ok(reply::json(StatusCode::OK, r#"{"status":"ready"}"#)),
        Err(error) => Err(BackendError::Refused { status: 503, error, retry_after: None }.into()),
    }
}

pub(in crate::gateway) fn metrics(metrics: &Metrics, asked: &Asked) -> Result<Reply, HttpError> {
    asked.query.end()?;
    let text = metrics.encode().map_err(|_| HttpError::Unreadable)?;
    Ok(reply::of_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}
