//! Requests to the provider's API: their JSON, and where they may send the access token.

use serde_json::{Map, Value};

use super::fields::{METHOD, TEXT_MAP, TEXTS};
use super::form::{Form, Object, below, each_text_of};
use super::headers::{self, AUTHORIZATION};
use super::names::{is_in_query, is_param};
use super::params::{IN_QUERY, PARAM, SHOWN, is_path, is_shown, paths_of};
use super::placeholders::check_text;
use super::{MAX_TEXT, TEXT, is_text, printable, require};
use crate::integration::{ApiRequest, ConfigError, IntegrationOauthConfig, Method, Paths, placeholders};

/// Bytes of one request. A connection keeps its requests in a header of the record, which the server limits to 64 KiB.
const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// The access token, in headers of each API request and in parameters and body of `upgrade`.
const ACCESS_TOKEN: &str = "access_token";
/// Further values in parameters and body of `upgrade`.
const CLIENT: [&str; 2] = ["client_id", "client_secret"];

const CLAIMS: &str = "a text with `{claim}` for each claim of the ID token that it holds";

const ANY_MAP: Form = Form::Map(&Form::Any, usize::MAX, "a JSON object");

pub(super) const UPGRADE: Form = Form::Object(&Object {
    fields: &[("url", Form::Text), ("method", METHOD), ("headers", TEXT_MAP), ("params", TEXT_MAP)],
    required: &["url"],
    needs: &[],
    expected: "an object with `url`, and optionally `method` (GET or POST), `headers` and `params`",
});
pub(super) const IDENTITY: Form = Form::Object(&Object {
    fields: &[
        ("url", Form::Text),
        ("method", METHOD),
        ("headers", TEXT_MAP),
        ("params", TEXT_MAP),
        ("body", ANY_MAP),
        ("token_param", Form::Text),
        ("issuer", Form::Text),
        ("id", Form::Paths),
        ("label", Form::Paths),
    ],
    required: &["id"],
    needs: &[("method", "url"), ("headers", "url"), ("params", "url"), ("body", "url"), ("token_param", "url")],
    expected: "an object with `id`, a dot path or a list of dot paths, and optionally `label`, `issuer`, and the request's \
               `url`, `method` (GET or POST), `headers`, `params`, `body` and `token_param`",
});
pub(super) const METADATA_REQUEST: Form = Form::Object(&Object {
    fields: &[
        ("url", Form::Text),
        ("method", METHOD),
        ("headers", TEXT_MAP),
        ("params", TEXT_MAP),
        ("body", ANY_MAP),
        ("token_param", Form::Text),
        ("paths", TEXTS),
    ],
    required: &["paths"],
    needs: &[("method", "url"), ("headers", "url"), ("params", "url"), ("body", "url"), ("token_param", "url")],
    expected: "an object with the list `paths`, and optionally `url`, `method` (GET or POST), `headers`, `params`, \
               `body` and `token_param`",
});

/// Checks the sizes of the requests in a config's JSON.
pub(super) fn check_sizes(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    ["upgrade", "identity", "metadata_request"].into_iter().try_for_each(|field| {
        let is_small = |value: &Value| value.to_string().len() <= MAX_REQUEST_BYTES;
        require(fields.get(field).is_none_or(is_small), field, "an object of at most 4 KiB")
    })
}

pub(super) fn check(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    if let Some(upgrade) = &config.upgrade {
        let allowed = [ACCESS_TOKEN, CLIENT[0], CLIENT[1]];
        RequestCheck { config, field: "upgrade", values: &allowed }.check(upgrade)?;
    }
    if let Some(identity) = &config.identity {
        let field = "identity";
        if let Some(request) = &identity.request {
            RequestCheck { config, field, values: &[] }.check(request)?;
        }
        identity.issuer.as_ref().map_or(Ok(()), |issuer| check_issuer(config, issuer, identity.request.is_some()))?;
        check_paths(config, "identity.id", &identity.id)?;
        identity.label.as_ref().map_or(Ok(()), |label| check_paths(config, "identity.label", label))?;
    }
    if let Some(metadata) = &config.metadata_request {
        let field = "metadata_request";
        if let Some(request) = &metadata.request {
            RequestCheck { config, field, values: &[] }.check(request)?;
        } else {
            let expected = "set, unless `identity` is read from an ID token, whose claims `paths` may name";
            require(config.id_token_issuer().is_some(), "metadata_request.url", expected)?;
        }
        let (field, paths) = ("metadata_request.paths", &metadata.paths);
        require(!paths.is_empty(), field, "a list of at least one dot path")?;
        for (index, path) in paths.iter().enumerate() {
            require(is_shown(config, path), &below(field, &index), SHOWN)?;
        }
    }
    Ok(())
}

