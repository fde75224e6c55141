//! The output of the demo: steps, aligned values with shortened secrets, and a check mark for each assertion.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use anyhow::bail;
use serde_json::Value;
use url::Url;

use crate::config;

/// Width of labels in characters.
const LABEL: usize = 21;

pub(super) struct Screen {
    is_coloured: bool,
}

impl Screen {
    /// Uses colours on a terminal, unless `NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let is_unwanted = config::env("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_coloured: std::io::stdout().is_terminal() && !is_unwanted }
    }

    fn paint(&self, code: &str, text: impl Display) -> String {
        if self.is_coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(super) fn title(&self, text: &str) {
        say(format!("\n{}", self.paint("1", text)));
    }

    pub(super) fn field(&self, label: &str, value: impl Display) {
        say(format!("    {} {value}", self.paint("2", format!("{label:<LABEL$}"))));
    }

    pub(super) fn request(&self, method: &str, url: impl Display) {
        say(format!("  {} {}", self.paint("36", "→"), self.paint("36", format!("{method} {url}"))));
    }

    /// Prints the fields of a JSON object, one per line.
    pub(super) fn object(&self, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten() {
            self.field(name, shown(name, value));
        }
    }

    /// Prints an assertion with its result, and fails if it does not hold.
    pub(super) fn check(&self, held: bool, what: &str) -> anyhow::Result<()> {
        if held {
            say(format!("  {} {what}", self.paint("32", "✓")));
            return Ok(());
        }
        say(format!("  {} {what}", self.paint("31", "✗")));
        bail!("assertion failed: {what}")
    }

    pub(super) fn summary(&self, text: &str) {
        say(format!("\n{}", self.paint("1;32", text)));
    }
}

/// Prints a line. Ignores a closed standard output.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Renders a JSON value for people: strings without quotes, tokens shortened.
pub(super) fn shown(name: &str, value: &Value) -> String {
    match (value.as_str(), name) {
        (Some(text), "access_token" | "refresh_token") => short(text),
        (Some(text), _) => text.to_owned(),
        (None, _) => value.to_string(),
    }
}

/// Shortens a secret to its first six characters. A sealed value keeps its key id in front of them.
pub(super) fn short(secret: &str) -> String {
    let start = |text: &str| text.chars().take(6).collect::<String>();
    match secret.strip_prefix("v1.").and_then(|rest| rest.split_once('.')) {
        Some((key, sealed)) => format!("v1.{key}.{}…", start(sealed)),
        None => format!("{}…", start(secret)),
    }
}

/// Shortens the secret parameters of a URL.
pub(super) fn short_url(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    let parameters: Vec<String> = url
        .query_pairs()
        .map(|(name, value)| match &*name {
            "state" | "code" | "code_challenge" => format!("{name}={}", short(&value)),
            _ => format!("{name}={value}"),
        })
        .collect();
    if parameters.is_empty() { shown.into() } else { format!("{shown}?{}", parameters.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shortened() {
        assert_eq!(short("at-0123456789"), "at-012…");
        assert_eq!(short("v1.k1.abcdefghij"), "v1.k1.abcdef…");
        let url = Url::parse("http://127.0.0.1:1/cb?code=0123456789&state=abcdefghij&scope=a").unwrap();
        assert_eq!(short_url(&url), "http://127.0.0.1:1/cb?code=012345…&state=abcdef…&scope=a");
    }
}
