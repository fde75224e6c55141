//! Where the fields of a token response are.

use std::iter::once;
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

    /// Returns the keys of the response's root that may begin the path of an access token.
    pub(crate) fn access_token_roots(&self) -> impl Iterator<Item = &str> {
        let paths = self.answer_paths("access_token").unwrap_or_default().iter().map(String::as_str);
        paths.chain(once("access_token")).map(|path| path.split('.').next().unwrap_or(path))
    }
}
