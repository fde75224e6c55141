//! The provider's callback.

use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde_json::json;

use crate::call::Call;
use crate::gateway::backend::{Backend, Command, RequestContext, StateOwner};
use crate::gateway::routes::error::{ErrorReply, HttpError};
use crate::gateway::routes::page::{self, Outcome};
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::{self, ParsedRequest};
use crate::secret::Secret;

/// Longest state that is looked up. Bounds the call to a worker; tokenbus's own states have 43 bytes. The worker accepts at
/// most 64 bytes, but a longer state never gets there: it belongs to no login, so its lookup fails with 401.
const MAX_STATE_BYTES: usize = 256;

/// Has a worker exchange the code, and returns the result as JSON or as a page that shows no token.
pub(in crate::gateway) async fn finish(backend: &Backend, mut request: ParsedRequest, html: bool) -> Reply {
    let (state, owner) = match find_owner(backend, &mut request).await {
        Ok(found) => found,
        Err(error) => return failure(&error.reply(false), None, html),
    };
    let cookies = request::login_cookies(&request.headers);
    let command = Command::Exchange { state, query: request.raw_query, owner: owner.clone(), cookies };
    match backend.command(command, &request.context).await {
        Ok(_) if html => page::reply(StatusCode::OK, &Outcome::Connected, Some(&owner)),
        Ok(connection) => varies_by_accept(reply::json(StatusCode::OK, connection)),
        Err(error) => failure(&HttpError::Backend(error).reply(false), Some(&owner), html),
    }
}

/// Takes the state from the query, and asks a worker which login it belongs to.
async fn find_owner(backend: &Backend, request: &mut ParsedRequest) -> Result<(Secret, StateOwner), HttpError> {
    let state = request.query.require("state")?;
    if state.expose().len() > MAX_STATE_BYTES {
        return Err(HttpError::bad_request(format!("state is longer than {MAX_STATE_BYTES} bytes")));
    }
    // The state is the credential of this call. A credential of the request goes only into the sealed command.
    let context = RequestContext { credential: None, ..request.context.clone() };
    let answer = backend.call(Call::State, &context, &json!({ "state": state.expose() })).await?;
    let owner = serde_json::from_slice(&answer).map_err(HttpError::invalid_answer)?;
    Ok((state, owner))
}

/// Builds the answer to a failure as JSON or as a page, with the same status.
pub(in crate::gateway) fn failure(error: &ErrorReply, owner: Option<&StateOwner>, html: bool) -> Reply {
    if html {
        return error.with_header(page::reply(error.status, &Outcome::Failed(&error.error), owner));
    }
    varies_by_accept(error.json())
}

fn varies_by_accept(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    reply
}
