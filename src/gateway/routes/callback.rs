//! The provider's callback, by a redirect or as a form that the browser posts.

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

use crate::call::{CALLBACK_PATH, Call};
use crate::command::Cookie;
use crate::gateway::backend::{
    Backend, BackendError, Command, LoginOutcome, LoginTarget, RequestContext, Stage, StateOwner,
};
use crate::gateway::routes::error::{ErrorReply, HttpError};
use crate::gateway::routes::page::{self, Outcome};
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::{self, ParsedRequest, Query};
use crate::login::{cookie_name, hash_of};
use crate::oauth::Identity;
use crate::oauth::callback::PARAMETERS;
use crate::secret::Secret;

/// Longest state that is looked up. Bounds the call to a worker; tokenbus's own states have 43 bytes. The worker accepts at
/// most 64 bytes, but a longer state never gets there: it belongs to no login, so its lookup fails with 401.
const MAX_STATE_BYTES: usize = 256;

/// A callback with a state.
struct Callback<'a> {
    backend: &'a Backend,
    context: RequestContext,
    state: Secret,
    /// The cookies that bind logins to this browser.
    cookies: Vec<Cookie>,
    /// True for an answer as a page.
    html: bool,
}

/// An answer to a callback.
struct Answer {
    reply: Reply,
    /// True if the login is known to have ended.
    has_ended: bool,
}

/// Has a worker exchange the code, and returns the result as JSON or as a page that shows no token. Clears the login's cookie
/// if the login has ended.
pub(in crate::gateway) async fn finish(backend: &Backend, mut request: ParsedRequest, html: bool) -> Reply {
    let state = match take_state(&mut request.query) {
        Ok(state) => state,
        Err(error) => return failure(&error.reply(false), None, html),
    };
    let cookies = request::login_cookies(&request.headers);
    let callback = Callback { backend, context: request.context, state, cookies, html };
    let answer = callback.answer(request.raw_query).await;
    callback.clear_cookie(answer).await
}

/// Redirects a posted callback to the same path by GET, with the parameters that are read. So the browser sends the cookie of
/// a bound login, which a POST from the provider's site lacks.
pub(in crate::gateway) async fn redirect_form(
    backend: &Backend,
    request: ParsedRequest,
    body: Bytes,
) -> Result<Reply, HttpError> {
    let form = request::form(&request.headers, &body)?;
    let state = take_state(&mut Query::parse_known(form, &PARAMETERS)?)?;
    let read = parameters(backend, &state, &request.context).await?;
    let pairs = form_urlencoded::parse(form.as_bytes()).filter(|(name, _)| read.iter().any(|read| read == name));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let mut reply = Response::default();
    *reply.status_mut() = StatusCode::SEE_OTHER;
    // Relative, because a proxy may serve the gateway below a path of its own.
    let path = CALLBACK_PATH.rsplit('/').next().unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{path}?{query}")).map_err(HttpError::invalid_answer)?;
    reply.headers_mut().insert(header::LOCATION, location);
    Ok(reply)
}

fn take_state(query: &mut Query) -> Result<Secret, HttpError> {
    let state = query.require("state")?;
    if state.expose().len() > MAX_STATE_BYTES {
        return Err(HttpError::bad_request(format!("state is longer than {MAX_STATE_BYTES} bytes")));
    }
    Ok(state)
}

