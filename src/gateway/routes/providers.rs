//! The routes of providers' profiles.

use serde_json::Map;

use crate::call::Call;
use crate::gateway::backend::Backend;
use crate::gateway::routes::configs::forward;
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::Reply;
use crate::gateway::routes::request::ParsedRequest;

pub(in crate::gateway) async fn list(backend: &Backend, request: ParsedRequest) -> Result<Reply, HttpError> {
    request.query.expect_empty()?;
    forward(backend, Call::Providers, &request.context, Map::new()).await
}

pub(in crate::gateway) async fn get(backend: &Backend, request: ParsedRequest) -> Result<Reply, HttpError> {
    let provider = request.names.provider();
    request.query.expect_empty()?;
    let body = Map::from_iter([("provider".to_owned(), provider.into())]);
    forward(backend, Call::Provider, &request.context, body).await
}
