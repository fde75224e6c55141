//! The page that a browser sees after a callback. It shows no token, works without scripts and
//! fetches nothing; all that is not ours in it is escaped.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::{Position, Url};

use crate::gateway::backend::StateOwner;
use crate::gateway::routes::reply::{self, Reply};

const STYLE: &str = include_str!("page.css");
/// Posts to the opener. It is the same for all; what it posts stands in attributes of the body, so
/// that nothing of a request is ever part of a script.
const SCRIPT: &str = include_str!("page.js");

const TICK: &str = r#"<path d="M5 12.5l4.5 4.5L19 7.5"/>"#;
const WARNING: &str = r#"<path d="M12 7v6"/><path d="M12 17h.01"/>"#;

/// How it went.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) enum Outcome<'a> {
    Connected,
    /// With the text that a caller in JSON would get.
    Failed(&'a str),
}

/// Where the person came from: the link back, what to call it, and where messages go.
#[derive(Debug)]
struct Origin {
    link: String,
    host: String,
    target: String,
}

impl Origin {
    /// The worker's allow-list judged it at login; whatever is no plain web address is dropped here too.
    fn of(return_to: &str) -> Option<Self> {
        let url = Url::parse(return_to).ok()?;
        let plain = matches!(url.scheme(), "https" | "http") && url.username().is_empty() && url.password().is_none();
        let origin = url.origin();
        (plain && origin.is_tuple()).then(|| Self {
            link: url.to_string(),
            host: url[Position::BeforeHost..Position::AfterPort].to_owned(),
            target: origin.ascii_serialization(),
        })
    }
}

/// The page as an answer, with the policy that lets nothing in it but itself.
pub(in crate::gateway) fn reply(status: StatusCode, outcome: &Outcome<'_>, owner: Option<&StateOwner>) -> Reply {
    let origin = owner.and_then(|owner| owner.return_to.as_deref()).and_then(Origin::of);
    let mut reply = reply::of_type(status, "text/html; charset=utf-8", html(status, outcome, owner, origin.as_ref()));
    let script = if origin.is_some() { format!(" script-src {};", hash(SCRIPT)) } else { String::new() };
    let policy = format!(
        "default-src 'none'; style-src {};{script} base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE)
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        reply.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    reply
}

fn html(status: StatusCode, outcome: &Outcome<'_>, owner: Option<&StateOwner>, origin: Option<&Origin>) -> String {
    let integration = owner.map(|owner| owner.integration_id.as_str());
    let (class, mark, title, text) = match outcome {
        Outcome::Connected => {
            ("connected", TICK, format!("{} is connected", integration.unwrap_or("It")), "You can close this window.")
        }
        Outcome::Failed(_) => ("error", WARNING, failure(status, integration), advice(status)),
    };
    let title = escape(&title);
    let detail = match outcome {
        Outcome::Connected => String::new(),
        Outcome::Failed(error) => format!("<p class=\"detail\">{}</p>\n", escape(error)),
    };
    let attributes = owner.zip(origin).map_or(String::new(), |(owner, origin)| attributes(outcome, owner, origin));
    let (link, script) = origin.map_or((String::new(), String::new()), |Origin { link, host, target: _ }| {
        let link = format!("<a class=\"back\" href=\"{}\">Back to {}</a>\n", escape(link), escape(host));
        (link, format!("<script>{SCRIPT}</script>\n"))
    });
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body class=\"{class}\"{attributes}>\n<main>\n\
         <span class=\"mark\" aria-hidden=\"true\"><svg viewBox=\"0 0 24 24\">{mark}</svg></span>\n\
         <h1>{title}</h1>\n<p>{text}</p>\n{detail}{link}</main>\n{script}</body>\n</html>\n"
    )
}

/// What failed, as far as is known: behind a link that was used already, there may well be a connection.
fn failure(status: StatusCode, integration: Option<&str>) -> String {
    match (status, integration) {
        (StatusCode::UNAUTHORIZED, _) => "This login link is not valid".to_owned(),
        (StatusCode::GATEWAY_TIMEOUT, Some(name)) => format!("{name} is not connected yet"),
        (_, Some(name)) => format!("{name} was not connected"),
        (_, None) => "The login did not succeed".to_owned(),
    }
}

/// What a person can do about it.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => {
            "It was used already, it is too old, or it belongs to another browser. If you connected with it, all is well; if not, go back to where you came from and connect again."
        }
        400 => {
            "The login was refused or given up, and nothing was changed. Go back to where you came from and connect again."
        }
        429 => "There were too many attempts. Wait a moment, then connect again.",
        503 => "The service is not available just now. Wait a moment, then reload this page.",
        504 => "It takes longer than usual and may still succeed. Look in a minute before you connect again.",
        _ => "The provider did not answer as it should. Try again in a few minutes.",
    }
}

fn attributes(outcome: &Outcome<'_>, owner: &StateOwner, origin: &Origin) -> String {
    let (status, error) = match outcome {
        Outcome::Connected => ("connected", None),
        Outcome::Failed(error) => ("error", Some(*error)),
    };
    let mut message = json!({
        "type": "tokenbus",
        "status": status,
        "integration_id": owner.integration_id,
        "connection_id": owner.connection_id,
    });
    if let (Some(error), Some(fields)) = (error, message.as_object_mut()) {
        fields.insert("error".to_owned(), error.into());
    }
    format!(" data-origin=\"{}\" data-message=\"{}\"", escape(&origin.target), escape(&message.to_string()))
}

/// Text as it may stand in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(char),
        }
    }
    escaped
}

/// The source expression of a content security policy that allows exactly this text.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests;
