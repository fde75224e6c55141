//! The subjects of commands, and of what comes of them.

use std::fmt;

use super::{Account, CONFIG, ConnectionKey, ConnectionName, Integration, NameError, ROOT, Verb, tokens};

/// What a command is about, with who sent it: the seven tokens of its subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandSubject {
    /// The account it is sent for: the connection's, or the admin's.
    pub account: Account,
    /// The integration.
    pub integration: Integration,
    /// The connection; none when the command is about the config.
    pub name: Option<ConnectionName>,
    /// What to do.
    pub verb: Verb,
}

impl CommandSubject {
    /// A command about a connection.
    #[must_use]
    pub fn connection(key: &ConnectionKey, verb: Verb) -> Self {
        let ConnectionKey { account, integration, name } = key.clone();
        Self { account, integration, name: Some(name), verb }
    }

    /// A command about a config, by an admin's account.
    #[must_use]
    pub fn config(integration: Integration, account: Account, verb: Verb) -> Self {
        Self { account, integration, name: None, verb }
    }

    /// Takes a subject apart.
    ///
    /// # Errors
    /// [`NameError`] when it is no command's subject.
    pub fn parse(subject: &str) -> Result<Self, NameError> {
        let path = subject.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('.')).ok_or(NameError::Subject)?;
        let [first, second, third, verb] = tokens(path)?;
        let verb = Verb::parse(verb).ok_or(NameError::Subject)?;
        match (first == CONFIG, verb.is_config()) {
            (true, true) => Ok(Self::config(Integration::parse(second)?, Account::parse(third)?, verb)),
            (false, false) => Ok(Self::connection(&ConnectionKey::parse(first, second, third)?, verb)),
            _ => Err(NameError::Subject),
        }
    }

    /// The connection, when it is about one.
    #[must_use]
    pub fn key(&self) -> Option<ConnectionKey> {
        let Self { account, integration, name, verb: _ } = self.clone();
        name.map(|name| ConnectionKey { account, integration, name })
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> String {
        let Self { account, integration, name, verb } = self;
        match name {
            Some(name) => format!("{ROOT}.{account}.{integration}.{name}.{verb}"),
            None => format!("{ROOT}.{CONFIG}.{integration}.{account}.{verb}"),
        }
    }

    /// Where it goes when it is given up.
    pub(super) fn dead_subject(&self) -> String {
        let Self { account, integration, name, verb } = self;
        format!("oauth.dead.{verb}.{account}.{integration}.{}", name_or_blank(name.as_ref()))
    }

    /// Where an event about it goes (`<name>` is `_` for configs).
    #[must_use]
    pub fn event_subject(&self, event: &str) -> String {
        let Self { account, integration, name, verb: _ } = self;
        format!("ms.oauth.{account}.event.{integration}.{}.{event}", name_or_blank(name.as_ref()))
    }
}

impl fmt::Display for CommandSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject())
    }
}

fn name_or_blank(name: Option<&ConnectionName>) -> &str {
    name.map_or("_", ConnectionName::as_str)
}

/// Where a message goes that is given up: a command, or an event that a webhook did not take.
#[must_use]
pub fn dead(subject: &str) -> String {
    if let Ok(command) = CommandSubject::parse(subject) {
        return command.dead_subject();
    }
    match tokens::<7>(subject) {
        Ok(["ms", "oauth", account, "event", integration, name, _]) => {
            format!("oauth.dead.webhook.{account}.{integration}.{name}")
        }
        _ => "oauth.dead.unknown._._._".to_owned(),
    }
}
