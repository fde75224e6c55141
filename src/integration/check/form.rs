//! The JSON form of a value. An error names the value by its whole path, and never repeats it: serde's messages do.

use serde_json::{Map, Value};

use super::printable;
use crate::foreign_text::has_hidden;
use crate::integration::ConfigError;

/// Form of a value.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// A string without hidden characters.
    Text,
    /// A string that no one reads.
    Opaque,
    Flag,
    /// A text, number or boolean.
    Scalar,
    /// JSON that is sent as it is. Its strings may have lines.
    Any,
    /// A whole number in a range, and the range's description.
    Whole(u64, u64, &'static str),
    /// The allowed strings, and their description.
    OneOf(&'static [&'static str], &'static str),
    /// At most this many values, and their description. A value that is there twice is a mistake.
    List(&'static Self, usize, &'static str),
    /// At most this many values under names of any kind, and their description.
    Map(&'static Self, usize, &'static str),
    /// A dot path, or a list of dot paths.
    Paths,
    Object(&'static Object),
    /// The second form if the value is an object, otherwise the first.
    ObjectOr(&'static Self, &'static Self),
}

/// Form of an object whose names have a meaning.
pub(super) struct Object {
    pub(super) fields: &'static [(&'static str, Form)],
    pub(super) required: &'static [&'static str],
    /// Field that needs another one, and that other one.
    pub(super) needs: &'static [(&'static str, &'static str)],
    pub(super) expected: &'static str,
}

const PLAIN: &str =
    "a text without control characters, invisible characters and characters that change the direction of text";
const PATHS: &str = "a dot path, or a list of at most 32 dot paths";

impl Form {
    /// # Errors
    /// [`ConfigError`] with the path of the innermost value that does not fit.
    pub(super) fn check(self, path: &str, value: &Value) -> Result<(), ConfigError> {
        match self {
            Self::Any => check_lines(path, value),
            Self::Opaque => fits(value.is_string(), path, "a string"),
            Self::Text => {
                fits(value.is_string(), path, "a string")?;
                fits(is_plain(value), path, PLAIN)
            }
            Self::Flag => fits(value.is_boolean(), path, "true or false"),
            Self::Scalar => {
                let is_scalar = value.is_string() || value.is_number() || value.is_boolean();
                fits(is_scalar, path, "a string, number or boolean")?;
                fits(is_plain(value), path, PLAIN)
            }
            Self::Whole(least, most, expected) => {
                fits(value.as_u64().is_some_and(|number| (least..=most).contains(&number)), path, expected)
            }
            Self::OneOf(choices, expected) => {
                fits(value.as_str().is_some_and(|text| choices.contains(&text)), path, expected)
            }
            Self::List(form, most, expected) => {
                let values = value.as_array().filter(|values| values.len() <= most);
                let values = values.ok_or_else(|| ConfigError::invalid(path, expected))?;
                values.iter().enumerate().try_for_each(|(index, value)| {
                    let field = below(path, &index);
                    form.check(&field, value)?;
                    let is_first = !values.iter().take(index).any(|other| other == value);
                    fits(is_first, &field, "given once in the list")
                })
            }
            Self::Map(form, most, expected) => {
                let values = value.as_object().filter(|values| values.len() <= most);
                let values = values.ok_or_else(|| ConfigError::invalid(path, expected))?;
                values.iter().try_for_each(|(name, value)| {
                    let field = below(path, &printable(name));
                    check_name(name, &field)?;
                    form.check(&field, value)
                })
            }
            Self::Paths if value.is_array() => Self::List(&Self::Text, 32, PATHS).check(path, value),
            Self::Paths => {
                fits(value.is_string(), path, PATHS)?;
                fits(is_plain(value), path, PLAIN)
            }
            Self::Object(object) => object.check(path, value),
            Self::ObjectOr(_, form) if value.is_object() => form.check(path, value),
            Self::ObjectOr(form, _) => form.check(path, value),
        }
    }
}

impl Object {
    fn check(&self, path: &str, value: &Value) -> Result<(), ConfigError> {
        let Self { fields, required, needs, expected } = self;
        let object = value.as_object().ok_or_else(|| ConfigError::invalid(path, *expected))?;
        for (name, value) in object {
            let field = below(path, &printable(name));
            let known = fields.iter().find(|(known, _)| known == name);
            let Some((_, form)) = known else { return Err(self.unknown(field)) };
            form.check(&field, value)?;
        }
        let lacks = |name: &str| !object.contains_key(name);
        let needed = needs.iter().filter(|(field, _)| object.contains_key(*field)).map(|(_, needed)| needed);
        match required.iter().chain(needed).find(|name| lacks(name)) {
            Some(name) => Err(ConfigError::Missing(below(path, name))),
            None => Ok(()),
        }
    }

    fn unknown(&self, field: String) -> ConfigError {
        let known: Vec<&str> = self.fields.iter().map(|(name, _)| *name).collect();
        ConfigError::UnknownNested { field, known: known.join(", ") }
    }
}

fn fits(does_fit: bool, path: &str, expected: &'static str) -> Result<(), ConfigError> {
    super::require(does_fit, path, expected)
}

fn check_name(name: &str, field: &str) -> Result<(), ConfigError> {
    fits(!has_hidden(name), field, "named without control characters and invisible characters")
}

fn is_plain(value: &Value) -> bool {
    value.as_str().is_none_or(|text| !has_hidden(text))
}

/// Checks all strings and names in a value.
fn check_lines(path: &str, value: &Value) -> Result<(), ConfigError> {
    let is_plain = |text: &str| !text.split(['\n', '\r', '\t']).any(has_hidden);
    match value {
        Value::String(text) => fits(is_plain(text), path, PLAIN),
        Value::Array(values) => {
            values.iter().enumerate().try_for_each(|(index, value)| check_lines(&below(path, &index), value))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let field = below(path, &printable(name));
            check_name(name, &field)?;
            check_lines(&field, value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Returns the path of a value inside another one.
pub(super) fn below(path: &str, name: &impl std::fmt::Display) -> String {
    format!("{path}.{name}")
}

/// Calls `check` for each text in a value, with the text's path.
pub(super) fn each_text(
    path: &str,
    value: &Value,
    check: &mut impl FnMut(&str, &str) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    match value {
        Value::String(text) => check(path, text),
        Value::Array(values) => {
            values.iter().enumerate().try_for_each(|(index, value)| each_text(&below(path, &index), value, check))
        }
        Value::Object(fields) => each_text_of(path, fields, check),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// The same for the values of an object.
pub(super) fn each_text_of(
    path: &str,
    fields: &Map<String, Value>,
    check: &mut impl FnMut(&str, &str) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    fields.iter().try_for_each(|(name, value)| each_text(&below(path, &printable(name)), value, check))
}
