//! The URLs of a config and their variables.

use regex::Regex;
use url::{Host, Url, form_urlencoded};

use super::form::below;
use super::names::{CALLBACK, chooses_method, is_in_query, is_param};
use super::params::is_secret;
use super::{printable, require};
use crate::integration::variable::is_header_text;
use crate::integration::{ConfigError, IntegrationOauthConfig, UrlRules, Variable, placeholders, template};
use crate::secret::Secret;

const MAX_URL_BYTES: usize = 2048;
const MAX_PATTERN_BYTES: usize = 256;

const FIXED_NAME: &str = "a URL with a fixed registered name: its variables are directly left of a public suffix, where \
                          anyone can register a name";
const SHARED_SUFFIX: &str = "a URL with a fixed registered name: its variables are directly left of a public suffix; if \
                             the suffix's owner runs all hosts under it, set `shared_suffix` of the variable";

const TEMPLATE: &str = "an absolute URL (https://…) without fragment and user information, with variables only in host, \
                        path and values of the query, and an international host as `xn--…`";
const FIXED_HOST: &str = "a URL in whose host each variable with only a `pattern` is a whole label, and at least two fixed \
                          labels follow, as in `https://${shop}.acme.example`; a variable with `values` may be any part of \
                          the host";

/// Returns the URLs that may have variables, by their fields' names.
pub(super) fn templates<T>(config: &IntegrationOauthConfig<T>) -> impl Iterator<Item = (&'static str, &str)> {
    let required = [("auth_url", config.auth_url.as_str()), ("token_url", config.token_url.as_str())];
    let optional =
        [("refresh_url", config.refresh_url.as_deref()), ("revocation_url", config.revocation_url.as_deref())];
    required.into_iter().chain(optional.into_iter().filter_map(|(field, url)| url.map(|url| (field, url))))
}

/// Returns these URLs and those of requests to the provider's API.
pub(in crate::integration) fn all_urls<T>(
    config: &IntegrationOauthConfig<T>,
) -> impl Iterator<Item = (&'static str, &str)> {
    templates(config).chain(config.api_requests().map(|(field, request)| (field, request.url.as_str())))
}

fn check_source(config: &IntegrationOauthConfig, variable: &Variable, field: &str) -> Result<(), ConfigError> {
    let is_source = match variable.callback_param() {
        Some(param) => is_param(param) && !CALLBACK.contains(&param) && !is_secret(config, param),
        None => variable.from.as_ref().is_none_or(|from| from == "login"),
    };
    let expected = "`login`, or `callback:` and a parameter other than those of the protocol";
    require(is_source, &below(field, &"from"), expected)
}

/// Returns all texts that may have variables.
fn texts(config: &IntegrationOauthConfig) -> impl Iterator<Item = &str> {
    let params = [&config.auth_params, &config.token_params, &config.refresh_params];
    let params = params.into_iter().flat_map(|params| params.values().map(String::as_str));
    let headers = config.token_headers.values().map(Secret::expose);
    all_urls(config).map(|(_, url)| url).chain(params).chain(headers).chain(config.issuer.as_deref())
}

pub(super) fn check_redirect(config: &IntegrationOauthConfig, rules: UrlRules) -> Result<(), ConfigError> {
    require(!config.redirect_url.contains("${"), "redirect_url", "a URL without variables")?;
    let form = "an absolute URL (https://…) without fragment and user information";
    check_url("redirect_url", &config.redirect_url, form, rules)?;
    let mut own = CALLBACK.into_iter().chain([config.code_param.as_str()]);
    let expected = "a URL without the parameters that the provider adds: code, state, iss and those of an error";
    require(!own.any(|name| is_in_query(&config.redirect_url, name)), "redirect_url", expected)
}

