//! Parameters and headers: which ones a config may add, and keep as metadata.

use serde_json::Value;
use url::form_urlencoded;

use super::form::below;
use super::headers::{self, AUTHORIZATION};
use super::names::{self, is_in_query, is_param};
use super::urls::{check_pattern, templates};
use super::{MAX_TEXT, printable, require};
use crate::integration::{
    ANSWER_FIELDS, BodyFormat, ConfigError, ERROR_CODES, ErrorRule, IntegrationOauthConfig, Method, Paths, RequestKind,
    template,
};

const MAX_PATH_BYTES: usize = 128;
const PATH: &str = "a dot path of at most 128 bytes";
pub(super) const IN_QUERY: &str = "absent: the query of the request's URL has this parameter";
pub(super) const PARAM: &str = "a parameter of at most 64 letters, digits or `_-.:[]` with at most 1024 bytes, and not `_method` or X-HTTP-Method…, by \
     which some servers choose another method";
/// A path whose value callers see.
pub(super) const SHOWN: &str = "a dot path of at most 128 bytes that doesn't end in a token, a secret or a code";
const RESPONSE_MODE: &str = "response_mode";
const RECEIVED: &str = "query or form_post: no other answer reaches the callback";

pub(super) fn check(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    names::check(config)?;
    check_login_params(config)?;
    check_added(config)?;
    check_nonce(config)?;
    check_headers(config)?;
    check_forms(config)?;
    check_answer(config)?;
    check_error_codes(config)?;
    check_metadata(config)
}

fn check_added(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let refresh_url = config.refresh_url.as_ref().unwrap_or(&config.token_url);
    let sets = [
        ("auth_params", &config.auth_params, RequestKind::Authorize, &config.auth_url),
        ("token_params", &config.token_params, RequestKind::Token, &config.token_url),
        ("refresh_params", &config.refresh_params, RequestKind::Refresh, refresh_url),
    ];
    for (set, params, request, url) in sets {
        for (name, value) in params {
            let field = format!("{set}.{}", printable(name));
            require(!is_in_query(url, name), &field, IN_QUERY)?;
            if is_redirect(config, name, request) {
                check_redirect(config, request, &field, value)?;
                continue;
            }
            require(!names::is_reserved(config, name, request), &field, "absent: tokenbus sets this parameter")?;
            let is_response_mode = request == RequestKind::Authorize && name.eq_ignore_ascii_case(RESPONSE_MODE);
            require(!is_response_mode || is_received(value), &field, RECEIVED)?;
            require(is_param(name) && value.len() <= MAX_TEXT, &field, PARAM)?;
        }
    }
    for (field, url) in templates(config) {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let is_reserved = |name: &str| requests_of(field).iter().any(|it| names::is_reserved(config, name, *it));
        // A request object (RFC 9101), which would replace the parameters, is a JWT and has dots. Other servers choose a page
        // by `request`.
        let is_page = |name: &str, value: &str| name == "request" && is_param(value) && !value.contains('.');
        let sets_reserved =
            form_urlencoded::parse(query.as_bytes()).any(|(name, value)| is_reserved(&name) && !is_page(&name, &value));
        require(!sets_reserved, field, "a URL without the parameters that tokenbus sets")?;
    }
    check_response_mode_in_url(config)
}

fn check_response_mode_in_url(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let (url, route) = template::split_route(&config.auth_url);
    let queries = [Some(url), route].into_iter().flatten().filter_map(|part| part.split_once('?'));
    let mut params = queries.flat_map(|(_, query)| form_urlencoded::parse(query.as_bytes()));
    let is_fitting = params.all(|(name, value)| !name.eq_ignore_ascii_case(RESPONSE_MODE) || is_received(&value));
    require(is_fitting, "auth_url", "a URL whose `response_mode`, if any, is query or form_post")
}

/// Returns true if the answer to an authorization request with this response mode reaches the callback. A fragment stays in
/// the browser, and the modes with JWTs or messages have other parameters.
fn is_received(response_mode: &str) -> bool {
    ["query", "form_post"].contains(&response_mode)
}

