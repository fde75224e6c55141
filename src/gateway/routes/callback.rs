//! The routes that browsers open: the start of a bound login, and the provider's callback.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
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

/// The worker's answer to [`Call::Start`].
#[derive(Deserialize)]
struct StartAnswer {
    oauth_url: Secret,
    cookie: Cookie,
}

#[derive(Deserialize)]
struct Cookie {
    name: String,
    value: Secret,
    /// Seconds: as long as the login may take.
    max_age: u64,
}

/// Redirects a browser to the provider, with the cookie that the callback requires.
pub(in crate::gateway) async fn start(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let ticket = request.query.require("ticket")?;
    request.query.expect_empty()?;
    let answer = backend.call(Call::Start, &request.context, &json!({ "ticket": ticket.expose() })).await?;
    redirect(&serde_json::from_slice(&answer).map_err(HttpError::invalid_answer)?)
}

fn redirect(
    StartAnswer { oauth_url, cookie: Cookie { name, value, max_age } }: &StartAnswer,
) -> Result<Reply, HttpError> {
    let url = url::Url::parse(oauth_url.expose()).map_err(HttpError::invalid_answer)?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(HttpError::invalid_answer("oauth_url is not a web address"));
    }
    if !request::is_login_cookie(name, value.expose()) {
        return Err(HttpError::invalid_answer("the cookie is not a login's"));
    }
    let cookie = format!("{name}={}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax", value.expose());
    let header = |text: &str| HeaderValue::from_str(text).map_err(HttpError::invalid_answer);
    let mut reply = Response::default();
    *reply.status_mut() = StatusCode::SEE_OTHER;
    reply.headers_mut().insert(header::LOCATION, header(url.as_str())?);
    reply.headers_mut().insert(header::SET_COOKIE, header(&cookie)?);
    Ok(reply)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, name: &str, value: &str, expected: bool) {
        let cookie = Cookie { name: name.to_owned(), value: Secret::new(value), max_age: 600 };
        let reply = redirect(&StartAnswer { oauth_url: Secret::new(url), cookie });
        assert_eq!(reply.is_ok(), expected, "{url} {name} {value}");
    }

    #[test]
    fn b4_only_our_cookies_are_set_and_only_web_addresses_followed() {
        let url = "https://provider.example/authorize?state=s";
        check(url, "__Host-tokenbus-abc_1", "v-1", true);
        check("javascript:alert(1)", "__Host-tokenbus-a", "v", false);
        check("//provider.example", "__Host-tokenbus-a", "v", false);
        check(url, "session", "v", false);
        check(url, "__Host-tokenbus-", "v", false);
        check(url, "__Host-tokenbus-a", "v; Domain=example.com", false);
        check(url, "__Host-tokenbus-a=b; x", "v", false);
    }

    #[test]
    fn b4_the_cookie_is_hidden_from_scripts_and_other_sites() {
        let cookie = Cookie { name: "__Host-tokenbus-f".to_owned(), value: Secret::new("v"), max_age: 600 };
        let reply = redirect(&StartAnswer { oauth_url: Secret::new("https://p.example/a?state=s"), cookie }).unwrap();
        assert_eq!(reply.status(), StatusCode::SEE_OTHER);
        assert_eq!(reply.headers()[header::LOCATION], "https://p.example/a?state=s");
        assert_eq!(
            reply.headers()[header::SET_COOKIE],
            "__Host-tokenbus-f=v; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"
        );
    }
}
