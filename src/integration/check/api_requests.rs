//! Requests to the provider's API: their JSON, and where they may send the access token.

use serde_json::{Map, Value};

use super::names::is_param;
use super::params::is_shown;
use super::{MAX_TEXT, TEXT, is_text, printable, require};
use crate::integration::{ApiRequest, ConfigError, IntegrationOauthConfig, Method, Paths, placeholders, template};

/// Bytes of one request. A connection keeps its requests in a header of the record, which the server limits to 64 KiB.
const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// Headers that the HTTP client sets, or that belong to one connection (RFC 9110 §7.6.1).
const RESERVED_HEADERS: [&str; 10] = [
    "host",
    "cookie",
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// The access token, in headers of each API request and in parameters and body of `upgrade`.
const ACCESS_TOKEN: &str = "access_token";
/// Further values in parameters and body of `upgrade`.
const CLIENT: [&str; 2] = ["client_id", "client_secret"];

/// Returns true if the value has the form of the named request: `upgrade`, `identity` or `metadata_request`.
pub(super) fn has_form(name: &str, value: &Value) -> bool {
    let required: &[&str] = match name {
        "identity" => &["id"],
        "metadata_request" => &["url", "paths"],
        _ => &["url"],
    };
    let is_known = |key: &str| match key {
        "url" | "method" | "headers" | "params" => true,
        "body" | "token_param" => name != "upgrade",
        "issuer" | "id" | "label" => name == "identity",
        "paths" => name == "metadata_request",
        _ => false,
    };
    let fits = |(key, value): (&String, &Value)| is_known(key) && field_fits(key, value);
    value.as_object().is_some_and(|object| {
        let has_request = object.contains_key("url");
        let needs_request = |key: &String| !["id", "label", "issuer"].contains(&key.as_str());
        value.to_string().len() <= MAX_REQUEST_BYTES
            && required.iter().all(|key| object.contains_key(*key))
            && object.iter().all(fits)
            && (has_request || !object.keys().any(needs_request))
    })
}

/// Describes the form for an error.
pub(super) fn form(name: &str) -> &'static str {
    match name {
        "identity" => {
            "an object of at most 4 KiB with `id`, a dot path or a list of dot paths, and optionally `label`, `issuer`, and the request's \
             `url`, `method` (GET or POST), `headers`, `params`, `body` and `token_param`"
        }
        "metadata_request" => {
            "an object of at most 4 KiB with `url` and the list `paths`, and optionally `method` (GET or POST), `headers`, `params`, `body` \
             and `token_param`"
        }
        _ => "an object of at most 4 KiB with `url`, and optionally `method` (GET or POST), `headers` and `params`",
    }
}

fn field_fits(key: &str, value: &Value) -> bool {
    let are_texts = |values: &Vec<Value>| values.len() <= 32 && values.iter().all(Value::is_string);
    match key {
        "method" => value.as_str().is_some_and(|method| ["GET", "POST"].contains(&method)),
        "headers" | "params" => {
            value.as_object().is_some_and(|map| map.len() <= 32 && map.values().all(Value::is_string))
        }
        "body" => value.is_object(),
        "id" | "label" => value.is_string() || value.as_array().is_some_and(are_texts),
        "paths" => value.as_array().is_some_and(are_texts),
        _ => value.is_string(),
    }
}

pub(super) fn check(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    if let Some(upgrade) = &config.upgrade {
        let allowed = [ACCESS_TOKEN, CLIENT[0], CLIENT[1]];
        Checked { config, field: "upgrade", in_params: &allowed }.check(upgrade)?;
    }
    if let Some(identity) = &config.identity {
        let field = "identity";
        if let Some(request) = &identity.request {
            Checked { config, field, in_params: &[] }.check(request)?;
        }
        require(identity.issuer.as_ref().is_none_or(|text| is_text(text, MAX_TEXT)), "identity.issuer", TEXT)?;
        check_paths(config, "identity.id", identity.id.as_slice())?;
        check_paths(config, "identity.label", identity.label.as_ref().map_or(&[], Paths::as_slice))?;
        require(!identity.id.as_slice().is_empty(), "identity.id", "a dot path, or a list of dot paths")?;
    }
    if let Some(metadata) = &config.metadata_request {
        let field = "metadata_request";
        Checked { config, field, in_params: &[] }.check(&metadata.request)?;
        check_paths(config, "metadata_request.paths", &metadata.paths)?;
    }
    Ok(())
}

