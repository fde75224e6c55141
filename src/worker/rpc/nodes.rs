//! Calls of workflow nodes: the NATS micro service `tokenbus`.
//!
//! The account is in the subject. An account's export with `account_token_position` lets only that account publish there,
//! so the subject is the credential. No answer to a node contains a refresh token.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use async_nats::HeaderMap;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::micro::Service;
use super::{Arrived, CallError, CallIds, Checked, QUESTION_BYTES, QUEUE, Running};
use super::{answer_call, bad_request, busy, log_and_build_answer, send, status, text_of, too_large};
use crate::auth::Authenticator;
use crate::command::{HEADER_REASON, HEADER_RETRY_AFTER, HEADER_TRACEPARENT, WorkerReply};
use crate::config::BindLogins;
use crate::jetstream::ConnectError;
use crate::jetstream::receiver::{Received, Receiver, Subscription};
use crate::subject::NodeCall;
use crate::telemetry::traces;
use crate::worker::context::{Busy, CallPermit, Context};

/// Most bytes of the headers of an answer without an error. They count as part of the message.
const HEADER_BYTES: usize = 64;

/// Serves calls until `stop`, then finishes the running ones.
pub(super) async fn serve(context: Arc<Context>, stop: CancellationToken) -> Result<(), ConnectError> {
    let service = Arc::new(Service::new());
    let calls = NodeCall::ALL.map(|call| Subscription { subject: call.filter(), queue: Some(QUEUE) });
    // Subscribe to the questions about the service last: once it answers one, the server has all subscriptions.
    let subscriptions = calls.into_iter().chain(service.subscriptions()).collect();
    let receiver =
        Receiver::new(&context.nats, &context.config.nats, "tokenbus worker: calls of nodes", subscriptions)?;
    let (payload, headers) = build_response(busy());
    let running = Running::new(Arc::clone(&context), (headers, payload));
    let start = |message: Received| {
        let Some((call, account)) = NodeCall::split_subject(&message.subject) else {
            let service = Arc::clone(&service);
            return running.start(message, async move |context, arrived| {
                answer_question(&context, &service, arrived).await;
            });
        };
        let Some(reply) = message.reply else { return };
        let permits = match call {
            NodeCall::List => &context.limits.lists,
            NodeCall::Refresh | NodeCall::Delete => &context.limits.command_calls,
            NodeCall::Token | NodeCall::Login | NodeCall::Failures => &context.limits.node_calls,
        };
        let queued = if running.is_full() { Err(Busy) } else { permits.queue(account) };
        let Ok(queued) = queued else { return running.refuse(reply) };
        // A copy, so that a call that waits keeps no larger buffer in memory.
        let question = message.payload.get(..=QUESTION_BYTES).unwrap_or(&message.payload).to_vec();
        let call = QueuedNodeCall { call, subject: message.subject, question, service: Arc::clone(&service) };
        running.start_queued(queued, reply, async move |context, permit, reply| {
            call.answer(&context, &permit, reply).await;
        });
    };
    receiver.run(start, stop).await;
    running.drain().await;
    Ok(())
}

/// A call that waits for a permit of its account.
struct QueuedNodeCall {
    call: NodeCall,
    subject: String,
    /// One byte longer than allowed if it is too long.
    question: Vec<u8>,
    service: Arc<Service>,
}

impl QueuedNodeCall {
    async fn answer(self, context: &Context, permit: &CallPermit, reply: String) {
        let Self { call, subject, question, service } = self;
        let began = Instant::now();
        let (body, traceparent) = split_trace(&question);
        let span = info_span!("call", call = call.as_str(), by = "node", traceparent);
        let done = async {
            let caller = Authenticator::node(call.account_of(&subject).map_err(bad_request)?, call)?;
            if call == NodeCall::Login {
                refuse_bound_login(context, &body)?;
            }
            answer_call(context, Checked { caller: &caller, ids: &CallIds::Random, permit }, call, &body).await
        };
        let traced = traces::call(call.as_str());
        traces::continued(&traced, Some(&traceparent));
        let done = done.instrument(span.clone()).instrument(traced).await;
        let answer = log_and_build_answer(&span, done);
        service.count(call, &answer, began.elapsed());
        let (mut payload, mut headers) = build_response(answer);
        let bytes = payload.len() + HEADER_BYTES;
        if bytes > context.nats.max_payload() {
            (payload, headers) = build_response(too_large(context, bytes));
        }
        send(context, reply, headers, payload).await;
    }
}

