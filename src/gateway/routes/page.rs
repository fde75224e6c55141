//! The page that a browser sees after a callback. It shows no token, works without scripts and loads nothing. All text
//! from outside is escaped.

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
/// Posts a message to the opener. The script is constant and reads the message from attributes of the body, so that no
/// part of a request becomes a part of a script.
const SCRIPT: &str = include_str!("page.js");

const TICK: &str = r#"<path d="M5 12.5l4.5 4.5L19 7.5"/>"#;
const WARNING: &str = r#"<path d="M12 7v6"/><path d="M12 17h.01"/>"#;

/// The result of a login.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) enum Outcome<'a> {
    Connected,
    /// The error's text, as the JSON answer has it.
    Failed(&'a str),
}

/// The page that the person came from.
#[derive(Debug)]
struct Origin {
    link: String,
    /// The link's text.
    host: String,
    /// The origin that receives the message.
    target: String,
}

impl Origin {
    /// Returns `None` for anything but a plain web address. The worker has checked its allow-list at login.
    fn of(return_to: &str) -> Option<Self> {
        let url = Url::parse(return_to).ok()?;
        let is_plain =
            matches!(url.scheme(), "https" | "http") && url.username().is_empty() && url.password().is_none();
        let origin = url.origin();
        (is_plain && origin.is_tuple()).then(|| Self {
            link: url.to_string(),
            host: url[Position::BeforeHost..Position::AfterPort].to_owned(),
            target: origin.ascii_serialization(),
        })
    }
}

/// Builds the answer, with a content security policy that allows only the page's own style and script.
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
        Outcome::Connected => (
            "connected",
            TICK,
            format!("{} is connected", integration.unwrap_or("The account")),
            "You can close this window.",
        ),
        Outcome::Failed(_) => ("error", WARNING, failure_title(status, integration), advice(status)),
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

/// The page's title. It claims no failure for a used link, because that link may have made a connection.
fn failure_title(status: StatusCode, integration: Option<&str>) -> String {
    match (status, integration) {
        (StatusCode::UNAUTHORIZED, _) => "This login link is not valid".to_owned(),
        (StatusCode::GATEWAY_TIMEOUT, Some(name)) => format!("{name} is not connected yet"),
        (_, Some(name)) => format!("{name} was not connected"),
        (_, None) => "The login did not succeed".to_owned(),
    }
}

/// Tells the person what to do.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => {
            "It was already used, has expired, or belongs to another browser. If you connected with it, all is well. If not, go back to the page you came from and connect again."
        }
        400 => {
            "The login was refused or cancelled, and nothing has changed. Go back to the page you came from and connect again."
        }
        429 => "There were too many attempts. Wait a moment, then connect again.",
        503 => "The service is not available at the moment. Wait a moment, then reload this page.",
        504 => "It takes longer than usual and may still succeed. Check again in a minute before you connect again.",
        _ => "The provider did not answer correctly. Try again in a few minutes.",
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

/// Escapes text for an element or a quoted attribute.
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

/// Returns the source expression that allows exactly this text in a content security policy.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests;