/// A login must not choose how the answer arrives, or which answer counts as its own.
fn check_login_params(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let is_free = |name: &String| {
        let is_fixed = ["response_mode", "nonce"].iter().any(|fixed| name.eq_ignore_ascii_case(fixed));
        is_param(name) && !is_fixed && !names::is_reserved(config, name, RequestKind::Authorize)
    };
    let expected = "the name of a parameter other than those that tokenbus sets, response_mode and nonce";
    for (index, name) in config.login_params.iter().enumerate() {
        let field = below("login_params", &index);
        require(is_free(name), &field, expected)?;
        require(!is_in_query(&config.auth_url, name), &field, IN_QUERY)?;
    }
    Ok(())
}

/// Returns true for the redirect URI. Some providers ask for it in a refresh, and some for a name that they gave to it.
fn is_redirect(config: &IntegrationOauthConfig, name: &str, request: RequestKind) -> bool {
    let own = config.param_names.of(request, "redirect_uri");
    let is_name = name == "redirect_uri" || own == Some(name);
    is_name && (request != RequestKind::Authorize || own.is_none())
}

/// Checks the value of a redirect URI among a request's parameters. A name in its place is no URL, so that the request cannot
/// name another URL than the config's.
fn check_redirect(
    config: &IntegrationOauthConfig,
    request: RequestKind,
    field: &str,
    value: &str,
) -> Result<(), ConfigError> {
    let is_left_out = config.param_names.of(request, "redirect_uri").is_none();
    let is_name = is_left_out && !value.is_empty() && value.len() <= MAX_TEXT && !value.contains([':', '/', '\\', '%']);
    let expected = "absent or `${redirect_url}`; where `param_names` leaves the parameter out, also the provider's name of \
                    the URL";
    require(value == "${redirect_url}" || is_name, field, expected)
}

/// Returns the requests that go to a URL.
fn requests_of(field: &str) -> &'static [RequestKind] {
    match field {
        "auth_url" => &[RequestKind::Authorize],
        "refresh_url" => &[RequestKind::Refresh],
        "revocation_url" => &[RequestKind::Revoke],
        _ => &[RequestKind::Token, RequestKind::Refresh],
    }
}

/// The ID token must have the nonce of its login.
fn check_nonce(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    if config.id_token_issuer().is_none() {
        return Ok(());
    }
    let is_own = |nonce: &String| nonce == "${nonce}";
    let expected = "absent or `${nonce}`: the ID token with the identity must have the nonce of its login";
    require(config.auth_params.get("nonce").is_none_or(is_own), "auth_params.nonce", expected)?;
    let expected = "a URL without `nonce`, which tokenbus sends, because the identity is in an ID token";
    require(!is_in_query(&config.auth_url, "nonce"), "auth_url", expected)
}

/// Client credentials have their own fields.
fn check_headers(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let set = "token_headers";
    headers::check(set, &config.token_headers)?;
    let name = config.token_headers.keys().find(|name| name.eq_ignore_ascii_case(AUTHORIZATION));
    let expected = "absent: tokenbus sets this header by the config's authentication methods";
    name.map_or(Ok(()), |name| Err(ConfigError::invalid(below(set, name), expected)))
}

fn check_forms(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let uses_get = config.token_method == Method::Get || config.refresh_method == Some(Method::Get);
    let is_fitting = !uses_get || config.token_body_format != BodyFormat::Json;
    require(is_fitting, "token_body_format", "form or query with GET, which has no body")?;
    let response_type = config.response_type.as_str();
    let is_word = |word: &str| !["token", "none"].contains(&word) && is_param(word);
    let are_words = response_type.len() <= 64 && response_type != "id_token" && response_type.split(' ').all(is_word);
    let expected = "empty, or words of letters, digits or `_-.:[]` other than `token` and `none`, and not `id_token` alone: \
                    no code would arrive";
    require(response_type.is_empty() || are_words, "response_type", expected)
}