/// Answers a question about the service.
async fn answer_question(context: &Context, service: &Service, Arrived { message, reply, permit: _permit }: Arrived) {
    if let Some(answer) = service.answer(&message.subject) {
        send(context, reply, HeaderMap::new(), answer.to_string().into()).await;
    }
}

/// Takes the trace context out of a question. An empty payload means no parameters.
fn split_trace(payload: &[u8]) -> (Cow<'_, [u8]>, String) {
    let is_traced = payload.windows(HEADER_TRACEPARENT.len()).any(|part| part == HEADER_TRACEPARENT.as_bytes());
    if payload.is_empty() {
        return (Cow::Borrowed(b"{}"), String::new());
    }
    if is_traced
        && payload.len() <= QUESTION_BYTES
        && let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(payload)
        && let Some(Value::String(trace)) = fields.remove(HEADER_TRACEPARENT)
    {
        return (Cow::Owned(Value::Object(fields).to_string().into_bytes()), super::shortened(&trace));
    }
    (Cow::Borrowed(payload), String::new())
}

/// Refuses a login that needs a start link. Only the gateway can build one: it knows its public URL.
fn refuse_bound_login(context: &Context, body: &[u8]) -> Result<(), CallError> {
    if context.config.oauth.bind == BindLogins::All {
        return Err(bad_request("all logins are bound to browsers (`oauth.bind`) and begin at the gateway"));
    }
    if serde_json::from_slice::<Value>(body).is_ok_and(|question| question.get("bind").is_some()) {
        return Err(bad_request("a login that is bound to a browser begins at the gateway; leave `bind` out"));
    }
    Ok(())
}

/// Converts an answer to the micro service's form.
fn build_response(answer: WorkerReply) -> (Bytes, HeaderMap) {
    let is_success = status::is_success(&answer);
    let WorkerReply { status, body, retry_after } = answer;
    let mut headers = HeaderMap::new();
    if let Some(seconds) = retry_after {
        headers.insert(HEADER_RETRY_AFTER, seconds.to_string());
    }
    if is_success {
        return (body.to_string().into(), headers);
    }
    let reason = text_of(&body, "reason");
    if !reason.is_empty() {
        headers.insert(HEADER_REASON, reason);
    }
    headers.insert(NATS_SERVICE_ERROR, text_of(&body, "error"));
    headers.insert(NATS_SERVICE_ERROR_CODE, status.to_string());
    (Bytes::new(), headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::header;

    #[test]
    fn an_error_that_quotes_the_caller_fits_into_a_header() {
        let (answer, headers) = build_response(WorkerReply {
            retry_after: Some(7),
            ..WorkerReply::error(400, "unknown field `a\r\nNats-Context-Error-Code: 200`")
        });
        assert!(answer.is_empty());
        assert_eq!(header(&headers, "Nats-Service-Error"), "unknown field `a  Nats-Context-Error-Code: 200`");
        assert_eq!(header(&headers, "Nats-Service-Error-Code"), "400");
        assert_eq!(header(&headers, "Retry-After"), "7");
        assert!(headers.get("Oauth-Reason").is_none());
        let (_, headers) = build_response(WorkerReply::error(400, "text").with_reason("config_changed"));
        assert_eq!(header(&headers, "Oauth-Reason"), "config_changed");
    }

    #[test]
    fn the_trace_is_no_field_of_a_question() {
        #[track_caller]
        fn check(payload: &str, body: &str, trace: &str) {
            let (found, traceparent) = split_trace(payload.as_bytes());
            assert_eq!((std::str::from_utf8(&found).unwrap(), traceparent.as_str()), (body, trace));
        }
        check("", "{}", "");
        check("{\"limit\":1}", "{\"limit\":1}", "");
        check("{\"limit\":1,\"traceparent\":\"00-a\"}", "{\"limit\":1}", "00-a");
        check("[\"traceparent\"]", "[\"traceparent\"]", "");
    }
}
