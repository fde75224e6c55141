//! The URLs of a config and their variables.

use url::{Host, Url};

use super::{printable, require};
use crate::integration::{ConfigError, IntegrationOauthConfig, UrlRules, placeholders, template};
use crate::secret::Secret;

const MAX_URL_BYTES: usize = 2048;
const MAX_VARIABLES: usize = 8;
pub(super) const MAX_PATTERN_BYTES: usize = 256;

const FIXED_NAME: &str = "a URL with a fixed registered name: its variables are directly left of a public suffix, where \
                          anyone can register a name";
const SHARED_SUFFIX: &str = "a URL with a fixed registered name: its variables are directly left of a public suffix; if \
                             the suffix's owner runs all hosts under it, set `shared_suffix` of the variable";

/// Returns the URLs that may have variables, by their fields' names.
pub(in crate::integration) fn templates<T>(
    config: &IntegrationOauthConfig<T>,
) -> impl Iterator<Item = (&'static str, &str)> {
    let required = [("auth_url", config.auth_url.as_str()), ("token_url", config.token_url.as_str())];
    let optional =
        [("refresh_url", config.refresh_url.as_deref()), ("revocation_url", config.revocation_url.as_deref())];
    required.into_iter().chain(optional.into_iter().filter_map(|(field, url)| url.map(|url| (field, url))))
}

/// Returns all texts that may have variables.
fn texts(config: &IntegrationOauthConfig) -> impl Iterator<Item = &str> {
    let params = [&config.auth_params, &config.token_params, &config.refresh_params];
    let params = params.into_iter().flat_map(|params| params.values().map(String::as_str));
    let headers = config.token_headers.values().map(Secret::expose);
    templates(config).map(|(_, url)| url).chain(params).chain(headers)
}

pub(super) fn check_urls(config: &IntegrationOauthConfig, rules: UrlRules) -> Result<(), ConfigError> {
    for (field, url) in templates(config) {
        let (url, route) = if field == "auth_url" { template::split_route(url) } else { (url, None) };
        check_url(field, url, rules)?;
        let is_route = |route: &str| {
            let is_path = route.starts_with('/') || route.starts_with("!/");
            is_path
                && route.len() <= MAX_URL_BYTES
                && !route.contains(['$', '\\', '#'])
                && route.bytes().all(|b| b.is_ascii_graphic())
        };
        require(route.is_none_or(is_route), field, "a URL whose fragment, if any, is a route such as `#/authorize`")?;
    }
    require(!config.redirect_url.contains("${"), "redirect_url", "a URL without variables")?;
    check_url("redirect_url", &config.redirect_url, rules)
}

pub(super) fn check_url(field: &str, text: &str, rules: UrlRules) -> Result<(), ConfigError> {
    let form = "an absolute URL without fragment and user information, with variables only in the path or as whole \
                labels left of a fixed host";
    let url = (text.len() <= MAX_URL_BYTES).then(|| template::sample_url(text)).flatten();
    let url = url.ok_or_else(|| ConfigError::invalid(field, form))?;
    let is_allowed_http = url.scheme() == "http" && rules.allow_insecure_urls && is_loopback(&url);
    let scheme = "https (http only for loopback hosts, and only with the setting `oauth.allow_insecure_urls`)";
    require(url.scheme() == "https" || is_allowed_http, field, scheme)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => host == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

pub(super) fn check_variables(config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    require(config.variables.len() <= MAX_VARIABLES, "variables", "at most 8")?;
    for (name, variable) in &config.variables {
        let field = format!("variables.{}", printable(name));
        let name_form = "named with a letter and at most 31 more letters, digits or `_`";
        require(template::is_variable_name(name), &field, name_form)?;
        let is_pattern =
            variable.pattern.len() <= MAX_PATTERN_BYTES && template::whole_value_regex(&variable.pattern).is_some();
        require(is_pattern, &field, "a regular expression of at most 256 bytes")?;
        let is_default = variable.default.as_ref().is_none_or(|value| template::is_allowed_value(variable, value));
        require(is_default, &field, "without a default, or with a default that matches its pattern")?;
        require(
            !placeholders::OF_REQUEST.contains(&name.as_str()),
            &field,
            "named otherwise: `${…}` of this name has a value",
        )?;
        let is_used = texts(config).any(|text| template::variable_names(text).contains(name.as_str()));
        require(is_used, &field, "used in a URL, a parameter or a header")?;
    }
    templates(config).try_for_each(|(field, url)| check_template(field, url, config))
}

/// Checks the variables of a URL.
pub(super) fn check_template(field: &str, url: &str, config: &IntegrationOauthConfig) -> Result<(), ConfigError> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let is_variable = |name: &&str| config.variables.contains_key(*name);
    let is_known = |name: &&str| is_variable(name) || placeholders::OF_REQUEST.contains(name);
    let are_known =
        template::variable_names(place).iter().all(is_variable) && template::variable_names(query).iter().all(is_known);
    let expected = "a URL with only the variables in `variables`; in its query also `${scope}`, `${redirect_url}` or \
                    `${nonce}`";
    require(are_known, field, expected)?;
    template::check_host(url, &config.variables, None)
        .map_err(|open| ConfigError::invalid(field, if open.may_share { SHARED_SUFFIX } else { FIXED_NAME }))
}
