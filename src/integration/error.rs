use std::borrow::Cow;

use crate::foreign_text;

/// An error in a config, or in the scopes and variables of a login. It names fields and never contains their values: a
/// value could be a secret in the wrong field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("the config must be a JSON object of at most 64 KiB")]
    NotAnObject,
    #[error("cannot parse the body: {problem} (line {line}, column {column})")]
    Json {
        problem: &'static str,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    #[error("unknown field: {}{}", .listed.join(", "), and_more(*.more))]
    Unknown {
        listed: Vec<String>,
        /// Number of unknown fields that are not listed.
        more: usize,
    },
    #[error("unknown field: {field}; its object may have {known}")]
    UnknownNested {
        /// The whole path.
        field: String,
        known: String,
    },
    /// The whole path.
    #[error("missing field: {0}")]
    Missing(String),
    #[error("{field} must be {expected}")]
    Invalid {
        /// The whole path: names of objects' fields, and places in lists from 0, joined by `.`.
        field: String,
        expected: Cow<'static, str>,
    },
    /// A login asks for a scope that the config doesn't list.
    #[error("scopes must be among those of the config")]
    Scopes,
    /// A login sets a parameter that the config doesn't list.
    #[error("a login may not set the parameter {name}; `login_params` of the config {}", listed("lists", .known))]
    UnknownParam { name: String, known: Vec<String> },
    #[error("the parameter {0} must have at most 1024 bytes, without control characters and `${{`")]
    Param(String),
    /// A login's value for a variable is missing or of the wrong form.
    #[error("variable {name} {problem}")]
    Variable { name: String, problem: Cow<'static, str> },
    #[error("variable {name} is unknown; the config {}", listed("has", .known))]
    UnknownVariable { name: String, known: Vec<String> },
}

impl ConfigError {
    pub(super) fn invalid(field: impl Into<String>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { field: field.into(), expected: expected.into() }
    }

    /// Returns the whole path of the first field of a config that the error is about.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Unknown { listed, .. } => listed.first().map(String::as_str),
            Self::UnknownNested { field, .. } | Self::Missing(field) | Self::Invalid { field, .. } => Some(field),
            Self::NotAnObject
            | Self::Json { .. }
            | Self::Scopes
            | Self::UnknownParam { .. }
            | Self::Param(_)
            | Self::Variable { .. }
            | Self::UnknownVariable { .. } => None,
        }
    }

    /// `name` is the caller's text.
    pub(super) fn unknown_variable<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Self {
        Self::UnknownVariable { name: printable(name), known: known.cloned().collect() }
    }
}

/// Most characters of a caller's text in an error.
const MAX_SHOWN: usize = 64;
const CUT: char = '…';

/// Makes a caller's text safe for an error message: visible ASCII, with other characters escaped as in JSON.
pub(crate) fn printable(name: &str) -> String {
    if name.is_empty() {
        return "\"\"".to_owned();
    }
    let escaped = foreign_text::escape_where(name, |char| !char.is_ascii_graphic());
    match escaped.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => escaped.chars().take(end).chain([CUT]).collect(),
        None => escaped.into_owned(),
    }
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", … and {count} more") }
}

fn listed(verb: &str, names: &[String]) -> String {
    if names.is_empty() { format!("{verb} none") } else { format!("{verb} {}", names.join(", ")) }
}
