//! Calls of workflow nodes: the NATS micro service `tokenbus`.
//!
//! The account is in the subject. An account's export with `account_token_position` lets only that account publish there,
//! so the subject is the credential. No answer to a node contains a refresh token.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Request, Service as Micro, ServiceExt as _, error};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span, warn};

use super::{CONCURRENCY, QUEUE, UNSUBSCRIBE_TIMEOUT, answer_call, log_and_build_answer, status};
use crate::auth::{Role, VerifiedCaller};
use crate::command::{HEADER_RETRY_AFTER, HEADER_TRACEPARENT, WorkerReply};
use crate::jetstream::{Nats, header};
use crate::subject::NodeCall;
use crate::worker::context::Context;

/// Name of the micro service.
const NAME: &str = "tokenbus";

/// Serves calls until `stop`, then finishes the running ones.
pub(super) async fn serve(nats: Nats, context: Arc<Context>, stop: CancellationToken) -> Result<(), async_nats::Error> {
    let builder = nats.client().service_builder();
    let builder = builder.description("OAuth connections: access tokens for nodes").queue_group(QUEUE);
    let micro = builder.start(NAME, env!("CARGO_PKG_VERSION")).await?;
    let mut calls = Vec::new();
    for call in NodeCall::ALL {
        let endpoint = endpoint(&micro, call).await?;
        calls.push(endpoint.map(move |request| (call, request)));
    }
    let mut calls = stream::select_all(calls);
    let (running, permits) = (TaskTracker::new(), Arc::new(Semaphore::new(CONCURRENCY)));
    let take = async |call, request| {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let context = Arc::clone(&context);
        running.spawn(async move {
            answer(&context, call, request).await;
            drop(permit);
        });
        Ok::<(), async_nats::Error>(())
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            next = calls.next() => {
                let (call, request) = next.ok_or("subscriptions to calls ended")?;
                take(call, request).await?;
            }
        }
    }
    micro.stop().await?;
    let rest = async {
        // Without NATS the end of the subscriptions is never confirmed, so each wait has a limit.
        while let Ok(Some((call, request))) = tokio::time::timeout(UNSUBSCRIBE_TIMEOUT, calls.next()).await {
            take(call, request).await?;
        }
        running.close();
        running.wait().await;
        Ok::<(), async_nats::Error>(())
    };
    tokio::time::timeout(context.config.worker.drain, rest).await.unwrap_or(Ok(()))
}

async fn endpoint(micro: &Micro, call: NodeCall) -> Result<Endpoint, async_nats::Error> {
    micro.endpoint_builder().name(call.as_str()).add(call.filter()).await
}

async fn answer(context: &Context, call: NodeCall, request: Request) {
    if request.message.reply.is_none() {
        return;
    }
    let empty = HeaderMap::new();
    let headers = request.message.headers.as_ref().unwrap_or(&empty);
    let traceparent: String = header(headers, HEADER_TRACEPARENT).chars().take(64).collect();
    let span = info_span!("call", call = call.as_str(), by = "node", traceparent);
    let done = async {
        let account = call.account_of(&request.message.subject).map_err(super::bad_request)?;
        let actor = format!("node:{account}");
        let caller = VerifiedCaller { account, role: Role::Member, actor };
        let payload = &request.message.payload;
        // An empty payload means no parameters.
        let body: &[u8] = if payload.is_empty() { b"{}" } else { payload };
        if call == NodeCall::Login && is_bound(body) {
            return Err(super::bad_request(
                "a login that is bound to a browser begins at the gateway; leave `bind` out",
            ));
        }
        answer_call(context, &caller, call, body).await
    };
    let done = done.instrument(span.clone()).await;
    let (answer, headers) = build_response(log_and_build_answer(&span, done));
    if let Err(error) = request.respond_with_headers(answer, headers).await {
        warn!("answer to a node's call not sent: {error}");
    }
}

/// Returns true if a login asks for a start link. Only the gateway can build one: it knows its public URL.
fn is_bound(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|question| question.get("bind").is_some())
}

/// Converts an answer to the micro service's form, without refresh tokens.
fn build_response(answer: WorkerReply) -> (Result<Bytes, error::Error>, HeaderMap) {
    let is_success = status::is_success(&answer);
    let WorkerReply { status, mut body, retry_after } = answer;
    let mut headers = HeaderMap::new();
    if let Some(seconds) = retry_after {
        headers.insert(HEADER_RETRY_AFTER, seconds.to_string());
    }
    if is_success {
        remove_refresh_tokens(&mut body);
        return (Ok(body.to_string().into()), headers);
    }
    (Err(error::Error { status: super::error_text(&body), code: status.into() }), headers)
}

/// Removes the refresh token from a connection, or from each connection of a page.
fn remove_refresh_tokens(body: &mut Value) {
    if let Some(connection) = body.as_object_mut() {
        connection.remove("refresh_token");
    }
    for connection in body.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten() {
        remove_refresh_tokens(connection);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_answer_to_a_node_holds_a_refresh_token() {
        #[track_caller]
        fn check(body: Value, expected: &Value) {
            let (answer, _) = build_response(WorkerReply::ok(body));
            let body: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
            assert_eq!(&body, expected);
        }
        let connection = json!({ "access_token": "at", "refresh_token": "rt", "sequence": 1 });
        let shown = json!({ "access_token": "at", "sequence": 1 });
        check(connection.clone(), &shown);
        check(
            json!({ "results": [connection.clone(), connection], "results_total": 2 }),
            &json!({ "results": [shown.clone(), shown], "results_total": 2 }),
        );
    }

    #[test]
    fn an_error_that_quotes_the_caller_fits_into_a_header() {
        let (answer, headers) = build_response(WorkerReply {
            retry_after: Some(7),
            ..WorkerReply::error(400, "unknown field `a\r\nNats-Context-Error-Code: 200`")
        });
        let error = answer.unwrap_err();
        assert_eq!((error.status.as_str(), error.code), ("unknown field `a  Nats-Context-Error-Code: 200`", 400));
        assert_eq!(header(&headers, "Retry-After"), "7");
    }
}
