//! Field names and JSON forms of a config, checked before serde reads it.

use serde_json::{Map, Value};

use super::api_requests::{self, IDENTITY, METADATA_REQUEST, UPGRADE};
use super::form::Form::{self, Flag, List, Map as MapOf, ObjectOr, OneOf, Opaque, Paths, Scalar, Text, Whole};
use super::form::Object;
use super::{MAX_SECRETS, printable};
use crate::integration::{ConfigError, MAX_TIMEOUT};
use crate::subject::Integration;

/// Entries of a list or an object.
const MAX_ENTRIES: usize = 32;
const MAX_VARIABLES: usize = 8;
/// Values of a variable.
const MAX_VALUES: usize = 64;
/// Ten years in seconds. A longer lifetime is a mistake.
const MAX_LIFETIME: u64 = 10 * 366 * 86400;
/// Unknown fields that an error lists.
const MAX_LISTED: usize = 8;

pub(super) const TEXTS: Form = List(&Text, MAX_ENTRIES, "a list of at most 32 strings");
pub(super) const TEXT_MAP: Form = MapOf(&Text, MAX_ENTRIES, "an object of at most 32 strings");
const SECONDS: Form = Whole(1, MAX_LIFETIME, "a whole number of seconds, from 1 to ten years");
pub(super) const METHOD: Form = OneOf(&["POST", "GET"], "POST or GET");
const AUTH_METHOD: Form = OneOf(
    &["client_secret_post", "client_secret_basic", "private_key_jwt", "signed_client_secret", "none"],
    "one of client_secret_post, client_secret_basic, private_key_jwt, signed_client_secret, none",
);
const REVOCATION_AUTH_METHOD: Form = OneOf(
    &["client_secret_post", "client_secret_basic", "private_key_jwt", "signed_client_secret", "none", "bearer"],
    "one of client_secret_post, client_secret_basic, private_key_jwt, signed_client_secret, none, bearer",
);
const TOKEN_KIND: Form = OneOf(&["refresh_token", "access_token"], "refresh_token or access_token");
const BODY_FORMAT: Form = OneOf(&["form", "json", "query"], "one of form, json, query");
const PATH_MAP: Form = MapOf(&Paths, usize::MAX, "an object of dot paths, or of lists of at most 32 dot paths");
/// Names of parameters; `check/names.rs` checks them. The names of one request are an object of their own.
const NAMES: Form = MapOf(
    &ObjectOr(&Text, &MapOf(&Text, usize::MAX, "an object of strings")),
    usize::MAX,
    "an object of strings, in which `authorize`, `token`, `refresh` and `revoke` may be such objects",
);
const LIFETIME: Form = Form::Object(&Object {
    fields: &[("seconds", SECONDS), ("from", OneOf(&["issue", "use"], "issue or use"))],
    required: &["seconds", "from"],
    needs: &[],
    expected: "an object with `seconds`, from 1 to ten years, and `from`, issue or use",
});
const ERROR_RULE: Form = Form::Object(&Object {
    fields: &[
        ("status", Whole(100, 599, "a status from 100 to 599")),
        ("path", Text),
        ("equals", Scalar),
        ("matches", Text),
        ("code", Text),
    ],
    required: &["code"],
    needs: &[],
    expected: "an object with the string `code`, and optionally `status` (100 to 599), `path`, and one of `equals` (a \
               string, number or boolean) and `matches` (a string)",
});
const VARIABLE: Form = Form::Object(&Object {
    fields: &[
        ("pattern", Text),
        ("values", List(&Text, MAX_VALUES, "a list of at most 64 strings")),
        ("default", Text),
        ("from", Text),
        ("shared_suffix", Flag),
        ("metadata", Flag),
    ],
    required: &[],
    needs: &[],
    expected: "an object with `pattern` or `values` (at most 64 strings), and optionally `default`, `from`, \
               `shared_suffix` and `metadata`",
});

pub(super) const REQUIRED: [&str; 8] =
    ["integration_id", "name", "scopes", "client_id", "client_secret", "auth_url", "token_url", "redirect_url"];

