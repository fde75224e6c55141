//! Names of parameters: what may be renamed, added and kept.

use url::form_urlencoded;

use super::{MAX_TEXT, all, printable, urls};
use crate::integration::{ConfigError, IntegrationOauthConfig};

const MAX_ENTRY_NAME: usize = 128;
/// Parameters that are ours in every request; nothing else may set them.
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
/// And in the authorization request; the last two would bring parameters of their own (RFC 9101).
const RESERVED_AUTH: [&str; 3] = ["scope", "request", "request_uri"];
/// Parameters that a provider may call otherwise. Not `state`: the gateway reads it before any
/// config is known.
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
/// Names that no other parameter may take: the callback's, and those of a revocation.
const TAKEN: [&str; 3] = ["state", "token", "token_type_hint"];

pub(super) fn check(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    check_names(config)?;
    check_params(config)?;
    check_kept(config)
}

/// Renames: of known parameters only, and no two parameters under one name.
fn check_names(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    for (name, renamed) in &config.param_names {
        let field = || format!("param_names.{}", printable(name));
        if !RENAMABLE.contains(&name.as_str()) {
            return Err(ConfigError::invalid(field(), "the name of a parameter that can be renamed"));
        }
        if !is_param(renamed) || TAKEN.contains(&renamed.as_str()) || renamed.starts_with("client_assertion") {
            return Err(ConfigError::invalid(field(), "1 to 64 letters, digits, `_`, `-` or `.`, and no name in use"));
        }
    }
    let mut names: Vec<&str> = RENAMABLE.iter().map(|name| config.param_name(name)).collect();
    names.sort_unstable();
    names.dedup();
    let code_param = is_param(&config.code_param) && !["state", "error", "iss"].contains(&config.code_param.as_str());
    all([
        ("param_names", names.len() == RENAMABLE.len(), "distinct names"),
        ("code_param", code_param, "1 to 64 letters, digits, `_`, `-` or `.`, and not state, error or iss"),
    ])
}

fn is_param(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']' | b':'))
}

fn check_params(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let sets = [
        ("auth_params", &config.auth_params, true),
        ("token_params", &config.token_params, false),
        ("refresh_params", &config.refresh_params, false),
    ];
    for (field, params, is_auth) in sets {
        for (name, value) in params {
            let wrong = |expected| Err(ConfigError::invalid(format!("{field}.{}", printable(name)), expected));
            if is_reserved(config, name, is_auth) {
                return wrong("left out: the parameter is set by the service");
            }
            if !is_param(name) || value.len() > MAX_TEXT {
                return wrong("a parameter of at most 64 letters, digits or `_-.:[]` with at most 1024 bytes");
            }
        }
    }
    for (field, url) in urls(config) {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_reserved(config, &name, field == "auth_url")) {
            return Err(ConfigError::invalid(field, "without parameters that are set by the service"));
        }
    }
    Ok(())
}

fn is_reserved(config: &IntegrationOauthConfig, name: &str, is_auth: bool) -> bool {
    let lower = name.to_ascii_lowercase();
    let ours = |reserved: &str| lower == reserved || lower == config.param_name(reserved).to_ascii_lowercase();
    lower.starts_with("code_challenge")
        || RESERVED.iter().any(|reserved| ours(reserved))
        || ["code_challenge", "code_challenge_method"].iter().any(|reserved| ours(reserved))
        || (is_auth && RESERVED_AUTH.iter().any(|reserved| ours(reserved)))
}

/// What is kept is shown: never a token or the code.
fn check_kept(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let secret = |name: &str| {
        ["access_token", "refresh_token", "id_token", "client_secret", "state", "code"].contains(&name)
            || name == config.code_param
    };
    let is_path = |path: &str| path.len() <= MAX_ENTRY_NAME && path.split('.').all(|key| !key.is_empty());
    let is_shown = |path: &str| is_path(path) && path.rsplit('.').next().is_some_and(|last| !secret(last));
    let token_path = config.token_response_path.as_deref().is_none_or(is_path);
    all([
        ("token_response_path", token_path, "a dot path of at most 128 bytes"),
        (
            "metadata_paths",
            config.metadata_paths.iter().all(|path| is_shown(path)),
            "dot paths of at most 128 bytes, none of them a token's",
        ),
        (
            "callback_metadata",
            config.callback_metadata.iter().all(|name| is_param(name) && !secret(name)),
            "names of parameters, without the code and the state",
        ),
    ])
}