fn check_url(field: &str, text: &str, form: &'static str, rules: UrlRules) -> Result<(), ConfigError> {
    let url = (text.len() <= MAX_URL_BYTES).then(|| template::sample_url(text)).flatten();
    let url = url.filter(|url| !url.host_str().unwrap_or_default().contains("..") && url.port() != Some(0));
    let url = url.ok_or_else(|| ConfigError::invalid(field, form))?;
    let is_allowed_http = url.scheme() == "http" && rules.allow_insecure_urls && is_loopback(&url);
    let scheme =
        "a URL with https (http only for loopback hosts, and only with the setting `oauth.allow_insecure_urls`)";
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

/// Checks a pattern with the function that compiles it.
pub(super) fn check_pattern(
    field: &str,
    pattern: &str,
    compile: fn(&str) -> Result<Regex, &'static str>,
) -> Result<(), ConfigError> {
    require(pattern.len() <= MAX_PATTERN_BYTES, field, "a regular expression of at most 256 bytes")?;
    compile(pattern).map_or_else(|expected| Err(ConfigError::invalid(field, expected)), |_| Ok(()))
}

pub(super) fn check_variables(config: &IntegrationOauthConfig, rules: UrlRules) -> Result<(), ConfigError> {
    for (name, variable) in &config.variables {
        let field = format!("variables.{}", printable(name));
        let name_form = "named with a letter and at most 31 more letters, digits or `_`";
        require(template::is_variable_name(name), &field, name_form)?;
        let Variable { pattern, values, default, .. } = variable;
        let field_of_pattern = below(&field, &"pattern");
        pattern.as_ref().map_or(Ok(()), |it| check_pattern(&field_of_pattern, it, template::whole_value_regex))?;
        require(pattern.is_some() || !values.is_empty(), &field, "with a `pattern` or with `values`")?;
        let (is_in_url, is_in_header) = (config.is_in_url(name), config.is_in_header(name));
        let is_allowed = |value: &String| {
            !value.contains("${")
                && template::check_value(variable, value, is_in_url).is_ok()
                && (!is_in_header || is_header_text(value))
        };
        let list = below(&field, &"values");
        let form = "1 to 256 bytes that match the variable's pattern and have no URL separator in a URL, and only printable \
                    ASCII in a header";
        for (index, value) in values.iter().enumerate() {
            require(is_allowed(value), &below(&list, &index), form)?;
        }
        let form = "one of the variable's values, match its pattern, have 1 to 256 bytes, no URL separator in a URL, and only \
             printable ASCII in a header";
        require(default.as_ref().is_none_or(is_allowed), &below(&field, &"default"), form)?;
        check_source(config, variable, &field)?;
        require(
            !placeholders::OF_REQUEST.iter().chain(&placeholders::OF_API_REQUEST).any(|taken| *taken == name.as_str()),
            &field,
            "named otherwise: `${…}` of this name has a value",
        )?;
        let is_used = texts(config).any(|text| template::variable_names(text).contains(name.as_str()));
        let is_in_request = config.api_requests().any(|(_, request)| request.has_placeholder(name));
        let form = "used in a URL, a parameter, a header or `issuer`, or `metadata`";
        require(is_used || is_in_request || variable.metadata, &field, form)?;
    }
    all_urls(config).try_for_each(|(field, url)| check_template(field, url, config, rules))
}

/// Checks the variables of a URL, and the URL with each combination of listed values.
fn check_template(field: &str, url: &str, config: &IntegrationOauthConfig, rules: UrlRules) -> Result<(), ConfigError> {
    let (url, route) = if field == "auth_url" { template::split_route(url) } else { (url, None) };
    let is_route = |route: &str| {
        let is_path = route.starts_with('/') || route.starts_with("!/");
        is_path
            && route.len() <= MAX_URL_BYTES
            && !route.contains(['$', '\\', '#'])
            && route.bytes().all(|b| b.is_ascii_graphic())
    };
    require(route.is_none_or(is_route), field, "a URL whose fragment, if any, is a route such as `#/authorize`")?;
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let is_variable = |name: &&str| config.variables.contains_key(*name);
    let is_known = |name: &&str| is_variable(name) || placeholders::OF_REQUEST.contains(name);
    let are_known =
        template::variable_names(place).iter().all(is_variable) && template::variable_names(query).iter().all(is_known);
    let expected = "a URL with only the variables in `variables`; in its query also `${scope}`, `${redirect_url}` or \
                    `${nonce}`";
    require(are_known, field, expected)?;
    let keeps_method = form_urlencoded::parse(query.as_bytes()).all(|(name, _)| !chooses_method(&name));
    let expected = "a URL without `_method` and X-HTTP-Method…, by which some servers choose another method";
    require(keeps_method, field, expected)?;
    let hosts = "a URL with at most 256 hosts, whose `values` are whole labels of a host or parts of one";
    let variants = template::variants(url, &config.variables).ok_or_else(|| ConfigError::invalid(field, hosts))?;
    for url in variants {
        require(template::has_fixed_host(&url), field, FIXED_HOST)?;
        check_url(field, &url, TEMPLATE, rules)?;
        template::check_host(&url, &config.variables, None)
            .map_err(|open| ConfigError::invalid(field, if open.may_share { SHARED_SUFFIX } else { FIXED_NAME }))?;
    }
    Ok(())
}