/// The `iss` that an ID token must have, with `${variable}` and, for a claim of the same token, `{claim}`.
fn check_issuer(config: &IntegrationOauthConfig, issuer: &str, has_request: bool) -> Result<(), ConfigError> {
    let field = "identity.issuer";
    require(!has_request, field, "absent beside `identity.url`, which is asked instead of the ID token")?;
    require(is_text(issuer, MAX_TEXT), field, TEXT)?;
    check_text(field, issuer, config.variables.keys().map(String::as_str))?;
    let mut rest = issuer.replace("${", "{");
    while let Some((fixed, after)) = rest.split_once('{') {
        let claim = after.split_once('}').filter(|(name, _)| !fixed.contains('}') && is_path(name));
        rest = claim.map(|(_, after)| after.to_owned()).ok_or_else(|| ConfigError::invalid(field, CLAIMS))?;
    }
    require(!rest.contains('}'), field, CLAIMS)
}

fn has_plain_names(body: &Map<String, Value>) -> bool {
    body.iter().all(|(name, value)| !name.contains("${") && has_plain_names_in(value))
}

fn has_plain_names_in(value: &Value) -> bool {
    match value {
        Value::Object(fields) => has_plain_names(fields),
        Value::Array(values) => values.iter().all(has_plain_names_in),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Identity is shown to callers, so it must not contain a token.
fn check_paths(config: &IntegrationOauthConfig, field: &str, paths: &Paths) -> Result<(), ConfigError> {
    require(!paths.as_slice().is_empty(), field, "a dot path, or a list of at least one dot path")?;
    paths_of(field, paths).try_for_each(|(field, path)| require(is_shown(config, path), &field, SHOWN))
}

struct RequestCheck<'a> {
    config: &'a IntegrationOauthConfig,
    field: &'a str,
    /// Further names that parameters and body may have as `${name}`, beside the variables and those of any request.
    values: &'a [&'a str],
}

impl RequestCheck<'_> {
    fn check(&self, request: &ApiRequest) -> Result<(), ConfigError> {
        let ApiRequest { url, method, headers, params, body, token_param } = request;
        let set = self.named("headers");
        headers::check(&set, headers)?;
        for (name, value) in headers {
            let field = below(&set, name);
            self.check_placeholders(&field, value, &[ACCESS_TOKEN])?;
            let places_token = name.eq_ignore_ascii_case(AUTHORIZATION) || value.contains("${access_token}");
            require(
                !places_token || token_param.is_none(),
                &field,
                "absent beside `token_param`, which has the access token",
            )?;
        }
        for (name, value) in params {
            let field = self.named(&format!("params.{}", printable(name)));
            require(!is_in_query(url, name), &field, IN_QUERY)?;
            require(is_param(name) && value.len() <= MAX_TEXT, &field, PARAM)?;
            self.check_placeholders(&field, value, self.values)?;
        }
        let has_one_body = params.is_empty() && *method == Method::Post;
        require(body.is_none() || has_one_body, &self.named("body"), "absent for a GET, and beside `params`")?;
        let mut check = |field: &str, text: &str| self.check_placeholders(field, text, self.values);
        body.as_ref().map_or(Ok(()), |body| each_text_of(&self.named("body"), body, &mut check))?;
        let has_plain_names = body.as_ref().is_none_or(has_plain_names);
        require(has_plain_names, &self.named("body"), "an object whose names have no `${`: only values are filled in")?;
        let is_name = |name: &String| is_param(name) && !params.contains_key(name) && !is_in_query(url, name);
        let expected = "1 to 64 letters, digits or `_-.:[]`, and no name in `params` or in the query of `url`";
        require(token_param.as_ref().is_none_or(is_name), &self.named("token_param"), expected)?;
        let has_form = token_param.is_none() || body.is_none();
        require(has_form, &self.named("token_param"), "absent beside `body`")
    }

    fn check_placeholders(&self, field: &str, text: &str, allowed: &[&str]) -> Result<(), ConfigError> {
        let variables = self.config.variables.keys().map(String::as_str);
        check_text(field, text, variables.chain(placeholders::OF_REQUEST).chain(allowed.iter().copied()))
    }

    fn named(&self, part: &str) -> String {
        below(self.field, &part)
    }
}
