//! Descriptions of invalid settings, and a check for misspelt environment variables.

use figment::error::Kind;
use figment::providers::{Env, Format as _, Toml};
use figment::value::{Dict, Value};
use figment::{Metadata, Provider as _, Source};

use super::DEFAULT;

/// Prefix of the environment variables that are settings.
pub(super) const PREFIX: &str = "TOKENBUS_";

/// Errors in settings. The text names each setting and the file or variable it is in, and never a secret value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl From<figment::Error> for SettingsError {
    fn from(errors: figment::Error) -> Self {
        Self(errors.into_iter().map(|error| describe(&error)).collect::<Vec<_>>().join("; "))
    }
}

fn describe(error: &figment::Error) -> String {
    let problem = if let Kind::UnknownField(_, known) = &error.kind {
        format!("unknown setting; known here are: {}", known.join(", "))
    } else {
        error.kind.to_string().trim().to_owned()
    };
    match location(&error.path, error.metadata.as_ref()) {
        Some(location) => format!("{location}: {problem}"),
        None => problem,
    }
}

/// The file and the setting's name in it, or the environment variable.
fn location(path: &[String], metadata: Option<&Metadata>) -> Option<String> {
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

/// Name of the environment variable of a setting. A variable holds a whole list, so the index of an element follows the name.
fn variable(path: &[String]) -> String {
    let (elements, names): (Vec<&String>, Vec<&String>) = path.iter().partition(|part| part.parse::<usize>().is_ok());
    let names: Vec<String> = names.into_iter().map(|name| name.to_uppercase()).collect();
    let elements: Vec<String> = elements.into_iter().map(|element| format!("[{element}]")).collect();
    format!("{PREFIX}{}{}", names.join("__"), elements.concat())
}

/// Rejects variables that are spelt like a setting except for one underscore instead of two. They would have no effect, and
/// the person who set them would not notice.
pub(super) fn check_names(environment: &Env) -> Result<(), SettingsError> {
    let settings = settings();
    for (name, _) in environment.iter() {
        let name = name.as_str().to_uppercase();
        let intended = settings.iter().find(|setting| **setting != name && setting.replace("__", "_") == name);
        if let Some(setting) = intended {
            return Err(SettingsError(format!(
                "{PREFIX}{name}: write two underscores between section and key: {PREFIX}{setting}"
            )));
        }
    }
    Ok(())
}

/// The environment variables of all settings, without the prefix: `NATS__URL`.
fn settings() -> Vec<String> {
    fn walk(dict: &Dict, section: &str, found: &mut Vec<String>) {
        for (key, value) in dict {
            let name = format!("{section}{}", key.to_uppercase());
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
    fn an_unknown_setting_is_named_with_the_known_ones() {
        let settings = Figment::from(Toml::string(DEFAULT)).merge(Toml::string("[log]\nfiltr = \"info\""));
        let error = settings.extract::<Config>().map_err(SettingsError::from).unwrap_err().to_string();
        assert_eq!(error, "log.filtr: unknown setting; known here are: filter, format");
    }

    #[test]
    fn an_element_of_a_list_has_the_variable_of_the_list() {
        let path = ["AUTH", "ADMIN_ACCOUNTS", "0"].map(str::to_owned);
        assert_eq!(variable(&path), "TOKENBUS_AUTH__ADMIN_ACCOUNTS[0]");
    }

    #[test]
    fn every_setting_has_a_variable() {
        let settings = settings();
        for name in ["NATS__URL", "AUTH__ADMIN_ACCOUNTS", "AUTH__NATS__OPERATORS", "SECRETS__KEYS_FILE"] {
            assert!(settings.iter().any(|setting| setting == name), "{name}");
        }
    }
}
