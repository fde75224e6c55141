//! Field names and JSON types of a config, checked before serde reads it: serde's messages repeat values.

use serde_json::{Map, Value};

use super::{api_requests, printable};
use crate::integration::{ConfigError, MAX_TIMEOUT};
use crate::subject::Integration;

/// Entries of a list or an object.
const MAX_ENTRIES: usize = 32;
/// Values of a variable.
const MAX_VALUES: usize = 64;
/// Ten years in seconds. A longer lifetime is a mistake.
const MAX_LIFETIME: u64 = 10 * 366 * 86400;
/// Unknown fields that an error lists.
const MAX_LISTED: usize = 8;

/// Requests whose parameters may have names of their own.
const REQUESTS: [&str; 3] = ["authorize", "token", "refresh"];

/// JSON type of a field.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    TextMap,
    /// Of parameters.
    Names,
    PathMap,
    ErrorRules,
    Seconds,
    Lifetime,
    Timeout,
    Variables,
    /// A request to the provider's API, with the fields that the field's name allows.
    Request,
    Flag,
    /// The allowed strings, and their description for the error.
    OneOf(&'static [&'static str], &'static str),
}

use Kind::{
    ErrorRules, Flag, Lifetime, Names, OneOf, PathMap, Request, Seconds, Text, TextMap, Texts, Timeout, Variables,
};

pub(super) const REQUIRED: [&str; 8] =
    ["integration_id", "name", "scopes", "client_id", "client_secret", "auth_url", "token_url", "redirect_url"];

const OPTIONAL: [(&str, Kind); 43] = [
    ("provider", Text),
    ("scope_separator", OneOf(&[" ", ",", "+"], "one of \" \", \",\", \"+\"")),
    ("pkce", OneOf(&["S256", "off"], "S256 or off")),
    (
        "token_auth_method",
        OneOf(
            &["client_secret_post", "client_secret_basic", "private_key_jwt", "signed_client_secret", "none"],
            "one of client_secret_post, client_secret_basic, private_key_jwt, signed_client_secret, none",
        ),
    ),
    ("token_method", OneOf(&["POST", "GET"], "POST or GET")),
    ("token_body_format", OneOf(&["form", "json", "query"], "one of form, json, query")),
    ("token_headers", TextMap),
    ("basic_encoding", OneOf(&["form", "raw"], "form or raw")),
    ("response_type", Text),
    ("response_mode", OneOf(&["query", "form_post", ""], "query, form_post or empty")),
    ("auth_params", TextMap),
    ("token_params", TextMap),
    ("refresh_params", TextMap),
    ("param_names", Names),
    ("refresh_url", Text),
    ("revocation_url", Text),
    ("token_response_path", Text),
    ("token_answer", PathMap),
    ("error_codes", ErrorRules),
    ("metadata_paths", Texts),
    ("callback_metadata", Texts),
    ("code_param", Text),
    ("default_expires_in", Seconds),
    ("refresh_token_lifetime", Lifetime),
    ("timeout", Timeout),
    ("expires_in_unit", OneOf(&["s", "ms"], "s or ms")),
    ("issuer", Text),
    ("client_key", Text),
    ("client_key_id", Text),
    ("client_key_alg", OneOf(&["RS256", "ES256", "EdDSA"], "one of RS256, ES256, EdDSA")),
    ("client_assertion_aud", Text),
    ("client_assertion_iss", Text),
    ("login_params", Texts),
    ("refresh_with", OneOf(&["refresh_token", "access_token"], "refresh_token or access_token")),
    ("refresh_grant_type", Text),
    ("refresh_method", OneOf(&["POST", "GET"], "POST or GET")),
    ("variables", Variables),
    ("client_secrets", Texts),
    ("upgrade", Request),
    ("identity", Request),
    ("metadata_request", Request),
    ("reconnect", OneOf(&["any", "same_identity"], "any or same_identity")),
    ("revoke_replaced", Flag),
];

pub(super) fn check_fields(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    let known = |name: &str| REQUIRED.contains(&name) || OPTIONAL.iter().any(|(field, _)| *field == name);
    let unknown: Vec<String> =
        fields.keys().filter(|name| !known(name)).take(MAX_LISTED).map(|name| printable(name)).collect();
    if !unknown.is_empty() {
        return Err(ConfigError::Unknown(unknown));
    }
    for name in REQUIRED {
        let value = fields.get(name).ok_or(ConfigError::Missing(name))?;
        check_kind(name, Text, value)?;
    }
    for (name, kind) in OPTIONAL {
        if let Some(value) = fields.get(name) {
            check_kind(name, kind, value)?;
        }
    }
    let id = fields.get("integration_id").and_then(Value::as_str).unwrap_or_default();
    if Integration::parse(id).is_err() {
        let expected = "1 to 64 letters, digits, `_` or `-`, with a letter or digit first, and not begin with `oauth-`";
        return Err(ConfigError::invalid("integration_id", expected));
    }
    Ok(())
}

