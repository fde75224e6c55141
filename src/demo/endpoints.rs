//! The endpoints of the demo authorization server, as functions from request to response without IO.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use url::{Url, form_urlencoded};

use super::grants::{Allowed, Grants, InvalidGrant, Tokens, is_challenge};
use crate::secret::Secret;
use crate::system;

/// Longest parameter value in bytes.
const MAX_VALUE: usize = 4096;
/// Most parameters per request.
const MAX_PARAMETERS: usize = 32;

/// The registered client.
#[derive(Clone)]
pub(super) struct KnownClient {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// Compared byte for byte.
    pub(super) redirect_uri: String,
}

pub(super) struct Server {
    pub(super) client: KnownClient,
    /// Lifetime of access tokens in seconds.
    pub(super) expires_in: u32,
    pub(super) grants: Grants,
}

/// Response, before it becomes HTTP.
pub(super) enum Answer {
    /// HTML page.
    Page(StatusCode, String),
    Json(StatusCode, serde_json::Value),
    /// 303 to this URL.
    Redirect(String),
}

/// Parameters of a query or form, each at most once (RFC 6749 §3.1).
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Parses parameters. Returns `None` if one is repeated or too long, or if there are too many.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut all = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text) {
            let fits = value.len() <= MAX_VALUE && all.len() < MAX_PARAMETERS;
            if !fits || all.insert(name.into_owned(), value.into_owned()).is_some() {
                return None;
            }
        }
        Some(Self(all))
    }

    /// Returns a value, or the empty string if it is absent.
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

impl Server {
    /// Authorization endpoint (RFC 6749 §3.1). GET shows the page; POST takes the decision, with the request repeated in
    /// the form.
    pub(super) fn authorize(&mut self, parameters: &Parameters, posted: bool, now: Timestamp) -> Answer {
        let KnownClient { id, redirect_uri, secret: _ } = &self.client;
        if parameters.get("client_id") != id || parameters.get("redirect_uri") != redirect_uri {
            // No redirect to an unregistered client (RFC 6749 §4.1.2.1).
            return Answer::Page(
                StatusCode::BAD_REQUEST,
                page("<p>Unknown <code>client_id</code> or <code>redirect_uri</code>.</p>"),
            );
        }
        let error = if parameters.get("response_type") != "code" {
            Some("unsupported_response_type")
        } else if parameters.get("code_challenge_method") != "S256" || !is_challenge(parameters.get("code_challenge")) {
            Some("invalid_request")
        } else {
            None
        };
        match (error, posted, parameters.get("decision")) {
            (Some(error), _, _) => self.back(parameters, ("error", error)),
            (None, false, _) => Answer::Page(StatusCode::OK, login_page(parameters)),
            (None, true, "allow") => {
                let code = Secret::new(format!("code_{}", system::random_id()));
                let allowed = Allowed {
                    scope: parameters.get("scope").to_owned(),
                    challenge: parameters.get("code_challenge").to_owned(),
                    redirect_uri: redirect_uri.clone(),
                };
                self.grants.allow(allowed, code.clone(), now);
                self.back(parameters, ("code", code.expose()))
            }
            (None, true, _) => self.back(parameters, ("error", "access_denied")),
        }
    }

    fn back(&self, parameters: &Parameters, (name, value): (&str, &str)) -> Answer {
        let Ok(mut url) = Url::parse(&self.client.redirect_uri) else {
            return Answer::Page(StatusCode::BAD_REQUEST, page("<p>Unusable <code>redirect_uri</code>.</p>"));
        };
        url.query_pairs_mut().append_pair(name, value).append_pair("state", parameters.get("state"));
        Answer::Redirect(url.into())
    }

