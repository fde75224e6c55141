//! Where the fields of a token response are.

use std::slice;

use serde::{Deserialize, Serialize};

use super::IntegrationOauthConfig;

/// The fields of a token response (RFC 6749 §5.1, with expiries as times) whose place a config may name.
pub(crate) const ANSWER_FIELDS: [&str; 8] = [
    "access_token",
    "refresh_token",
    "expires_in",
    "expires_at",
    "refresh_token_expires_in",
    "refresh_token_expires_at",
    "scope",
    "token_type",
];

/// Dot paths in a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Paths {
    One(String),
    /// The first path that leads to a usable value counts.
    Many(Vec<String>),
}

impl Paths {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(path) => slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }
}

impl<T> IntegrationOauthConfig<T> {
    /// Returns the paths that the config names for a field of token responses; `None` if it names none.
    pub(crate) fn answer_paths(&self, field: &str) -> Option<&[String]> {
        self.token_answer.get(field).map(Paths::as_slice)
    }

    /// Returns keys of a response's root of which every response has one: those that lead to an access token or an error.
    pub(crate) fn answer_roots(&self) -> impl Iterator<Item = &str> {
        let tokens = self.answer_paths("access_token").unwrap_or_default().iter();
        let errors = self.error_codes.iter().filter_map(|rule| rule.path.as_ref());
        let paths = tokens.chain(errors).map(String::as_str).chain(["access_token", "error"]);
        paths.map(|path| path.split('.').next().unwrap_or(path))
    }
}