/// Returns the names of the parameters that the login's config reads. For a state without a pending login the names that each
/// callback may have: the GET decides on such a state.
async fn parameters(backend: &Backend, state: &Secret, context: &RequestContext) -> Result<Vec<String>, HttpError> {
    #[derive(Deserialize)]
    struct Parameters {
        parameters: Option<Vec<String>>,
    }

    let question = json!({ "state": state.expose(), "parameters": true });
    let names = match backend.call(Call::State, context, &question).await {
        Ok(answer) => serde_json::from_slice::<Parameters>(&answer).map_err(HttpError::invalid_answer)?.parameters,
        Err(BackendError::Refused { status: 401, .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(names.unwrap_or_else(|| PARAMETERS.map(str::to_owned).to_vec()))
}

impl Callback<'_> {
    async fn answer(&self, query: Secret) -> Answer {
        let owner = match self.owner().await {
            Ok(owner) => owner,
            Err(error) => return self.refuse(&error, None).await,
        };
        let cookies = self.cookies.clone();
        let command = Command::Exchange { state: self.state.clone(), query, owner: owner.clone(), cookies };
        match self.exchange(command).await {
            Ok(connection) if self.html => {
                let label = label_of(&connection);
                ended(page::reply(StatusCode::OK, &Outcome::Connected(label.as_deref()), Some(&owner.target)))
            }
            Ok(connection) => ended(varies_by_accept(reply::json(StatusCode::OK, connection))),
            Err(error) => self.refuse(&error.into(), Some(&owner.target)).await,
        }
    }

    /// Asks a worker which login the state belongs to.
    async fn owner(&self) -> Result<StateOwner, HttpError> {
        // The state is the credential of this call. A credential of the request goes only into the sealed command.
        let context = RequestContext { credential: None, ..self.context.clone() };
        let answer = self.backend.call(Call::State, &context, &json!({ "state": self.state.expose() })).await?;
        serde_json::from_slice(&answer).map_err(HttpError::invalid_answer)
    }

    /// Sends the command. If an identical callback was queued and turned away, sends it once more.
    async fn exchange(&self, command: Command) -> Result<Bytes, BackendError> {
        match self.backend.command(command.clone(), &self.context).await {
            Err(BackendError::UsedState) => {}
            done => return done,
        }
        let outcome = if self.html {
            self.backend.settled_outcome(&self.state, &self.cookies, &self.context).await
        } else {
            self.backend.outcome_past(&[Stage::Queued], &self.state, &self.cookies, &self.context).await
        };
        if outcome?.stage == Stage::Pending {
            return self.backend.repeat_command(command, &self.context).await;
        }
        Err(BackendError::UsedState)
    }

    /// Answers a callback that made no connection. A browser whose login another callback has used sees what became of it.
    async fn refuse(&self, error: &HttpError, target: Option<&LoginTarget>) -> Answer {
        let error = error.reply(false);
        if !self.html || error.status != StatusCode::UNAUTHORIZED {
            return unknown(failure(&error, target, self.html));
        }
        let outcome = match self.backend.settled_outcome(&self.state, &self.cookies, &self.context).await {
            Ok(outcome) => outcome,
            Err(late @ BackendError::Deadline) => {
                return unknown(failure(&HttpError::Backend(late).reply(false), target, self.html));
            }
            // No browser of this login, or no login.
            Err(_) => return unknown(failure(&error, target, self.html)),
        };
        let target = Some(&outcome.target);
        match outcome.stage {
            Stage::Connected => ended(page::reply(StatusCode::OK, &Outcome::Connected(None), target)),
            Stage::Failed => {
                let error = HttpError::bad_request("this login has ended without a connection; start it again");
                ended(failure(&error.reply(false), target, self.html))
            }
            Stage::Pending | Stage::Queued | Stage::Running => unknown(failure(&error, target, self.html)),
        }
    }

    /// Asks what became of the login after an answer with that status. Workers answer before they take the command off the
    /// queue, so this callback's own command may still count as running. After a 401 it is another callback's, which this
    /// one does not wait for.
    async fn outcome(&self, status: StatusCode) -> Result<LoginOutcome, BackendError> {
        if status == StatusCode::UNAUTHORIZED {
            return self.backend.outcome(&self.state, &self.cookies, &self.context).await;
        }
        self.backend.settled_outcome(&self.state, &self.cookies, &self.context).await
    }

    /// Clears the login's cookie if the browser sent it and the login has ended. Asks a worker if that is not known.
    async fn clear_cookie(&self, answer: Answer) -> Reply {
        let Answer { mut reply, has_ended } = answer;
        let name = cookie_name(&hash_of(&self.state));
        if !self.cookies.iter().any(|cookie| cookie.name == name) {
            return reply;
        }
        let is_for_later = matches!(
            reply.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        let has_ended = has_ended
            || !is_for_later && self.outcome(reply.status()).await.is_ok_and(|outcome| outcome.stage.is_end());
        if has_ended && let Ok(cookie) = request::set_login_cookie(&name, "", 0) {
            reply.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        reply
    }
}

/// Returns the name of the connection's account at the provider.
fn label_of(connection: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Connection {
        identity: Option<Identity>,
    }

    serde_json::from_slice::<Connection>(connection).ok()?.identity?.label
}

fn ended(reply: Reply) -> Answer {
    Answer { reply, has_ended: true }
}

fn unknown(reply: Reply) -> Answer {
    Answer { reply, has_ended: false }
}

/// Builds the answer to a failure as JSON or as a page, with the same status.
pub(in crate::gateway) fn failure(error: &ErrorReply, target: Option<&LoginTarget>, html: bool) -> Reply {
    if html {
        return error.with_header(page::reply(
            error.status,
            &Outcome::Failed { error: &error.error, reason: error.reason.as_deref(), hint: error.hint.as_ref() },
            target,
        ));
    }
    varies_by_accept(error.json())
}

fn varies_by_accept(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    reply
}
