//! The pages before a bound login: who asks for what, and the way to the provider.

use hyper::StatusCode;
use serde::Deserialize;
use url::{Position, Url};

use super::{Form, Frame, Mark, escape, heading};
use crate::call::START_PATH;
use crate::gateway::routes::reply::Reply;
use crate::secret::Secret;

/// The login that a start link begins, in names for people: the worker's answer to
/// [`Call::Ticket`](crate::call::Call::Ticket).
#[derive(Debug, Deserialize)]
pub(in crate::gateway) struct Asked {
    account_name: String,
    integration_name: String,
    connection_id: String,
}

/// Builds the page that shows who asks for what. Its button posts the ticket.
pub(in crate::gateway) fn start(asked: &Asked, ticket: &Secret) -> Reply {
    let Asked { account_name, integration_name, connection_id } = asked;
    let [account, integration, connection] = [account_name, integration_name, connection_id].map(|name| escape(name));
    let title = format!("Connect {integration}");
    // Isolated, so that a name with right-to-left text can't rearrange the sentence around it.
    let [account, integration, connection] =
        [account, integration, connection].map(|name| format!("<bdi>{name}</bdi>"));
    let action = START_PATH.rsplit('/').next().unwrap_or_default();
    let asks = format!("{account} asks to connect your {integration} account as {connection}");
    let body = format!(
        "{}<p>Continue only if you asked for this. {account} can then use your {integration} account.</p>\n\
         <form method=\"post\" action=\"{action}\">\n<input type=\"hidden\" name=\"ticket\" value=\"{}\">\n\
         <button class=\"act\">Continue to {integration}</button>\n</form>\n",
        heading(&asks),
        escape(ticket.expose())
    );
    let frame = Frame { mark: Mark::Link, title: &title, head: "", body: &body, message: None, form: Form::ToUs };
    frame.reply(StatusCode::OK)
}

/// Builds the page that continues to the provider at once, with a link for browsers that do not.
pub(in crate::gateway) fn to_provider(url: &Url) -> Reply {
    let host = escape(&url[Position::BeforeHost..Position::AfterPort]);
    let url = escape(url.as_str());
    let title = format!("Continue to {host}");
    let head = format!("<meta http-equiv=\"refresh\" content=\"0;url={url}\">\n");
    let body = format!(
        "{}<p>Your browser continues in a moment.</p>\n<a class=\"act\" href=\"{url}\">Continue</a>\n",
        heading(&title)
    );
    let frame = Frame { mark: Mark::Link, title: &title, head: &head, body: &body, message: None, form: Form::None };
    frame.reply(StatusCode::OK)
}