    /// Token endpoint (RFC 6749 §3.2).
    pub(super) fn token(&mut self, basic: Option<&str>, parameters: &Parameters, now: Timestamp) -> Answer {
        if !self.is_client(basic, parameters) {
            return Answer::Json(StatusCode::UNAUTHORIZED, json!({ "error": "invalid_client" }));
        }
        let fresh = Tokens { access: fresh("at"), refresh: fresh("rt") };
        let granted = match parameters.get("grant_type") {
            "authorization_code" => {
                let code = Secret::new(parameters.get("code"));
                let proof = (parameters.get("code_verifier"), parameters.get("redirect_uri"));
                self.grants.redeem(&code, proof, fresh.clone(), now)
            }
            "refresh_token" => self.grants.refresh(&Secret::new(parameters.get("refresh_token")), fresh.clone()),
            _ => return Answer::Json(StatusCode::BAD_REQUEST, json!({ "error": "unsupported_grant_type" })),
        };
        match granted {
            Ok(scope) => Answer::Json(
                StatusCode::OK,
                json!({
                    "access_token": fresh.access.expose(), "token_type": "Bearer", "expires_in": self.expires_in,
                    "refresh_token": fresh.refresh.expose(), "scope": scope,
                }),
            ),
            Err(InvalidGrant(why)) => {
                Answer::Json(StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant", "error_description": why }))
            }
        }
    }

    /// Revocation endpoint (RFC 7009 §2).
    pub(super) fn revoke(&mut self, basic: Option<&str>, parameters: &Parameters) -> Answer {
        if !self.is_client(basic, parameters) {
            return Answer::Json(StatusCode::UNAUTHORIZED, json!({ "error": "invalid_client" }));
        }
        self.grants.revoke(&Secret::new(parameters.get("token")));
        Answer::Json(StatusCode::OK, json!({}))
    }

    /// Accepts `client_secret_basic` or `client_secret_post`, but not both (RFC 6749 §2.3).
    fn is_client(&self, basic: Option<&str>, parameters: &Parameters) -> bool {
        let (id, secret) = match (basic, parameters.get("client_secret")) {
            (None, secret) => (parameters.get("client_id").to_owned(), Secret::new(secret)),
            (Some(basic), "") => match parse_basic(basic) {
                Some(pair) => pair,
                None => return false,
            },
            (Some(_), _) => return false,
        };
        id == self.client.id && secret == self.client.secret
    }
}

/// Parses Basic credentials, whose id and secret are form-encoded before they are joined (RFC 6749 §2.3.1).
fn parse_basic(header: &str) -> Option<(String, Secret)> {
    let decode =
        |text: &str| form_urlencoded::parse(format!("v={text}").as_bytes()).next().map(|(_, v)| v.into_owned());
    let pair = String::from_utf8(BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((decode(id)?, Secret::new(decode(secret)?)))
}

fn fresh(kind: &str) -> Secret {
    Secret::new(format!("{kind}-{}{}", system::random_id(), system::random_id()))
}

fn login_page(parameters: &Parameters) -> String {
    let field = |(name, value): (&String, &String)| {
        format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
    };
    let fields = parameters.0.iter().map(field).collect::<Vec<_>>().concat();
    page(&format!(
        "<p><b>{}</b> asks for: <code>{}</code></p><form method=\"post\" action=\"/authorize\">{fields}\
         <button name=\"decision\" value=\"allow\">Allow</button> <button name=\"decision\" value=\"deny\">Deny</button></form>",
        escape(parameters.get("client_id")),
        escape(parameters.get("scope")),
    ))
}

fn page(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Demo provider</title>\
         <style>body{{font:16px/1.5 sans-serif;max-width:32em;margin:4em auto;padding:0 1em}}button{{font:inherit;padding:.4em 1.2em}}</style>\
         <h1>Demo provider</h1>{body}</html>\n"
    )
}

/// Page with one sentence.
pub(super) fn notice(text: &str) -> String {
    page(&format!("<p>{}</p>", escape(text)))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const REQUEST: &str = "client_id=c&redirect_uri=http://127.0.0.1:1/cb&response_type=code&scope=a+b&state=%22%3E\
        &code_challenge_method=S256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn server() -> Server {
        let client = KnownClient {
            id: "c".to_owned(),
            secret: Secret::new("s:%"),
            redirect_uri: "http://127.0.0.1:1/cb".to_owned(),
        };
        Server { client, expires_in: 60, grants: Grants::default() }
    }

