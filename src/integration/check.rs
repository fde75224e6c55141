//! From an admin's JSON to a config that can be relied on.
//!
//! Fields are looked at one by one before serde sees them: its messages repeat values.

mod params;
mod strict;

use serde_json::error::Category;
use serde_json::{Map, Value};
use url::{Host, Url};

use super::{ConfigError, IntegrationOauthConfig, TokenAuthMethod, UrlRules, scope_list, template};
use crate::oauth::token::signing_key;
use crate::secret::Secret;
use crate::subject::Integration;

const MAX_BODY: usize = 64 * 1024;
const MAX_NAME: usize = 200;
const MAX_TEXT: usize = 1024;
const MAX_SCOPES: usize = 8 * 1024;
const MAX_SECRET: usize = 4 * 1024;
const MAX_KEY: usize = 16 * 1024;
const MAX_URL: usize = 2048;
const MAX_ENTRIES: usize = 32;
const MAX_VARIABLES: usize = 8;
const MAX_PATTERN: usize = 256;
const MAX_SECRETS: usize = 4;
/// Ten years: what calls itself longer is no lifetime.
const MAX_LIFETIME: u64 = 10 * 366 * 86400;

/// What JSON a field takes.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    TextMap,
    Seconds,
    Variables,
    OneOf(&'static [&'static str], &'static str),
}

use Kind::{OneOf, Seconds, Text, TextMap, Texts, Variables};

pub(super) const REQUIRED: [&str; 8] =
    ["integration_id", "name", "scopes", "client_id", "client_secret", "auth_url", "token_url", "redirect_url"];

const OPTIONAL: [(&str, Kind); 24] = [
    ("provider", Text),
    ("scope_separator", OneOf(&[" ", ",", "+"], "one of \" \", \",\", \"+\"")),
    ("pkce", OneOf(&["S256", "off"], "S256 or off")),
    (
        "token_auth_method",
        OneOf(
            &["client_secret_post", "client_secret_basic", "private_key_jwt", "none"],
            "one of client_secret_post, client_secret_basic, private_key_jwt, none",
        ),
    ),
    ("token_body_format", OneOf(&["form", "json"], "form or json")),
    ("auth_params", TextMap),
    ("token_params", TextMap),
    ("refresh_params", TextMap),
    ("param_names", TextMap),
    ("refresh_url", Text),
    ("revocation_url", Text),
    ("token_response_path", Text),
    ("metadata_paths", Texts),
    ("callback_metadata", Texts),
    ("code_param", Text),
    ("default_expires_in", Seconds),
    ("expires_in_unit", OneOf(&["s", "ms"], "s or ms")),
    ("issuer", Text),
    ("client_key", Text),
    ("client_key_id", Text),
    ("client_key_alg", OneOf(&["RS256", "ES256", "EdDSA"], "one of RS256, ES256, EdDSA")),
    ("client_assertion_aud", Text),
    ("variables", Variables),
    ("client_secrets", Texts),
];

/// Reads JSON in which no field stands twice.
///
/// # Errors
/// [`ConfigError`] saying where it is not.
pub(crate) fn read_json(body: &[u8]) -> Result<Value, ConfigError> {
    if body.len() > MAX_BODY {
        return Err(ConfigError::NotAnObject);
    }
    let read = serde_json::from_slice(body).map(|strict::Strict(value)| value);
    read.map_err(|error| {
        let what = match error.classify() {
            Category::Data => "a field stands there a second time",
            Category::Eof => "it ends too early",
            Category::Syntax | Category::Io => "it is not JSON",
        };
        ConfigError::Json { what, line: error.line(), column: error.column() }
    })
}

/// Reads a config, its profile's fields filled in.
///
/// # Errors
/// [`ConfigError`] naming the field; never a value.
pub(crate) fn parse_value(
    body: Value,
    path_id: &Integration,
    rules: &UrlRules,
) -> Result<IntegrationOauthConfig<Secret>, ConfigError> {
    let Value::Object(mut fields) = body else { return Err(ConfigError::NotAnObject) };
    fields.retain(|name, value| !value.is_null() || REQUIRED.contains(&name.as_str()));
    check_fields(&fields)?;
    let config = serde_json::from_value(Value::Object(fields)).map_err(|_| ConfigError::NotAnObject)?;
    check(&config, path_id, *rules)?;
    Ok(config)
}

fn check_fields(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    let known = |name: &str| REQUIRED.contains(&name) || OPTIONAL.iter().any(|(field, _)| *field == name);
    let unknown: Vec<String> = fields.keys().filter(|name| !known(name)).take(8).map(|name| printable(name)).collect();
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
        let form = "1 to 64 letters, digits, `_` or `-`, begin with a letter or digit, and not begin with `oauth-`";
        return Err(ConfigError::invalid("integration_id", form));
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
        Seconds => {
            let fits = value.as_u64().is_some_and(|seconds| (1..=MAX_LIFETIME).contains(&seconds));
            (fits, "a whole number of seconds, from 1 to ten years")
        }
        Variables => {
            let fits = value.as_object().is_some_and(|map| map.values().all(is_variable));
            (fits, "an object of objects with `pattern` and perhaps `default`, both strings")
        }
        OneOf(choices, expected) => (value.as_str().is_some_and(|text| choices.contains(&text)), expected),
    };
    if fits { Ok(()) } else { Err(ConfigError::invalid(name, expected)) }
}

fn is_variable(value: &Value) -> bool {
    value.as_object().is_some_and(|map| {
        map.contains_key("pattern")
            && map.iter().all(|(key, value)| (key == "pattern" || key == "default") && value.is_string())
    })
}

fn printable(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(64).collect()
}

