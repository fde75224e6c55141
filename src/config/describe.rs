//! What is wrong with settings, in words for people; and variables that look like settings and are none.

use figment::error::Kind;
use figment::providers::{Env, Format as _, Toml};
use figment::value::{Dict, Value};
use figment::{Metadata, Provider as _, Source};

use super::DEFAULT;

/// What all variables of settings begin with.
pub(super) const PREFIX: &str = "TOKENBUS_";

/// Why there are no settings: each line names a setting and where it stands.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl From<figment::Error> for SettingsError {
    fn from(errors: figment::Error) -> Self {
        Self(errors.into_iter().map(|error| describe(&error)).collect::<Vec<_>>().join("; "))
    }
}

fn describe(error: &figment::Error) -> String {
    let what = if let Kind::UnknownField(_, known) = &error.kind {
        format!("there is no such setting; there are: {}", known.join(", "))
    } else {
        error.kind.to_string().trim().to_owned()
    };
    match place(&error.path, error.metadata.as_ref()) {
        Some(place) => format!("{place}: {what}"),
        None => what,
    }
}

/// The setting as it is written there, and the file.
fn place(path: &[String], metadata: Option<&Metadata>) -> Option<String> {
    let file = match metadata.and_then(|metadata| metadata.source.as_ref()) {
        Some(Source::File(file)) => Some(file.display().to_string()),
        _ => None,
    };
    match (path, file) {
        ([], file) => file,
        (path, Some(file)) => Some(format!("{file}: {}", path.join("."))),
        (path, None) if metadata.is_some_and(|metadata| metadata.name.contains("environment")) => Some(variable(path)),
        (path, None) => Some(path.join(".")),
    }
}

/// A list's variable holds all of it: which element it is stands behind.
fn variable(path: &[String]) -> String {
    let (elements, names): (Vec<&String>, Vec<&String>) = path.iter().partition(|part| part.parse::<usize>().is_ok());
    let names: Vec<String> = names.into_iter().map(|name| name.to_uppercase()).collect();
    let elements: Vec<String> = elements.into_iter().map(|element| format!("[{element}]")).collect();
    format!("{PREFIX}{}{}", names.join("__"), elements.concat())
}

/// Refuses variables that are a setting's but for an underscore: passed over, they would be missed by nobody but the
/// person who set them.
///
/// # Errors
/// Names the first one and what it has to be.
pub(super) fn check_names(environment: &Env) -> Result<(), SettingsError> {
    let settings = settings();
    for (name, _) in environment.iter() {
        let name = name.as_str().to_uppercase();
        let meant = settings.iter().find(|setting| **setting != name && setting.replace("__", "_") == name);
        if let Some(setting) = meant {
            return Err(SettingsError(format!(
                "{PREFIX}{name}: two underscores go between section and key: {PREFIX}{setting}"
            )));
        }
    }
    Ok(())
}

/// Every setting as in the environment, without the prefix: `NATS__URL`.
fn settings() -> Vec<String> {
    fn walk(dict: &Dict, above: &str, found: &mut Vec<String>) {
        for (key, value) in dict {
            let name = format!("{above}{}", key.to_uppercase());
            if let Value::Dict(_, inner) = value {
                walk(inner, &format!("{name}__"), found);
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    for dict in Toml::string(DEFAULT).data().unwrap_or_default().values() {
        walk(dict, "", &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use figment::Figment;

    use super::super::Config;
    use super::*;

    #[test]
    fn an_unknown_setting_is_named_with_those_there_are() {
        let settings = Figment::from(Toml::string(DEFAULT)).merge(Toml::string("[log]\nfiltr = \"info\""));
        let error = settings.extract::<Config>().map_err(SettingsError::from).unwrap_err().to_string();
        assert_eq!(error, "log.filtr: there is no such setting; there are: filter, format");
    }

    #[test]
    fn a_lists_variable_has_no_number() {
        let path = ["AUTH", "ADMIN_ACCOUNTS", "0"].map(str::to_owned);
        assert_eq!(variable(&path), "TOKENBUS_AUTH__ADMIN_ACCOUNTS[0]");
    }

    #[test]
    fn every_setting_has_its_variable() {
        let settings = settings();
        for name in ["NATS__URL", "AUTH__ADMIN_ACCOUNTS", "AUTH__NATS__OPERATORS", "SECRETS__KEYS_FILE"] {
            assert!(settings.iter().any(|setting| setting == name), "{name}");
        }
    }
}
