//! The provider's names for the protocol's parameters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names by the RFC's name. An empty name leaves the parameter out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ParamNames(BTreeMap<String, Entry>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    /// The name in all requests.
    Name(String),
    /// The names in the request that the entry is named after. They take precedence.
    OfRequest(BTreeMap<String, String>),
}

/// A request with names of its own. Revocations without any have those of [`RequestKind::Token`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Authorize,
    Token,
    Refresh,
    Revoke,
}

impl RequestKind {
    pub(crate) const ALL: [Self; 4] = [Self::Authorize, Self::Token, Self::Refresh, Self::Revoke];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Token => "token",
            Self::Refresh => "refresh",
            Self::Revoke => "revoke",
        }
    }
}

impl ParamNames {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the name of a parameter in a request; `None` if the request does without it.
    #[must_use]
    pub(crate) fn of<'a>(&'a self, request: RequestKind, name: &'a str) -> Option<&'a str> {
        Some(self.given(request, name).unwrap_or(name)).filter(|name| !name.is_empty())
    }

    /// Returns the config's own name of a parameter.
    pub(crate) fn given(&self, request: RequestKind, name: &str) -> Option<&str> {
        let names_of = |request: RequestKind| match self.0.get(request.as_str()) {
            Some(Entry::OfRequest(names)) => names.get(name),
            Some(Entry::Name(_)) | None => None,
        };
        let of_token = || (request == RequestKind::Revoke).then(|| names_of(RequestKind::Token)).flatten();
        let in_request = names_of(request).or_else(of_token);
        let in_all = match self.0.get(name) {
            Some(Entry::Name(name)) => Some(name),
            Some(Entry::OfRequest(_)) | None => None,
        };
        in_request.or(in_all).map(String::as_str)
    }

    /// Returns all entries: the request's name if the entry is for one request, the RFC's name, and the provider's.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Option<&str>, &str, &str)> {
        self.0.iter().flat_map(|(key, entry)| match entry {
            Entry::Name(name) => vec![(None, key.as_str(), name.as_str())],
            Entry::OfRequest(names) => {
                names.iter().map(|(rfc, name)| (Some(key.as_str()), rfc.as_str(), name.as_str())).collect()
            }
        })
    }
}
