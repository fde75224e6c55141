//! Scopes of credentials. A missing scope is a 401 for a call; without a scope for tokens, answers come without these
//! tokens.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
pub enum Scope {
    /// List connections.
    #[serde(rename = "connections:read")]
    #[value(name = "connections:read")]
    ConnectionsRead,
    /// Make the call `token`, and see access tokens.
    #[serde(rename = "tokens:read")]
    #[value(name = "tokens:read")]
    TokensRead,
    /// See refresh tokens.
    #[serde(rename = "refresh_tokens:read")]
    #[value(name = "refresh_tokens:read")]
    RefreshTokensRead,
    /// Log in, refresh and delete connections.
    #[serde(rename = "connections:write")]
    #[value(name = "connections:write")]
    ConnectionsWrite,
    /// Change configs.
    #[serde(rename = "configs:write")]
    #[value(name = "configs:write")]
    ConfigsWrite,
    /// List, make and revoke API keys.
    #[serde(rename = "keys:write")]
    #[value(name = "keys:write")]
    KeysWrite,
    /// Read the audit log.
    #[serde(rename = "audit:read")]
    #[value(name = "audit:read")]
    AuditRead,
}

impl Scope {
    const ALL: [Self; 7] = [
        Self::ConnectionsRead,
        Self::TokensRead,
        Self::RefreshTokensRead,
        Self::ConnectionsWrite,
        Self::ConfigsWrite,
        Self::KeysWrite,
        Self::AuditRead,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionsRead => "connections:read",
            Self::TokensRead => "tokens:read",
            Self::RefreshTokensRead => "refresh_tokens:read",
            Self::ConnectionsWrite => "connections:write",
            Self::ConfigsWrite => "configs:write",
            Self::KeysWrite => "keys:write",
            Self::AuditRead => "audit:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    #[must_use]
    pub(crate) fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Scopes of nodes' calls on the bus. The settings don't change them: NATS permissions say which calls a node may
    /// make.
    #[must_use]
    pub(crate) fn of_nodes() -> Self {
        [Scope::ConnectionsRead, Scope::TokensRead, Scope::ConnectionsWrite].into_iter().collect()
    }

    #[must_use]
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes that `other` lacks.
    #[must_use]
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// Removes the tokens that these scopes don't show from a connection, or from each connection of a list.
    pub(crate) fn hide_tokens(&self, answer: &mut Value) {
        for connection in answer.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten() {
            self.hide_tokens(connection);
        }
        let Some(fields) = answer.as_object_mut() else { return };
        for (field, scope) in [("access_token", Scope::TokensRead), ("refresh_token", Scope::RefreshTokensRead)] {
            if !self.has(scope) {
                fields.remove(field);
            }
        }
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|scope| scope.as_str()).collect();
        f.write_str(&names.join(", "))
    }
}
