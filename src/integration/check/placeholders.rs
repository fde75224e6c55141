//! Refuses every `${…}` that would be sent as it stands.

use serde_json::{Map, Value};

use super::require;
use crate::integration::{ConfigError, placeholders, template};

/// URLs. `check/urls.rs` checks the variables left of their query.
const URLS: [&str; 4] = ["auth_url", "token_url", "refresh_url", "revocation_url"];
/// Objects of parameters or headers.
const PARAMS: [&str; 4] = ["auth_params", "token_params", "refresh_params", "token_headers"];
/// Secrets are opaque, and patterns may contain `${`.
const OPAQUE: [&str; 5] = ["client_secret", "client_secrets", "client_key", "error_codes", "variables"];
/// Requests to the provider's API, which `check/api_requests.rs` checks.
const REQUESTS: [&str; 3] = ["upgrade", "identity", "metadata_request"];

const OF_REQUEST: &str = "a text in which every `${…}` is a variable of `variables`, `${scope}`, `${redirect_url}` or \
                          `${nonce}`";
const NONE: &str = "a text without `${`";

pub(super) fn check(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    let is_variable = |name: &str| fields.get("variables").is_some_and(|variables| variables.get(name).is_some());
    let is_known = |name: &str| is_variable(name) || placeholders::OF_REQUEST.contains(&name);
    let are_known = |text: &str| template::placeholders(text).is_some_and(|names| names.into_iter().all(is_known));
    for (field, value) in fields {
        match field.as_str() {
            name if OPAQUE.contains(&name) || URLS.contains(&name) || REQUESTS.contains(&name) => {}
            name if PARAMS.contains(&name) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let fits = value.as_str().is_none_or(are_known);
                    require(fits, &format!("{field}.{}", super::printable(name)), OF_REQUEST)?;
                }
            }
            name => require(!has_placeholder(value), name, NONE)?,
        }
    }
    Ok(())
}

fn has_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Array(values) => values.iter().any(has_placeholder),
        Value::Object(values) => values.values().any(has_placeholder),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