fn check_kind(name: &str, kind: Kind, value: &Value) -> Result<(), ConfigError> {
    let texts = |values: &[Value]| values.len() <= MAX_ENTRIES && values.iter().all(Value::is_string);
    let (fits, expected) = match kind {
        Text => (value.is_string(), "a string"),
        Texts => (value.as_array().is_some_and(|values| texts(values)), "a list of at most 32 strings"),
        TextMap => {
            let fits = |map: &Map<_, Value>| map.len() <= MAX_ENTRIES && map.values().all(Value::is_string);
            (value.as_object().is_some_and(fits), "an object of at most 32 strings")
        }
        Names => {
            let are_names = |map: &Map<_, Value>| map.values().all(Value::is_string);
            let fits = |(key, value): (&String, &Value)| match value.as_object() {
                Some(names) => REQUESTS.contains(&key.as_str()) && are_names(names),
                None => value.is_string(),
            };
            let form = "an object of strings, in which `authorize`, `token` and `refresh` may be such objects";
            (value.as_object().is_some_and(|map| map.iter().all(fits)), form)
        }
        PathMap => {
            let is_paths = |value: &Value| value.is_string() || value.as_array().is_some_and(|values| texts(values));
            let fits = value.as_object().is_some_and(|map| map.values().all(is_paths));
            (fits, "an object of dot paths, or of lists of at most 32 dot paths")
        }
        ErrorRules => {
            let fits = value.as_array().is_some_and(|rules| rules.len() <= MAX_ENTRIES && rules.iter().all(is_rule));
            let form = "a list of at most 32 objects with the string `code`, and optionally `status` (100 to 599), `path`, \
                        and one of `equals` (a string, number or boolean) and `matches` (a string)";
            (fits, form)
        }
        Seconds => (is_seconds(value), "a whole number of seconds, from 1 to ten years"),
        Lifetime => {
            let fits = |map: &Map<String, Value>| {
                let from = map.get("from").and_then(Value::as_str);
                map.len() == 2 && map.get("seconds").is_some_and(is_seconds) && matches!(from, Some("issue" | "use"))
            };
            (
                value.as_object().is_some_and(fits),
                "an object with `seconds`, from 1 to ten years, and `from`, issue or use",
            )
        }
        Timeout => {
            let fits = value.as_u64().is_some_and(|seconds| (1..=MAX_TIMEOUT.as_secs()).contains(&seconds));
            (fits, "a whole number of seconds, from 1 to 60")
        }
        Variables => {
            let fits = value.as_object().is_some_and(|map| map.values().all(is_variable));
            let form = "an object of objects with `pattern` or `values` (at most 64 strings), and optionally `default`, \
                        `from`, `shared_suffix` and `metadata`";
            (fits, form)
        }
        Request => (api_requests::has_form(name, value), api_requests::form(name)),
        Flag => (value.is_boolean(), "true or false"),
        OneOf(choices, expected) => (value.as_str().is_some_and(|text| choices.contains(&text)), expected),
    };
    if fits { Ok(()) } else { Err(ConfigError::invalid(name, expected)) }
}

fn is_rule(value: &Value) -> bool {
    let fits = |(key, value): (&String, &Value)| match key.as_str() {
        "status" => value.as_u64().is_some_and(|status| (100..600).contains(&status)),
        "path" | "matches" | "code" => value.is_string(),
        "equals" => value.is_string() || value.is_number() || value.is_boolean(),
        _ => false,
    };
    let is_rule = |rule: &Map<String, Value>| {
        let has = |key: &str| rule.contains_key(key);
        has("code") && !(has("equals") && has("matches")) && rule.iter().all(fits)
    };
    value.as_object().is_some_and(is_rule)
}

fn is_seconds(value: &Value) -> bool {
    value.as_u64().is_some_and(|seconds| (1..=MAX_LIFETIME).contains(&seconds))
}

fn is_variable(value: &Value) -> bool {
    let fits = |(key, value): (&String, &Value)| match key.as_str() {
        "pattern" | "default" | "from" => value.is_string(),
        "values" => {
            value.as_array().is_some_and(|values| values.len() <= MAX_VALUES && values.iter().all(Value::is_string))
        }
        "shared_suffix" | "metadata" => value.is_boolean(),
        _ => false,
    };
    value.as_object().is_some_and(|map| map.iter().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_documented() {
        let (document, described) =
            (include_str!("../../../docs/configs.md"), include_str!("../../gateway/routes/openapi.json"));
        let described: Value = serde_json::from_str(described).unwrap();
        let described = &described["components"]["schemas"]["IntegrationOauthConfig"]["properties"];
        let names: Vec<&str> = REQUIRED.into_iter().chain(OPTIONAL.map(|(name, _)| name)).collect();
        for name in &names {
            assert!(document.contains(&format!("`{name}`")), "docs/configs.md lacks {name}");
            assert!(described.get(name).is_some(), "openapi.json lacks {name}");
        }
        assert_eq!(described.as_object().unwrap().len(), names.len());
    }
}
