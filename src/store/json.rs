//! JSON form of stored values.

use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use super::StoreError;

/// A JSON error without the value at fault: that may be a secret, and errors are logged.
#[derive(Debug, thiserror::Error)]
#[error("{} at line {line}, column {column}", describe(*category))]
struct JsonError {
    category: Category,
    line: usize,
    column: usize,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self { category: error.classify(), line: error.line(), column: error.column() }
    }
}

fn describe(category: Category) -> &'static str {
    match category {
        Category::Io => "not readable",
        Category::Syntax => "not JSON",
        Category::Data => "unexpected value or missing field",
        Category::Eof => "incomplete JSON",
    }
}

/// # Errors
/// [`StoreError::Unreadable`] for a value without a JSON form. No stored type has such values.
pub(crate) fn json(value: &impl Serialize) -> Result<bytes::Bytes, StoreError> {
    serde_json::to_vec(value).map(Into::into).map_err(StoreError::unreadable("a value to be stored"))
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(bucket: &str, key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value)
        .map_err(|error| StoreError::unreadable(format!("{bucket}/{key}"))(JsonError::from(error)))
}
