//! Calls of the account ADMIN: `oauth.admin.<call>`. The server lets that account alone publish there, so the account is the
//! authority, and workers ask for no credential.

mod dead;
mod events;

use std::sync::Arc;

use async_nats::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::status::Failure;
use super::{
    Arrived, CallError, CallIds, QUEUE, Running, bad_request, keys, list, log_and_build_answer, parse, sealed, send,
};
use crate::auth::api_key::Author;
use crate::call::{AdminCall, Question};
use crate::command::Origin;
use crate::jetstream::ConnectError;
use crate::jetstream::receiver::{Receiver, Subscription};
use crate::rights::Rights;
use crate::subject::{ADMIN_CALLS, Account};
use crate::worker::context::Context;

/// Author in the audit log.
const AUTHOR: Author<'static> = Author { actor: "cli", origin: Origin { client_address: None, request_id: None } };

/// Serves calls until `stop`, then finishes the running ones.
pub(super) async fn serve(context: Arc<Context>, stop: CancellationToken) -> Result<(), ConnectError> {
    let subscriptions = vec![Subscription { subject: ADMIN_CALLS.to_owned(), queue: Some(QUEUE) }];
    let receiver =
        Receiver::new(&context.nats, &context.config.nats, "tokenbus worker: calls of the admin", subscriptions)?;
    let running = Running::new(context, (HeaderMap::new(), sealed::busy()));
    receiver.run(|message| running.start(message, answer), stop).await;
    running.drain().await;
    Ok(())
}

async fn answer(context: Arc<Context>, Arrived { message, reply, permit: _permit }: Arrived) {
    let call = AdminCall::parse_subject(&message.subject);
    let serve = async |question: Question, ids| {
        let span = info_span!("call", call = call.map_or("unknown", AdminCall::as_str), by = "admin");
        let body = question.body.get().as_bytes();
        let done = match call {
            Some(call) => dispatch(&context, call, &ids, body).instrument(span.clone()).await,
            None => Err(CallError::Refused(Failure::NotFound, "no such call".to_owned())),
        };
        log_and_build_answer(&span, done)
    };
    let answer = sealed::answer(&context, &message, serve).await;
    send(&context, reply, HeaderMap::new(), answer).await;
}

async fn dispatch(context: &Context, call: AdminCall, ids: &CallIds, body: &[u8]) -> Result<Value, CallError> {
    let for_account = || parse(body).and_then(take_account);
    match call {
        AdminCall::Keys => {
            let (account, rest) = for_account()?;
            keys::list_of(context, account.as_ref(), &parse_rest::<list::Page>(&rest)?).await
        }
        AdminCall::KeysCreate => {
            let wanted: keys::Wanted = parse(body)?;
            let account = wanted.account.clone().ok_or_else(|| bad_request("missing account"))?;
            keys::create_for(context, ids, (account, wanted), &Rights::all(), &AUTHOR).await
        }
        AdminCall::KeysRevoke => {
            let (account, rest) = for_account()?;
            let account = keys::revoke_of(context, account.as_ref(), &parse_rest(&rest)?, &AUTHOR).await?;
            Ok(json!({ "message": "success", "account": account }))
        }
        AdminCall::Events => events::list(context, &parse(body)?).await,
        AdminCall::Dead => dead::list(context, &parse(body)?).await,
        AdminCall::DeadRetry => dead::retry(context, &parse(body)?).await,
        AdminCall::DeadDrop => dead::drop_letter(context, &parse(body)?).await,
    }
}

/// Takes the account out of a question. The rest is the question that an account's own admin asks.
fn take_account(mut question: Map<String, Value>) -> Result<(Option<Account>, Value), CallError> {
    let account = question.remove("account").map(serde_json::from_value).transpose().map_err(bad_request)?;
    Ok((account, Value::Object(question)))
}

fn parse_rest<T: for<'de> Deserialize<'de>>(rest: &Value) -> Result<T, CallError> {
    parse(rest.to_string().as_bytes())
}