fn check_answer(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let token_path = config.token_response_path.as_deref();
    require(token_path.is_none_or(is_path), "token_response_path", PATH)?;
    for (name, paths) in &config.token_answer {
        let field = format!("token_answer.{}", printable(name));
        let names = "named access_token, refresh_token, expires_in, expires_at, refresh_token_expires_in, \
                     refresh_token_expires_at, scope or token_type";
        require(ANSWER_FIELDS.contains(&name.as_str()), &field, names)?;
        require(!paths.as_slice().is_empty(), &field, "a dot path, or a list of at least one dot path")?;
        let is_token = matches!(name.as_str(), "access_token" | "refresh_token");
        paths_of(&field, paths).try_for_each(|(field, path)| {
            require(is_path(path), &field, PATH)?;
            require(is_token || is_shown(config, path), &field, SHOWN)
        })?;
    }
    Ok(())
}

fn check_error_codes(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    for (index, rule) in config.error_codes.iter().enumerate() {
        let ErrorRule { status, path, equals, matches, code } = rule;
        let field = |name: &str| format!("error_codes.{index}.{name}");
        let codes = "an error code of RFC 6749 or OpenID Connect, such as invalid_grant";
        require(ERROR_CODES.contains(&code.as_str()), &field("code"), codes)?;
        require(path.as_deref().is_none_or(is_path), &field("path"), PATH)?;
        require(equals.is_none() || matches.is_none(), &field("matches"), "absent beside `equals`")?;
        matches.as_ref().map_or(Ok(()), |it| check_pattern(&field("matches"), it, template::bounded_regex))?;
        let is_short = |value: &Value| value.as_str().is_none_or(|text| text.len() <= MAX_TEXT);
        require(equals.as_ref().is_none_or(is_short), &field("equals"), "at most 1024 bytes")?;
        let has_condition = status.is_some() || path.is_some() || equals.is_some() || matches.is_some();
        require(has_condition, &format!("error_codes.{index}"), "an entry with a condition beside `code`")?;
    }
    Ok(())
}

/// Returns the paths, each with the path of its own place in the config.
pub(super) fn paths_of<'a>(field: &'a str, paths: &'a Paths) -> impl Iterator<Item = (String, &'a str)> {
    let is_list = matches!(paths, Paths::Many(_));
    let paths = paths.as_slice().iter().enumerate();
    paths.map(move |(index, path)| (if is_list { below(field, &index) } else { field.to_owned() }, path.as_str()))
}

pub(super) fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH_BYTES && path.split('.').all(|key| !key.is_empty() && key.trim() == key)
}

/// Returns true for a dot path of a value that callers and operators may see.
pub(super) fn is_shown(config: &IntegrationOauthConfig, path: &str) -> bool {
    is_path(path) && path.rsplit('.').next().is_some_and(|last| !is_secret(config, last))
}

/// Names of secrets in answers and callbacks, without `_`.
const SECRET_NAMES: [&str; 11] = [
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "clientsecret",
    "secret",
    "password",
    "apikey",
    "privatekey",
    "jwt",
    "state",
    "code",
];

pub(super) fn is_secret(config: &IntegrationOauthConfig, name: &str) -> bool {
    let token_paths = ["access_token", "refresh_token"].into_iter().filter_map(|field| config.answer_paths(field));
    let is = |secret: &str| name.eq_ignore_ascii_case(secret);
    // `refreshToken` and `refresh-token` too.
    let plain: String = name.chars().filter(|char| !matches!(char, '_' | '-')).collect();
    SECRET_NAMES.into_iter().any(|secret| plain.eq_ignore_ascii_case(secret))
        || is(&config.code_param)
        || token_paths.flatten().filter_map(|path| path.rsplit('.').next()).any(is)
}

/// Metadata is shown to callers, so it must not contain a token, a secret or the authorization code.
fn check_metadata(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    for (index, path) in config.metadata_paths.iter().enumerate() {
        require(is_shown(config, path), &below("metadata_paths", &index), SHOWN)?;
    }
    for (index, name) in config.callback_metadata.iter().enumerate() {
        let is_shown = is_param(name) && !is_secret(config, name);
        let expected = "the name of a parameter other than the code, the state and tokens";
        require(is_shown, &below("callback_metadata", &index), expected)?;
    }
    Ok(())
}
