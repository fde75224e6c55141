//! Subjects of commands, and of the dead letters and events that result from them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Account, CONFIG, ConnectionKey, ConnectionName, Integration, NameError, ROOT, tokens};

/// The kind of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Exchanges an authorization code for a connection's tokens.
    Exchange,
    /// Refreshes a connection's access token.
    Refresh,
    /// Revokes a connection's tokens and deletes the connection.
    Revoke,
    /// Creates or replaces a config.
    Put,
    /// Deletes a config.
    Delete,
}

impl Verb {
    pub const ALL: [Self; 5] = [Self::Exchange, Self::Refresh, Self::Revoke, Self::Put, Self::Delete];

    /// The last token of the command's subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Refresh => "refresh",
            Self::Revoke => "revoke",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }

    /// Returns true if commands with this verb concern a config, false if they concern a connection.
    #[must_use]
    pub fn is_config(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }

    /// Filter of this verb's consumer. Filters of two verbs never overlap, as a work queue requires.
    #[must_use]
    pub fn filter(self) -> String {
        if self.is_config() {
            format!("{ROOT}.{CONFIG}.*.*.{}", self.as_str())
        } else {
            format!("{ROOT}.*.*.*.{}", self.as_str())
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The seven tokens of a command's subject: its verb, the connection or config it concerns, and the sender's account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandSubject {
    /// The account that owns the connection; for a config, the admin's account.
    pub account: Account,
    pub integration: Integration,
    /// `None` for commands about a config.
    pub name: Option<ConnectionName>,
    pub verb: Verb,
}

impl CommandSubject {
    /// A command about a connection.
    #[must_use]
    pub fn connection(key: &ConnectionKey, verb: Verb) -> Self {
        let ConnectionKey { account, integration, name } = key.clone();
        Self { account, integration, name: Some(name), verb }
    }

    /// A command about a config, sent by an admin's account.
    #[must_use]
    pub fn config(integration: Integration, account: Account, verb: Verb) -> Self {
        Self { account, integration, name: None, verb }
    }

    pub(crate) fn parse(subject: &str) -> Result<Self, NameError> {
        let path = subject.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('.')).ok_or(NameError::Subject)?;
        let [first, second, third, verb] = tokens(path)?;
        let verb = Verb::parse(verb).ok_or(NameError::Subject)?;
        match (first == CONFIG, verb.is_config()) {
            (true, true) => Ok(Self::config(Integration::parse(second)?, Account::parse(third)?, verb)),
            (false, false) => Ok(Self::connection(&ConnectionKey::parse(first, second, third)?, verb)),
            _ => Err(NameError::Subject),
        }
    }

    /// The connection that the command concerns, if it concerns one.
    #[must_use]
    pub fn key(&self) -> Option<ConnectionKey> {
        let Self { account, integration, name, verb: _ } = self.clone();
        name.map(|name| ConnectionKey { account, integration, name })
    }

    #[must_use]
    pub fn subject(&self) -> String {
        let Self { account, integration, name, verb } = self;
        match name {
            Some(name) => format!("{ROOT}.{account}.{integration}.{name}.{verb}"),
            None => format!("{ROOT}.{CONFIG}.{integration}.{account}.{verb}"),
        }
    }

    pub(super) fn dead_letter(&self) -> String {
        let Self { account, integration, name, verb } = self;
        format!("oauth.dead.{verb}.{account}.{integration}.{}", name_or_blank(name.as_ref()))
    }
}

impl fmt::Display for CommandSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject())
    }
}

/// A config has no connection name; `_` takes its place.
fn name_or_blank(name: Option<&ConnectionName>) -> &str {
    name.map_or("_", ConnectionName::as_str)
}

/// Subject of the dead letter for a message: a command, or an event that a webhook did not accept.
#[must_use]
pub(crate) fn dead_letter(subject: &str) -> String {
    if let Ok(command) = CommandSubject::parse(subject) {
        return command.dead_letter();
    }
    match tokens::<7>(subject) {
        Ok(["ms", "oauth", account, "event", integration, name, _]) => {
            format!("oauth.dead.webhook.{account}.{integration}.{name}")
        }
        _ => "oauth.dead.unknown._._._".to_owned(),
    }
}