fn check(config: &IntegrationOauthConfig, path_id: &Integration, rules: UrlRules) -> Result<(), ConfigError> {
    if config.integration_id != *path_id {
        return Err(ConfigError::invalid("integration_id", "the same as in the path"));
    }
    check_texts(config)?;
    check_variables(config)?;
    check_urls(config, rules)?;
    params::check(config)?;
    check_authentication(config)
}

fn check_texts(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let optional = |text: &Option<String>| text.as_ref().is_none_or(|text| is_text(text, MAX_TEXT));
    let secret = |secret: &Secret| secret.expose().len() <= MAX_SECRET;
    let scopes = scope_list(&config.scopes);
    let checks = [
        ("name", is_text(&config.name, MAX_NAME), "1 to 200 characters without control characters"),
        ("scopes", config.scopes.len() <= MAX_SCOPES && scopes.len() <= 256, "at most 256 scopes in 8 KiB"),
        ("scopes", !config.scopes.contains(char::is_control), "without control characters"),
        ("client_id", is_text(&config.client_id, MAX_TEXT), "1 to 1024 characters without control characters"),
        ("client_secret", secret(&config.client_secret), "at most 4 KiB"),
        ("client_secrets", config.client_secrets.len() <= MAX_SECRETS, "at most 4 secrets"),
        ("client_secrets", config.client_secrets.iter().all(|s| secret(s) && !s.is_empty()), "of 1 byte to 4 KiB each"),
        ("provider", optional(&config.provider), "1 to 1024 characters without control characters"),
        ("issuer", optional(&config.issuer), "1 to 1024 characters without control characters"),
        ("client_key_id", optional(&config.client_key_id), "1 to 1024 characters without control characters"),
        (
            "client_assertion_aud",
            optional(&config.client_assertion_aud),
            "1 to 1024 characters without control characters",
        ),
    ];
    all(checks)
}

fn all<const N: usize>(checks: [(&str, bool, &'static str); N]) -> Result<(), ConfigError> {
    match checks.into_iter().find(|(_, fits, _)| !fits) {
        Some((field, _, expected)) => Err(ConfigError::invalid(field, expected)),
        None => Ok(()),
    }
}

fn is_text(text: &str, max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= max && !text.contains(char::is_control)
}

fn urls(config: &IntegrationOauthConfig) -> impl Iterator<Item = (&'static str, &str)> {
    let required = [("auth_url", config.auth_url.as_str()), ("token_url", config.token_url.as_str())];
    let optional =
        [("refresh_url", config.refresh_url.as_deref()), ("revocation_url", config.revocation_url.as_deref())];
    required.into_iter().chain(optional.into_iter().filter_map(|(field, url)| url.map(|url| (field, url))))
}

fn check_urls(config: &IntegrationOauthConfig, rules: UrlRules) -> Result<(), ConfigError> {
    for (field, url) in urls(config) {
        check_url(field, url, rules)?;
    }
    if config.redirect_url.contains("${") {
        return Err(ConfigError::invalid("redirect_url", "without variables"));
    }
    check_url("redirect_url", &config.redirect_url, rules)
}

fn check_url(field: &str, text: &str, rules: UrlRules) -> Result<(), ConfigError> {
    let form = "an absolute URL without fragment and user information, variables only as whole labels left of a fixed \
                host or in the path";
    let url = (text.len() <= MAX_URL).then(|| template::judge(text)).flatten();
    let url = url.ok_or_else(|| ConfigError::invalid(field, form))?;
    let insecure = url.scheme() == "http" && rules.allow_insecure_urls && is_loopback(&url);
    if url.scheme() == "https" || insecure {
        Ok(())
    } else {
        Err(ConfigError::invalid(
            field,
            "https (http on loopback hosts alone, and with the setting `oauth.allow_insecure_urls`)",
        ))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => host == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn check_variables(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    if config.variables.len() > MAX_VARIABLES {
        return Err(ConfigError::invalid("variables", "at most 8"));
    }
    for (name, variable) in &config.variables {
        let wrong = |expected| Err(ConfigError::invalid(format!("variables.{}", printable(name)), expected));
        if !template::is_name(name) {
            return wrong("named by a letter and at most 31 more letters, digits or `_`");
        }
        if variable.pattern.len() > MAX_PATTERN || template::pattern(&variable.pattern).is_none() {
            return wrong("a regular expression of at most 256 bytes");
        }
        if variable.default.as_ref().is_some_and(|value| !template::fits(variable, value)) {
            return wrong("given a default that its pattern matches");
        }
        if !urls(config).any(|(_, url)| template::names(url).contains(name.as_str())) {
            return wrong("used in a URL");
        }
    }
    for (field, url) in urls(config) {
        if template::names(url).iter().any(|name| !config.variables.contains_key(*name)) {
            return Err(ConfigError::invalid(field, "without variables that `variables` does not have"));
        }
    }
    Ok(())
}

fn check_authentication(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let has_key = config.client_key.is_some();
    match config.token_auth_method {
        TokenAuthMethod::ClientSecretBasic if config.client_secret.is_empty() => {
            return Err(ConfigError::invalid("client_secret", "given for client_secret_basic"));
        }
        TokenAuthMethod::PrivateKeyJwt if !has_key => {
            return Err(ConfigError::invalid("client_key", "given for private_key_jwt"));
        }
        TokenAuthMethod::ClientSecretPost
        | TokenAuthMethod::ClientSecretBasic
        | TokenAuthMethod::PrivateKeyJwt
        | TokenAuthMethod::None => {}
    }
    let key_fits = config
        .client_key
        .as_ref()
        .is_none_or(|key| key.expose().len() <= MAX_KEY && signing_key(config.client_key_alg, key).is_ok());
    all([("client_key", key_fits, "a private key in PEM (PKCS#8) of the kind that client_key_alg names")])
}
