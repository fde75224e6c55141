//! The routes that a browser comes to: the start of a bound login, and the provider's callback.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::call::Call;
use crate::gateway::backend::{Backend, Command, RequestContext, StateOwner};
use crate::gateway::routes::error::{Answer, HttpError};
use crate::gateway::routes::page::{self, Outcome};
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::{self, Asked};
use crate::secret::Secret;

/// Longest state that is looked up; ours are far shorter.
const MAX_STATE: usize = 256;

#[derive(Deserialize)]
struct Started {
    oauth_url: Secret,
    cookie: Cookie,
}

#[derive(Deserialize)]
struct Cookie {
    name: String,
    value: Secret,
    /// Seconds that it is kept: as long as the login may take.
    max_age: u64,
}

/// Sends a browser on to the provider with the cookie that the callback then demands.
pub(in crate::gateway) async fn start(backend: &Backend, mut asked: Asked) -> Result<Reply, HttpError> {
    let ticket = asked.query.need("ticket")?;
    asked.query.end()?;
    let answer = backend.call(Call::Start, &asked.context, &json!({ "ticket": ticket.expose() })).await?;
    let started = serde_json::from_slice(&answer).map_err(|_| HttpError::Unreadable)?;
    redirect(&started).ok_or(HttpError::Unreadable)
}

fn redirect(Started { oauth_url, cookie: Cookie { name, value, max_age } }: &Started) -> Option<Reply> {
    let url = url::Url::parse(oauth_url.expose()).ok().filter(|url| matches!(url.scheme(), "https" | "http"))?;
    if !request::is_login_cookie(name, value.expose()) {
        return None;
    }
    let cookie = format!("{name}={}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax", value.expose());
    let mut reply = Response::default();
    *reply.status_mut() = StatusCode::SEE_OTHER;
    reply.headers_mut().insert(header::LOCATION, HeaderValue::from_str(url.as_str()).ok()?);
    reply.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_str(&cookie).ok()?);
    Some(reply)
}

/// Takes what the provider sent, has a worker exchange it, and says how it went: in JSON, or as a
/// page that shows no token.
pub(in crate::gateway) async fn finish(backend: &Backend, mut asked: Asked, html: bool) -> Reply {
    let owner = match owner(backend, &mut asked).await {
        Ok((state, owner)) => (state, owner),
        Err(error) => return failed(&error.answer(false), None, html),
    };
    let (state, owner) = owner;
    let cookies = request::login_cookies(&asked.headers);
    let command = Command::Exchange { state, query: asked.raw_query, owner: owner.clone(), cookies };
    match backend.command(command, &asked.context).await {
        Ok(_) if html => page::reply(StatusCode::OK, &Outcome::Connected, Some(&owner)),
        Ok(connection) => negotiated(reply::json(StatusCode::OK, connection)),
        Err(error) => failed(&HttpError::Backend(error).answer(false), Some(&owner), html),
    }
}

async fn owner(backend: &Backend, asked: &mut Asked) -> Result<(Secret, StateOwner), HttpError> {
    let state = asked.query.need("state")?;
    if state.expose().len() > MAX_STATE {
        return Err(HttpError::bad(format!("state is longer than {MAX_STATE} bytes")));
    }
    // The state is the credential; another one travels sealed in the command alone.
    let nobody = RequestContext { credential: None, ..asked.context.clone() };
    let answer = backend.call(Call::State, &nobody, &json!({ "state": state.expose() })).await?;
    let owner = serde_json::from_slice(&answer).map_err(|_| HttpError::Unreadable)?;
    Ok((state, owner))
}

/// A failure, in JSON or as a page; the status is the same.
pub(in crate::gateway) fn failed(answer: &Answer, owner: Option<&StateOwner>, html: bool) -> Reply {
    if html {
        return answer.with(page::reply(answer.status, &Outcome::Failed(&answer.error), owner));
    }
    negotiated(answer.json())
}

/// Marks an answer as the one to a wish for JSON.
fn negotiated(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, name: &str, value: &str, expected: bool) {
        let cookie = Cookie { name: name.to_owned(), value: Secret::new(value), max_age: 600 };
        let reply = redirect(&Started { oauth_url: Secret::new(url), cookie });
        assert_eq!(reply.is_some(), expected, "{url} {name} {value}");
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
    fn b4_the_cookie_is_kept_from_scripts_and_other_sites() {
        let cookie = Cookie { name: "__Host-tokenbus-f".to_owned(), value: Secret::new("v"), max_age: 600 };
        let reply = redirect(&Started { oauth_url: Secret::new("https://p.example/a?state=s"), cookie }).unwrap();
        assert_eq!(reply.status(), StatusCode::SEE_OTHER);
        assert_eq!(reply.headers()[header::LOCATION], "https://p.example/a?state=s");
        assert_eq!(
            reply.headers()[header::SET_COOKIE],
            "__Host-tokenbus-f=v; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"
        );
    }
}
