//! The page that a browser sees after a callback. It shows no token.

use hyper::StatusCode;
use serde_json::json;
use url::{Position, Url};

use super::{Form, Frame, Mark, escape, heading};
use crate::gateway::backend::{Hint, LoginTarget};
use crate::gateway::routes::reply::Reply;
use crate::oauth::error::{Cause, ErrorCode};

/// Texts before a hint.
const SETTING_IS_WRONG: &str = "A setting of this integration is wrong, so that connecting again does not help. Show this \
                                page to the person who set up the integration:";
const SETTING_MAY_BE_WRONG: &str =
    "Connect again. If that fails too, show this page to the person who set up the integration:";
const CONNECT_AGAIN: &str = "Go back to the page you came from and connect again:";

/// The result of a login.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) enum Outcome<'a> {
    /// With the label of the account at the provider, if it is known.
    Connected(Option<&'a str>),
    /// The texts as the JSON answer has them.
    Failed { error: &'a str, reason: Option<&'a str>, hint: Option<&'a Hint> },
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

/// The texts of a page, as HTML.
struct Texts {
    mark: Mark,
    title: String,
    heading: String,
    advice: &'static str,
    /// The reason of a failure.
    reason: String,
}

/// Builds the answer. It posts a message to the opener if the login has a page to return to.
pub(in crate::gateway) fn reply(status: StatusCode, outcome: &Outcome<'_>, target: Option<&LoginTarget>) -> Reply {
    let origin = target.and_then(|target| target.return_to.as_deref()).and_then(Origin::of);
    let name_of =
        |target: &'_ LoginTarget| target.integration_name.clone().unwrap_or(target.integration_id.to_string());
    let integration = target.map(name_of);
    let integration = integration.as_deref();
    let Texts { mark, title, heading, advice, reason } = match *outcome {
        Outcome::Connected(label) => connected(integration, label),
        Outcome::Failed { error, reason, hint } => failed(&Failure { status, reason, error, hint }, integration),
    };
    let link = origin.as_ref().map_or(String::new(), |Origin { link, host, target: _ }| {
        format!("<a class=\"act\" href=\"{}\">Back to {}</a>\n", escape(link), escape(host))
    });
    let attributes = target.zip(origin.as_ref()).map(|(target, origin)| attributes(outcome, target, origin));
    let body = format!("{heading}<p>{advice}</p>\n{reason}{link}");
    let frame = Frame { mark, title: &title, head: "", body: &body, message: attributes.as_deref(), form: Form::None };
    frame.reply(status)
}

fn connected(integration: Option<&str>, label: Option<&str>) -> Texts {
    let is_connected = format!("{} is connected", escape(integration.unwrap_or("The account")));
    let (title, shown) = match label.map(escape) {
        // Isolated, so that a label with right-to-left text can't rearrange the sentence around it.
        Some(label) => (format!("{is_connected} as {label}"), format!("{is_connected} as <bdi>{label}</bdi>")),
        None => (is_connected.clone(), is_connected),
    };
    let (heading, advice) = (heading(&shown), "You can close this window.");
    Texts { mark: Mark::Tick, title, heading, advice, reason: String::new() }
}

struct Failure<'a> {
    status: StatusCode,
    reason: Option<&'a str>,
    error: &'a str,
    hint: Option<&'a Hint>,
}

fn failed(failure: &Failure<'_>, integration: Option<&str>) -> Texts {
    let Failure { status, reason, error, hint } = *failure;
    let title = escape(&failure_title(status, integration));
    let heading = heading(&title);
    let advice = match hint.map(|hint| hint.cause) {
        None => advice(status, reason),
        Some(Cause::Code) => CONNECT_AGAIN,
        Some(cause) if cause.is_lasting() => SETTING_IS_WRONG,
        Some(_) => SETTING_MAY_BE_WRONG,
    };
    let error = escape(error);
    let reason = match hint {
        Some(hint) => {
            format!("<div class=\"detail\"><p>{}</p><p class=\"code\">{error}</p></div>\n", escape(&hint.text))
        }
        None => format!("<p class=\"detail\">{error}</p>\n"),
    };
    Texts { mark: Mark::Warning, title, heading, advice, reason }
}

/// The page's title. It claims no failure for a used link, because that link may have made a connection.
fn failure_title(status: StatusCode, integration: Option<&str>) -> String {
    match (status, integration) {
        (StatusCode::FORBIDDEN, _) => "The login was not started".to_owned(),
        (StatusCode::UNAUTHORIZED, _) => "This login link is not valid".to_owned(),
        (StatusCode::GATEWAY_TIMEOUT, Some(name)) => format!("{name} is not connected yet"),
        (_, Some(name)) => format!("{name} was not connected"),
        (_, None) => "The login did not succeed".to_owned(),
    }
}

/// Tells the person what to do. The reason follows it.
fn advice(status: StatusCode, reason: Option<&str>) -> &'static str {
    match status.as_u16() {
        401 => "If you connected with it, all is well. If not, go back to the page you came from and connect again.",
        400 if reason.map(ErrorCode::parse) == Some(ErrorCode::AccessDenied) => {
            "The login was refused or cancelled, and nothing has changed. Go back to the page you came from and connect again."
        }
        400 => {
            "The login ended without a connection; the reason is below. Go back to the page you came from and connect again."
        }
        403 => {
            "The click did not come from the page that the link opens. Open the link again and use the button on that page."
        }
        429 => "There were too many attempts. Wait a moment, then connect again.",
        503 => "The service is not available at the moment. Wait a moment, then reload this page.",
        504 => "It takes longer than usual and may still succeed. Check again in a minute before you connect again.",
        _ => "The provider did not answer correctly, or the login was interrupted. Connect again in a few minutes.",
    }
}

fn attributes(outcome: &Outcome<'_>, target: &LoginTarget, origin: &Origin) -> String {
    let (status, error, reason) = match *outcome {
        Outcome::Connected(_) => ("connected", None, None),
        Outcome::Failed { error, reason, hint: _ } => ("error", Some(error), reason),
    };
    let mut message = json!({
        "type": "tokenbus",
        "status": status,
        "integration_id": target.integration_id,
        "connection_id": target.connection_id,
    });
    if let Some(fields) = message.as_object_mut() {
        let texts = [("error", error), ("reason", reason)];
        fields.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
    }
    format!(" data-origin=\"{}\" data-message=\"{}\"", escape(&origin.target), escape(&message.to_string()))
}

#[cfg(test)]
mod tests;
