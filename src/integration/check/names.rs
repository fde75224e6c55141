//! The protocol's parameters: which ones a config may rename or leave out.

use url::form_urlencoded;

use super::form::below;
use super::{printable, require};
use crate::integration::{ConfigError, IntegrationOauthConfig, RequestKind, TokenAuthMethod, TokenKind, template};

const PARAM_NAMES: &str = "param_names";

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
const RENAMABLE_NAMES: &str = "named client_id, client_secret, redirect_uri, response_type, scope, code, code_challenge, \
                               code_challenge_method, code_verifier, grant_type or refresh_token; in `revoke` also \
                               token or token_type_hint";
/// The same for the parameters that only a revocation has.
const RENAMABLE_IN_REVOKE: [&str; 2] = [TOKEN, "token_type_hint"];
const TOKEN: &str = "token";
/// Those of them without which the request means nothing, or PKCE protects nothing.
const NEEDED: [&str; 5] = ["code", "code_challenge", "code_challenge_method", "code_verifier", "refresh_token"];
/// Parameters of a callback that have a meaning of their own.
pub(super) const CALLBACK: [&str; 6] = ["code", "state", "error", "error_description", "error_uri", "iss"];
/// Names that no parameter may be renamed to: the callback and the revocation request use them.
const TAKEN: [&str; 3] = ["state", "token", "token_type_hint"];

pub(super) fn check(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    for (request, name, renamed) in config.param_names.entries() {
        let set = request.map_or_else(|| PARAM_NAMES.to_owned(), |request| below(PARAM_NAMES, &printable(request)));
        let is_request = |name: &str| RequestKind::ALL.iter().any(|request| request.as_str() == name);
        require(
            request.is_none_or(is_request),
            &set,
            "a string, as only authorize, token, refresh and revoke are objects",
        )?;
        let field = below(&set, &printable(name));
        let is_of_revoke = request == Some(RequestKind::Revoke.as_str()) && RENAMABLE_IN_REVOKE.contains(&name);
        require(is_of_revoke || !is_request(name), &field, "an object of strings")?;
        require(is_of_revoke || RENAMABLE.contains(&name), &field, RENAMABLE_NAMES)?;
        if renamed.is_empty() {
            let is_bearer = config.auth_method(RequestKind::Revoke) == TokenAuthMethod::Bearer;
            let is_needed = NEEDED.contains(&name) || (name == TOKEN && !is_bearer);
            require(!is_needed, &field, "a name: this parameter cannot be left out")?;
            continue;
        }
        let is_free = !TAKEN.contains(&renamed) && !renamed.starts_with("client_assertion");
        let expected = "1 to 64 letters, digits or `_-.:[]`, and neither a name in use nor `_method`";
        require(is_param(renamed) && is_free, &field, expected)?;
    }
    for request in RequestKind::ALL {
        let of_revoke = RENAMABLE_IN_REVOKE.iter().filter(|_| request == RequestKind::Revoke);
        let all = RENAMABLE.iter().chain(of_revoke);
        let names = || all.clone().filter_map(|name| config.param_names.of(request, name));
        let mut distinct: Vec<&str> = names().collect();
        distinct.sort_unstable();
        distinct.dedup();
        require(distinct.len() == names().count(), PARAM_NAMES, "distinct names in each request")?;
    }
    let code_param = config.code_param.as_str();
    let is_free = code_param == "code" || !CALLBACK.contains(&code_param);
    let expected = "1 to 64 letters, digits or `_-.:[]`, and not state, iss or a parameter of an error";
    require(is_param(code_param) && is_free, "code_param", expected)
}

pub(super) fn is_param(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !chooses_method(name)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'[' | b']' | b':'))
}

/// Returns true for a parameter by which some servers choose another method than the request's, so that a GET could delete.
pub(super) fn chooses_method(name: &str) -> bool {
    let dashed = name.to_ascii_lowercase().replace('_', "-");
    dashed == "-method" || dashed.starts_with("x-http-method")
}

/// Returns true if the URL's query, or the query of its route, has a parameter of this name.
pub(super) fn is_in_query(url: &str, name: &str) -> bool {
    let (url, route) = template::split_route(url);
    [Some(url), route]
        .into_iter()
        .flatten()
        .filter_map(|part| part.split_once('?'))
        .any(|(_, query)| form_urlencoded::parse(query.as_bytes()).any(|(found, _)| found == name))
}

/// Returns true if tokenbus sets a parameter of this name in the request.
pub(super) fn is_reserved(config: &IntegrationOauthConfig, name: &str, request: RequestKind) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_name_of = |reserved: &str| {
        let renamed = config.param_names.given(request, reserved).unwrap_or_default();
        lower == reserved || (!renamed.is_empty() && lower == renamed.to_ascii_lowercase())
    };
    let is_authorize = request == RequestKind::Authorize;
    let is_of_request = match request {
        RequestKind::Revoke => RENAMABLE_IN_REVOKE.iter().any(|reserved| is_name_of(reserved)),
        RequestKind::Refresh => config.refresh_with == TokenKind::AccessToken && is_name_of("access_token"),
        RequestKind::Authorize | RequestKind::Token => false,
    };
    is_of_request
        || lower.starts_with("code_challenge")
        || RESERVED.iter().any(|reserved| is_name_of(reserved))
        || ["code_challenge", "code_challenge_method"].iter().any(|reserved| is_name_of(reserved))
        || (is_authorize && RESERVED_AUTH.iter().any(|reserved| is_name_of(reserved)))
        || (is_authorize && lower == "response_mode" && !config.response_mode.as_str().is_empty())
}
