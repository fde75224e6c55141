//! Descriptions of invalid settings, and a check for misspelt environment variables.

use std::path::Path;

use figment::error::{Actual, Kind};
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Value};
use figment::{Metadata, Provider as _, Source};

use super::DEFAULT;
use super::environment::{PREFIX, SOURCE};

/// Errors in settings. The text names each setting and the file or variable it is in, and never a value: a
/// secret may be in the wrong place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

impl From<figment::Error> for SettingsError {
    fn from(errors: figment::Error) -> Self {
        Self(errors.into_iter().map(|error| describe(&error)).collect::<Vec<_>>().join("; "))
    }
}

fn describe(error: &figment::Error) -> String {
    let problem = match &error.kind {
        Kind::UnknownField(_, known) => format!("unknown setting; known here are: {}", known.join(", ")),
        Kind::UnknownVariant(_, known) => format!("must be one of: {}", known.join(", ")),
        Kind::InvalidType(found, wanted) => format!("is {}, and must be {}", type_name(found), wanted_name(wanted)),
        Kind::InvalidValue(_, wanted) => format!("must be {}", wanted_name(wanted)),
        Kind::Unsupported(_) | Kind::UnsupportedKey(..) => "has a type that no setting has".to_owned(),
        kind @ (Kind::Message(_)
        | Kind::InvalidLength(..)
        | Kind::MissingField(_)
        | Kind::DuplicateField(_)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_)) => kind.to_string().trim().to_owned(),
    };
    match location(&error.path, error.metadata.as_ref()) {
        Some(location) => format!("{location}: {problem}"),
        None => problem,
    }
}

/// The type of a value, without the value.
fn type_name(value: &Actual) -> &'static str {
    match value {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        Actual::Bytes(_)
        | Actual::Unit
        | Actual::Option
        | Actual::NewtypeStruct
        | Actual::Enum
        | Actual::UnitVariant
        | Actual::NewtypeVariant
        | Actual::TupleVariant
        | Actual::StructVariant
        | Actual::Other(_) => "of another type",
    }
}

/// The type that the deserializer wants, as a person would name it.
fn wanted_name(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "f64" => "a number",
        "a sequence" => "a list such as `[a, b]`",
        "a boolean" => "true or false",
        _ => wanted,
    }
}

/// Checks that a file is TOML. The errors of the parser show the line, which may hold a secret.
pub(super) fn check_syntax(file: &Path) -> Result<(), SettingsError> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| SettingsError(format!("cannot read {name}: {error}")))?;
    text.parse::<toml::Table>().map(drop).map_err(|error| {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.lines().count().max(1));
        SettingsError(format!("{name}: not TOML: see line {line}; texts need quotes"))
    })
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
        (path, None) if metadata.is_some_and(|metadata| metadata.name == SOURCE) => Some(variable(path)),
        (path, None) => Some(path.join(".")),
    }
}

/// Name of the environment variable of a setting. A variable holds a whole list, so the index of an element follows the name.
pub(super) fn variable(path: &[String]) -> String {
    let (elements, names): (Vec<&String>, Vec<&String>) = path.iter().partition(|part| part.parse::<usize>().is_ok());
    let names: Vec<String> = names.into_iter().map(|name| name.to_uppercase()).collect();
    let elements: Vec<String> = elements.into_iter().map(|element| format!("[{element}]")).collect();
    format!("{PREFIX}{}{}", names.join("__"), elements.concat())
}

/// Rejects a variable, named without the prefix, that is spelt like a setting except for one underscore instead of two. It would
/// have no effect, and the person who set it would not notice.
pub(super) fn check_name(name: &str) -> Result<(), SettingsError> {
    let intended = settings().into_iter().find(|setting| *setting != name && setting.replace("__", "_") == name);
    intended.map_or(Ok(()), |setting| {
        let text = format!("{PREFIX}{name}: write two underscores between section and key: {PREFIX}{setting}");
        Err(SettingsError(text))
    })
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
