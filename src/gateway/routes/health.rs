//! Liveness, readiness and metrics. A query is ignored: some probes add one against caches.

use hyper::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::gateway::backend::{Backend, NotReady};
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::metrics::Metrics;
use crate::gateway::routes::reply::{self, Reply};

pub(in crate::gateway) fn alive() -> Reply {
    reply::json(StatusCode::OK, r#"{"status":"alive"}"#)
}

pub(in crate::gateway) async fn ready(backend: &Backend, leaving: &CancellationToken) -> Result<Reply, HttpError> {
    if leaving.is_cancelled() {
        return Err(NotReady::Leaving.into());
    }
    backend.ready().await?;
    Ok(reply::json(StatusCode::OK, r#"{"status":"ready"}"#))
}

pub(in crate::gateway) fn metrics(metrics: &Metrics) -> Result<Reply, HttpError> {
    Ok(reply::of_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.encode()?))
}
