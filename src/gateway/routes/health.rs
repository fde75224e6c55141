//! Liveness, readiness and metrics.

use hyper::StatusCode;

use crate::gateway::backend::Backend;
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::metrics::Metrics;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::ParsedRequest;

pub(in crate::gateway) fn alive(request: &ParsedRequest) -> Result<Reply, HttpError> {
    request.query.expect_empty()?;
    Ok(reply::json(StatusCode::OK, r#"{"status":"alive"}"#))
}

pub(in crate::gateway) async fn ready(backend: &Backend, request: &ParsedRequest) -> Result<Reply, HttpError> {
    request.query.expect_empty()?;
    backend.ready().await?;
    Ok(reply::json(StatusCode::OK, r#"{"status":"ready"}"#))
}

pub(in crate::gateway) fn metrics(metrics: &Metrics, request: &ParsedRequest) -> Result<Reply, HttpError> {
    request.query.expect_empty()?;
    Ok(reply::of_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.encode()?))
}