    fn authorize(server: &mut Server, request: &str, posted: bool) -> String {
        match server.authorize(&Parameters::parse(request.as_bytes()).unwrap(), posted, Timestamp::UNIX_EPOCH) {
            Answer::Redirect(to) => to,
            Answer::Page(status, html) => format!("{} {html}", status.as_u16()),
            Answer::Json(..) => unreachable!("the authorization endpoint returns no JSON"),
        }
    }

    fn token(server: &mut Server, basic: Option<&str>, form: &str) -> (u16, serde_json::Value) {
        match server.token(basic, &Parameters::parse(form.as_bytes()).unwrap(), Timestamp::UNIX_EPOCH) {
            Answer::Json(status, body) => (status.as_u16(), body),
            Answer::Page(..) | Answer::Redirect(_) => unreachable!("the token endpoint returns JSON"),
        }
    }

    #[test]
    fn requests_are_judged() {
        #[track_caller]
        fn check(request: &str, expected: &str) {
            let answer = authorize(&mut server(), request, false);
            assert!(answer.starts_with(expected), "{answer}");
        }
        check(REQUEST, "200 ");
        check(&REQUEST.replace("client_id=c", "client_id=d"), "400 ");
        check(&REQUEST.replace("1/cb", "1/cb/x"), "400 ");
        check(
            &REQUEST.replace("=code&", "=token&"),
            "http://127.0.0.1:1/cb?error=unsupported_response_type&state=%22%3E",
        );
        check(&REQUEST.replace("S256", "plain"), "http://127.0.0.1:1/cb?error=invalid_request&state=");
        check(&REQUEST.replace("E9M", ""), "http://127.0.0.1:1/cb?error=invalid_request&state=");
    }

    #[test]
    fn the_page_escapes_what_it_carries_on() {
        let html = authorize(&mut server(), REQUEST, false);
        assert!(html.contains("name=\"state\" value=\"&quot;&gt;\""), "{html}");
    }

    #[test]
    fn doubled_parameters_are_refused() {
        assert!(Parameters::parse(b"a=1&a=2").is_none());
        assert!(Parameters::parse(format!("a={}", "x".repeat(MAX_VALUE + 1)).as_bytes()).is_none());
    }

    #[test]
    fn denial_goes_back_as_an_error() {
        let to = authorize(&mut server(), &format!("{REQUEST}&decision=deny"), true);
        assert!(to.starts_with("http://127.0.0.1:1/cb?error=access_denied&state="), "{to}");
    }

    #[test]
    fn a_login_ends_in_tokens_for_the_client_alone() {
        let mut server = server();
        let to = authorize(&mut server, &format!("{REQUEST}&decision=allow"), true);
        let code = to.strip_prefix("http://127.0.0.1:1/cb?code=").unwrap().split('&').next().unwrap();
        let form = format!(
            "grant_type=authorization_code&code={code}&code_verifier={VERIFIER}&redirect_uri=http://127.0.0.1:1/cb"
        );
        let basic = format!("Basic {}", BASE64_STANDARD.encode("c:s%3A%25"));
        let posted = format!("{form}&client_id=c&client_secret=s%3A%25");
        assert_eq!(token(&mut server, None, &format!("{form}&client_id=c&client_secret=x")).0, 401);
        assert_eq!(token(&mut server, Some(&basic), &posted).0, 401, "two ways at once");
        let (status, body) = token(&mut server, Some(&basic), &form);
        assert_eq!((status, &body["scope"], &body["expires_in"]), (200, &json!("a b"), &json!(60)));
        assert_eq!(token(&mut server, None, &posted).1["error"], "invalid_grant");
    }
}
