//! Refuses every `${…}` that would be sent unchanged.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::form::each_text;
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

const NONE: &str = "a text without `${`";

pub(super) fn check(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    let variables = || fields.get("variables").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    // A name of another form is an error later, and its text must not get into this one's.
    let named = || variables().map(String::as_str).filter(|name| template::is_variable_name(name));
    let allowed = || named().chain(placeholders::OF_REQUEST);
    let mut check_none = |field: &str, text: &str| require(!text.contains("${"), field, NONE);
    for (field, value) in fields {
        match field.as_str() {
            name if OPAQUE.contains(&name) || URLS.contains(&name) || REQUESTS.contains(&name) => {}
            "issuer" => each_text("issuer", value, &mut |field, text| check_text(field, text, named()))?,
            name if PARAMS.contains(&name) => {
                each_text(name, value, &mut |field, text| check_text(field, text, allowed()))?;
            }
            name => each_text(name, value, &mut check_none)?,
        }
    }
    Ok(())
}

/// Checks that every `${…}` in the text has one of the allowed names.
pub(super) fn check_text<'a>(
    field: &str,
    text: &str,
    allowed: impl Iterator<Item = &'a str>,
) -> Result<(), ConfigError> {
    let allowed: Vec<&str> = allowed.collect();
    let is_known = |names: BTreeSet<&str>| names.iter().all(|name| allowed.contains(name));
    if template::placeholders(text).is_some_and(is_known) {
        return Ok(());
    }
    if allowed.is_empty() {
        return Err(ConfigError::invalid(field, "a text without `${…}`, as the config has no variables"));
    }
    let listed: Vec<String> = allowed.iter().map(|name| format!("`${{{name}}}`")).collect();
    Err(ConfigError::invalid(field, format!("a text in which every `${{…}}` is one of {}", listed.join(", "))))
}
