//! The start of a login that is bound to its browser: a page that shows who asks for what, and the click on its button.
//!
//! Only the click uses the ticket and sets the cookie, and only if it happened on our own page. So an attacker who forwards a
//! start link cannot have a person connect an account without seeing for whom.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use url::{Origin, Url};

use crate::call::Call;
use crate::gateway::backend::Backend;
use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::page::{self, Asked};
use crate::gateway::routes::reply::Reply;
use crate::gateway::routes::request::{self, ParsedRequest, Query};
use crate::secret::Secret;

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

/// Shows who asks for what. Uses nothing up.
pub(in crate::gateway) async fn page(backend: &Backend, mut request: ParsedRequest) -> Result<Reply, HttpError> {
    let ticket = request.query.require("ticket")?;
    request.query.expect_empty()?;
    let answer = backend.call(Call::Ticket, &request.context, &json!({ "ticket": ticket.expose() })).await?;
    let asked: Asked = serde_json::from_slice(&answer).map_err(HttpError::invalid_answer)?;
    Ok(page::start(&asked, &ticket))
}

/// Sends a browser on to the provider, with the cookie that the callback requires.
pub(in crate::gateway) async fn start(
    backend: &Backend,
    public_url: Option<&Url>,
    request: ParsedRequest,
    body: Bytes,
) -> Result<Reply, HttpError> {
    if !is_from_own_page(&request.headers, public_url.map(Url::origin)) {
        return Err(HttpError::Forbidden(
            "the request does not come from the start page; open the link and use its button",
        ));
    }
    request.query.expect_empty()?;
    let mut form = Query::parse(request::form(&request.headers, &body)?)?;
    let ticket = form.require("ticket")?;
    form.expect_empty()?;
    let answer = backend.call(Call::Start, &request.context, &json!({ "ticket": ticket.expose() })).await?;
    let answer: StartAnswer = serde_json::from_slice(&answer).map_err(HttpError::invalid_answer)?;
    let StartAnswer { oauth_url, cookie: Cookie { name, value, max_age } } = &answer;
    continue_at(oauth_url, &set_cookie(name, value, *max_age)?)
}

/// Returns true if the browser sent the request for a page of our own origin. Browsers without `Sec-Fetch-Site`, and all
/// browsers on plain HTTP, send `Origin` with each POST.
fn is_from_own_page(headers: &HeaderMap, own: Option<Origin>) -> bool {
    let single = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    if headers.contains_key("sec-fetch-site") {
        return single("sec-fetch-site").is_some_and(|site| site == "same-origin");
    }
    let own = own.filter(Origin::is_tuple).map(|own| own.ascii_serialization());
    own.is_some_and(|own| single(header::ORIGIN.as_str()).is_some_and(|origin| origin == own.as_str()))
}

fn set_cookie(name: &str, value: &Secret, max_age: u64) -> Result<HeaderValue, HttpError> {
    if !request::is_login_cookie(name, value.expose()) {
        return Err(HttpError::invalid_answer("the cookie is not a login's"));
    }
    request::set_login_cookie(name, value.expose(), max_age).map_err(HttpError::invalid_answer)
}

/// Answers with a page that continues to the provider. Not with a redirect: some browsers apply the form's CSP to the
/// redirects that follow, and the provider's are unknown.
fn continue_at(oauth_url: &Secret, cookie: &HeaderValue) -> Result<Reply, HttpError> {
    let url = Url::parse(oauth_url.expose()).map_err(HttpError::invalid_answer)?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(HttpError::invalid_answer("oauth_url is not a web address"));
    }
    let mut reply = page::to_provider(&url);
    reply.headers_mut().insert(header::SET_COOKIE, cookie.clone());
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn answer(url: &str, name: &str, value: &str) -> Result<Reply, HttpError> {
        continue_at(&Secret::new(url), &set_cookie(name, &Secret::new(value), 600)?)
    }

    #[test]
    fn b4_only_our_cookies_are_set_and_only_web_addresses_followed() {
        #[track_caller]
        fn check(url: &str, name: &str, value: &str, expected: bool) {
            assert_eq!(answer(url, name, value).is_ok(), expected, "{url} {name} {value}");
        }
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
        let reply = answer("https://p.example/a?state=s", "__Host-tokenbus-f", "v").unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        assert_eq!(
            reply.headers()[header::SET_COOKIE],
            "__Host-tokenbus-f=v; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn h9_the_click_must_come_from_our_own_page() {
        #[track_caller]
        fn check(sent: &[(&'static str, &'static str)], expected: bool) {
            let own = Url::parse("https://hub.example/bus/").unwrap().origin();
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_from_own_page(&headers, Some(own)), expected, "{sent:?}");
            assert!(
                expected && headers.contains_key("sec-fetch-site") || !is_from_own_page(&headers, None),
                "{sent:?}"
            );
        }
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false);
        check(&[("sec-fetch-site", "same-site"), ("origin", "https://hub.example")], false);
        check(&[("origin", "https://hub.example")], true);
        check(&[("origin", "https://hub.example"), ("origin", "https://hub.example")], false);
        check(&[("origin", "null")], false);
        check(&[], false);
    }
}