const OPTIONAL: [(&str, Form); 48] = [
    ("provider", Text),
    ("scope_separator", OneOf(&[" ", ",", "+"], "one of \" \", \",\", \"+\"")),
    ("pkce", OneOf(&["S256", "off"], "S256 or off")),
    ("token_auth_method", AUTH_METHOD),
    ("refresh_auth_method", AUTH_METHOD),
    ("revocation_auth_method", REVOCATION_AUTH_METHOD),
    ("token_method", METHOD),
    ("token_body_format", BODY_FORMAT),
    ("revocation_body_format", BODY_FORMAT),
    ("revocation_method", OneOf(&["POST", "DELETE"], "POST or DELETE")),
    ("revoke_with", TOKEN_KIND),
    ("token_headers", TEXT_MAP),
    ("basic_encoding", OneOf(&["form", "raw"], "form or raw")),
    ("response_type", Text),
    ("response_mode", OneOf(&["query", "form_post", ""], "query, form_post or empty")),
    ("auth_params", TEXT_MAP),
    ("token_params", TEXT_MAP),
    ("refresh_params", TEXT_MAP),
    ("param_names", NAMES),
    ("refresh_url", Text),
    ("revocation_url", Text),
    ("token_response_path", Text),
    ("token_answer", PATH_MAP),
    ("error_codes", List(&ERROR_RULE, MAX_ENTRIES, "a list of at most 32 objects")),
    ("metadata_paths", TEXTS),
    ("callback_metadata", TEXTS),
    ("code_param", Text),
    ("default_expires_in", SECONDS),
    ("refresh_token_lifetime", LIFETIME),
    ("timeout", Whole(1, MAX_TIMEOUT.as_secs(), "a whole number of seconds, from 1 to 60")),
    ("expires_in_unit", OneOf(&["s", "ms"], "s or ms")),
    ("issuer", Text),
    ("client_key", Opaque),
    ("client_key_id", Text),
    ("client_key_alg", OneOf(&["RS256", "ES256", "EdDSA"], "one of RS256, ES256, EdDSA")),
    ("client_assertion_aud", Text),
    ("client_assertion_iss", Text),
    ("login_params", TEXTS),
    ("refresh_with", TOKEN_KIND),
    ("refresh_grant_type", Text),
    ("refresh_method", METHOD),
    ("variables", MapOf(&VARIABLE, MAX_VARIABLES, "an object of at most 8 variables by their names")),
    ("client_secrets", List(&Text, MAX_SECRETS, "a list of at most 4 strings")),
    ("upgrade", UPGRADE),
    ("identity", IDENTITY),
    ("metadata_request", METADATA_REQUEST),
    ("reconnect", OneOf(&["any", "same_identity"], "any or same_identity")),
    ("revoke_replaced", Flag),
];

/// Returns true if configs have a field with this name.
fn is_field(name: &str) -> bool {
    REQUIRED.contains(&name) || OPTIONAL.iter().any(|(field, _)| *field == name)
}

/// Returns the names of all fields of a config.
#[cfg(test)]
pub(in crate::integration) fn field_names() -> impl Iterator<Item = &'static str> {
    REQUIRED.into_iter().chain(OPTIONAL.into_iter().map(|(name, _)| name))
}

pub(super) fn check_fields(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    let mut unknown = fields.keys().filter(|name| !is_field(name)).map(|name| printable(name));
    let listed: Vec<String> = unknown.by_ref().take(MAX_LISTED).collect();
    if !listed.is_empty() {
        return Err(ConfigError::Unknown { listed, more: unknown.count() });
    }
    for name in REQUIRED {
        let value = fields.get(name).ok_or_else(|| ConfigError::Missing(name.to_owned()))?;
        if name == "client_secret" { Opaque } else { Text }.check(name, value)?;
    }
    for (name, form) in OPTIONAL {
        if let Some(value) = fields.get(name) {
            form.check(name, value)?;
        }
    }
    api_requests::check_sizes(fields)?;
    let id = fields.get("integration_id").and_then(Value::as_str).unwrap_or_default();
    if Integration::parse(id).is_err() {
        let expected = "1 to 64 letters, digits, `_` or `-`, with a letter or digit first, and not begin with `oauth-`";
        return Err(ConfigError::invalid("integration_id", expected));
    }
    Ok(())
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
