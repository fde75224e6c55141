//! Pages for browsers. They work without scripts and load nothing. All text from outside is escaped.

mod outcome;
mod start;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use sha2::{Digest as _, Sha256};

pub(in crate::gateway) use self::outcome::{Outcome, reply};
pub(in crate::gateway) use self::start::{Asked, start, to_provider};
use crate::gateway::routes::reply::{self as replies, Reply};

const STYLE: &str = include_str!("page.css");
/// Posts a message to the opener. The script is constant and reads the message from attributes of the body, so that no
/// part of a request becomes a part of a script.
const SCRIPT: &str = include_str!("page.js");

/// A longer heading is set smaller, so that it leaves room for the rest on a phone.
const LONG_HEADING_CHARS: usize = 80;

/// The sign above the title.
#[derive(Debug, Clone, Copy)]
enum Mark {
    Tick,
    Warning,
    Link,
}

impl Mark {
    /// Returns the class of the body, which colours the sign, and the sign's paths in SVG.
    fn class_and_paths(self) -> (&'static str, &'static str) {
        match self {
            Self::Tick => ("connected", r#"<path d="M5 12.5l4.5 4.5L19 7.5"/>"#),
            Self::Warning => ("error", r#"<path d="M12 7v6"/><path d="M12 17h.01"/>"#),
            Self::Link => (
                "asks",
                r#"<path d="M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7l-1.5 1.5"/><path d="M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7l1.5-1.5"/>"#,
            ),
        }
    }
}

/// The addresses to which a page may send a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    None,
    /// Our own. The page then tells our origin, and no other, where a form comes from: with `no-referrer`, browsers would
    /// send `Origin: null`.
    ToUs,
}

/// A page. Its texts are HTML: escaped.
#[derive(Debug)]
struct Frame<'a> {
    mark: Mark,
    title: &'a str,
    /// Further elements of the head.
    head: &'a str,
    body: &'a str,
    /// The body's attributes for [`SCRIPT`].
    message: Option<&'a str>,
    form: Form,
}

impl Frame<'_> {
    /// Builds the answer, with a content security policy that allows only the page's own style and script.
    fn reply(&self, status: StatusCode) -> Reply {
        let mut reply = replies::of_type(status, "text/html; charset=utf-8", self.html());
        let headers = reply.headers_mut();
        let script = if self.message.is_some() { format!(" script-src {};", hash(SCRIPT)) } else { String::new() };
        let form = match self.form {
            Form::None => "'none'",
            Form::ToUs => "'self'",
        };
        let policy = format!(
            "default-src 'none'; style-src {};{script} base-uri 'none'; form-action {form}; frame-ancestors 'none'",
            hash(STYLE)
        );
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        if self.form == Form::ToUs {
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        }
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        reply
    }

    fn html(&self) -> String {
        let Self { mark, title, head, body, message, form: _ } = self;
        let (class, paths) = mark.class_and_paths();
        let (attributes, script) = message
            .map_or((String::new(), String::new()), |it| (it.to_owned(), format!("<script>{SCRIPT}</script>\n")));
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"robots\" content=\"noindex\">\n{head}<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
             <body class=\"{class}\"{attributes}>\n<main>\n\
             <span class=\"mark\" aria-hidden=\"true\"><svg viewBox=\"0 0 24 24\">{paths}</svg></span>\n\
             {body}</main>\n{script}</body>\n</html>\n"
        )
    }
}

/// Builds the heading from HTML.
fn heading(html: &str) -> String {
    // Text is escaped, so each `<` begins a tag.
    let texts = html.split('<').map(|part| part.split_once('>').map_or(part, |(_tag, text)| text));
    let is_long = texts.map(|text| text.chars().count()).sum::<usize>() > LONG_HEADING_CHARS;
    let class = if is_long { " class=\"long\"" } else { "" };
    format!("<h1{class}>{html}</h1>\n")
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