/// Identity and metadata are shown to callers, so they must not contain a token.
fn check_paths(config: &IntegrationOauthConfig, field: &str, paths: &[String]) -> Result<(), ConfigError> {
    let are_shown = paths.iter().all(|path| is_shown(config, path));
    require(are_shown, field, "dot paths of at most 128 bytes that don't end in a token, a secret or a code")
}

struct Checked<'a> {
    config: &'a IntegrationOauthConfig,
    field: &'a str,
    /// Names beside the variables that parameters and body may hold as `${name}`.
    in_params: &'a [&'a str],
}

impl Checked<'_> {
    fn check(&self, request: &ApiRequest) -> Result<(), ConfigError> {
        let ApiRequest { url: _, method, headers, params, body, token_param } = request;
        for (name, value) in headers {
            let field = self.named(&format!("headers.{}", printable(name)));
            let lower = name.to_ascii_lowercase();
            let is_free = !RESERVED_HEADERS.contains(&lower.as_str()) && !lower.starts_with("content-");
            require(is_free, &field, "absent: tokenbus sets this header")?;
            let is_header = (1..=64).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && value.len() <= MAX_TEXT
                && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            require(is_header, &field, "a header of visible ASCII characters, at most 1024 bytes")?;
            self.check_placeholders(&field, value, &[ACCESS_TOKEN])?;
        }
        for (name, value) in params {
            let field = self.named(&format!("params.{}", printable(name)));
            let is_short = is_param(name) && value.len() <= MAX_TEXT;
            require(is_short, &field, "a parameter of at most 64 letters, digits or `_-.:[]` with at most 1024 bytes")?;
            self.check_placeholders(&field, value, self.in_params)?;
        }
        let has_one_body = params.is_empty() && *method == Method::Post;
        require(body.is_none() || has_one_body, &self.named("body"), "absent for a GET, and beside `params`")?;
        self.check_body(body.as_ref())?;
        let is_name = |name: &String| is_param(name) && !params.contains_key(name);
        let expected = "1 to 64 letters, digits or `_-.:[]`, and no name in `params`";
        require(token_param.as_ref().is_none_or(is_name), &self.named("token_param"), expected)?;
        let has_form = token_param.is_none() || body.is_none();
        require(has_form, &self.named("token_param"), "absent beside `body`")
    }

    fn check_body(&self, body: Option<&Map<String, Value>>) -> Result<(), ConfigError> {
        let mut open: Vec<&Value> = body.into_iter().flat_map(Map::values).collect();
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) => self.check_placeholders(&self.named("body"), text, self.in_params)?,
                Value::Array(values) => open.extend(values),
                Value::Object(fields) => open.extend(fields.values()),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        Ok(())
    }

    fn check_placeholders(&self, field: &str, text: &str, allowed: &[&str]) -> Result<(), ConfigError> {
        let is_variable = |name: &str| self.config.variables.contains_key(name);
        let is_known =
            |name: &str| is_variable(name) || placeholders::OF_REQUEST.contains(&name) || allowed.contains(&name);
        let names = template::placeholders(text);
        let are_known = names.is_some_and(|names| names.into_iter().all(is_known));
        require(are_known, field, "a text whose `${…}` are variables, or values that this field may hold")
    }

    fn named(&self, part: &str) -> String {
        format!("{}.{part}", self.field)
    }
}
