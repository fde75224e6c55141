//! Parameters: which ones a config may rename, add, and keep as metadata.

use serde_json::Value;
use url::form_urlencoded;

use super::urls::{MAX_PATTERN_BYTES, templates};
use super::{MAX_TEXT, printable, require};
use crate::integration::{ANSWER_FIELDS, ConfigError, ERROR_CODES, ErrorRule, IntegrationOauthConfig, template};

const MAX_PATH_BYTES: usize = 128;
/// Parameters that tokenbus sets itself. A config must not set them in any request.
const RESERVED: [&str; 11] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "state",
    "code",
    "code_verifier",
    "grant_type",
    "client_secret",
    "refresh_token",
    "client_assertion",
    "client_assertion_type",
];
/// The same for the authorization request. The last two would carry more parameters (RFC 9101).
const RESERVED_AUTH: [&str; 3] = ["scope", "request", "request_uri"];
/// Parameters that a config may rename. Not `state`: the gateway reads it before it knows the config.
const RENAMABLE: [&str; 11] = [
    "client_id",
    "client_secret",
    "redirect_uri",
    "response_type",
    "scope",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "grant_type",
    "refresh_token",
];
/// Names that no parameter may be renamed to: the callback and the revocation request use them.
const TAKEN: [&str; 3] = ["state", "token", "token_type_hint"];

pub(super) fn check(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    check_renames(config)?;
    check_added(config)?;
    check_answer(config)?;
    check_error_codes(config)?;
    check_metadata(config)
}

fn check_renames(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    for (name, renamed) in &config.param_names {
        let field = format!("param_names.{}", printable(name));
        require(RENAMABLE.contains(&name.as_str()), &field, "the name of a parameter that can be renamed")?;
        let is_free = !TAKEN.contains(&renamed.as_str()) && !renamed.starts_with("client_assertion");
        let expected = "1 to 64 letters, digits or `_-.:[]`, and no name in use";
        require(is_param(renamed) && is_free, &field, expected)?;
    }
    let mut names: Vec<&str> = RENAMABLE.iter().map(|name| config.param_name(name)).collect();
    names.sort_unstable();
    names.dedup();
    require(names.len() == RENAMABLE.len(), "param_names", "distinct names")?;
    let code_param = config.code_param.as_str();
    let is_free = !["state", "error", "iss"].contains(&code_param);
    let expected = "1 to 64 letters, digits or `_-.:[]`, and not state, error or iss";
    require(is_param(code_param) && is_free, "code_param", expected)
}

fn is_param(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']' | b':'))
}

fn check_added(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let sets = [
        ("auth_params", &config.auth_params, Endpoint::Authorization),
        ("token_params", &config.token_params, Endpoint::Token),
        ("refresh_params", &config.refresh_params, Endpoint::Token),
    ];
    for (field, params, endpoint) in sets {
        for (name, value) in params {
            let field = format!("{field}.{}", printable(name));
            require(!is_reserved(config, name, endpoint), &field, "absent: tokenbus sets this parameter")?;
            let expected = "a parameter of at most 64 letters, digits or `_-.:[]` with at most 1024 bytes";
            require(is_param(name) && value.len() <= MAX_TEXT, &field, expected)?;
        }
    }
    for (field, url) in templates(config) {
        let endpoint = if field == "auth_url" { Endpoint::Authorization } else { Endpoint::Token };
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let sets_reserved =
            form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_reserved(config, &name, endpoint));
        require(!sets_reserved, field, "a URL without the parameters that tokenbus sets")?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Authorization,
    /// Or the revocation endpoint.
    Token,
}

fn is_reserved(config: &IntegrationOauthConfig, name: &str, endpoint: Endpoint) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_name_of = |reserved: &str| lower == reserved || lower == config.param_name(reserved).to_ascii_lowercase();
    lower.starts_with("code_challenge")
        || RESERVED.iter().any(|reserved| is_name_of(reserved))
        || ["code_challenge", "code_challenge_method"].iter().any(|reserved| is_name_of(reserved))
        || (endpoint == Endpoint::Authorization && RESERVED_AUTH.iter().any(|reserved| is_name_of(reserved)))
}

fn check_answer(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let token_path = config.token_response_path.as_deref();
    require(token_path.is_none_or(is_path), "token_response_path", "a dot path of at most 128 bytes")?;
    for (name, paths) in &config.token_answer {
        let field = format!("token_answer.{}", printable(name));
        let names = "named access_token, refresh_token, expires_in, expires_at, refresh_token_expires_in, \
                     refresh_token_expires_at, scope or token_type";
        require(ANSWER_FIELDS.contains(&name.as_str()), &field, names)?;
        let paths = paths.as_slice();
        let are_paths = !paths.is_empty() && paths.iter().all(|path| is_path(path));
        require(are_paths, &field, "a dot path of at most 128 bytes, or a list of such paths")?;
    }
    Ok(())
}

fn check_error_codes(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    for (index, rule) in config.error_codes.iter().enumerate() {
        let ErrorRule { status, path, equals, matches, code } = rule;
        let field = |name: &str| format!("error_codes.{index}.{name}");
        let codes = "an error code of RFC 6749 or OpenID Connect, such as invalid_grant";
        require(ERROR_CODES.contains(&code.as_str()), &field("code"), codes)?;
        let path_form = "a dot path of at most 128 bytes";
        require(path.as_deref().is_none_or(is_path), &field("path"), path_form)?;
        let is_pattern =
            |pattern: &String| pattern.len() <= MAX_PATTERN_BYTES && template::bounded_regex(pattern).is_some();
        let pattern_form = "a regular expression of at most 256 bytes";
        require(matches.as_ref().is_none_or(is_pattern), &field("matches"), pattern_form)?;
        let is_short = |value: &Value| value.as_str().is_none_or(|text| text.len() <= MAX_TEXT);
        require(equals.as_ref().is_none_or(is_short), &field("equals"), "at most 1024 bytes")?;
        let has_condition = status.is_some() || path.is_some() || equals.is_some() || matches.is_some();
        require(has_condition, &format!("error_codes.{index}"), "an entry with a condition beside `code`")?;
    }
    Ok(())
}

fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH_BYTES && path.split('.').all(|key| !key.is_empty())
}

/// Metadata is shown to callers, so it must not contain a token, a secret or the authorization code.
fn check_metadata(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let token_paths = ["access_token", "refresh_token"].into_iter().filter_map(|field| config.answer_paths(field));
    let token_keys: Vec<&str> = token_paths.flatten().filter_map(|path| path.rsplit('.').next()).collect();
    let is_secret = |name: &str| {
        ["access_token", "refresh_token", "id_token", "client_secret", "state", "code"].contains(&name)
            || name == config.code_param
            || token_keys.contains(&name)
    };
    let is_shown = |path: &str| is_path(path) && path.rsplit('.').next().is_some_and(|last| !is_secret(last));
    let are_shown = config.metadata_paths.iter().all(|path| is_shown(path));
    require(
        are_shown,
        "metadata_paths",
        "dot paths of at most 128 bytes that don't end in a token, a secret or a code",
    )?;
    let are_shown = config.callback_metadata.iter().all(|name| is_param(name) && !is_secret(name));
    require(are_shown, "callback_metadata", "names of parameters other than the code, the state and tokens")
}
