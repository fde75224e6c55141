//! URLs with `${variable}`s.
//!
//! The value of a variable can change only its own part of a URL:
//! - With a list of `values`, a variable may be any part of the host. [`fixed`] writes the value into the template before
//!   anything else is checked.
//! - Any other variable in a host is one or more whole labels, and a fixed suffix follows it.
//! - In the path a variable stays within one segment, in the query within one value.
//!
//! [`expand`] checks this for each login: it fills the template once more with a harmless word, and both URLs must have the
//! same scheme, port, host suffix and number of path segments.

mod hosts;
mod parts;
mod public_suffix;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use url::Url;

pub(super) use self::hosts::{fixed, variants};
pub(crate) use self::parts::split_route;
use self::parts::{Parts, has_same_shape, parts, substitute};
pub(super) use self::parts::{has_fixed_host, is_variable_name, placeholders, sample_url, variable_names};
pub(super) use self::public_suffix::check_host;
use super::{ConfigError, Variable};

const MAX_VALUE_BYTES: usize = 256;
/// Memory of one compiled pattern. Admins write patterns, and a short one can compile to megabytes.
const MAX_REGEX_BYTES: usize = 256 * 1024;

const NO_REGEX: &str = "a valid regular expression; look-around and backreferences are not supported";
const LARGE_REGEX: &str = "a regular expression that needs at most 256 KiB of memory: shorten its repetitions, or write ASCII \
                           classes such as `[A-Za-z0-9_]` in place of `\\w`";

/// Compiles a pattern so that it matches only whole values. Compiles it without the anchors first: `a)|(b` is valid only
/// between them, and would match parts of values.
///
/// # Errors
/// As [`bounded_regex`].
pub(super) fn whole_value_regex(text: &str) -> Result<Regex, &'static str> {
    bounded_regex(text)?;
    bounded_regex(&format!(r"\A(?:{text})\z"))
}

/// Compiles a pattern that may be found anywhere.
///
/// # Errors
/// What the pattern must be.
pub(super) fn bounded_regex(text: &str) -> Result<Regex, &'static str> {
    let problem = |error| if matches!(error, regex::Error::CompiledTooBig(_)) { LARGE_REGEX } else { NO_REGEX };
    RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build().map_err(problem)
}

/// Checks that the variable may have this value. In URLs, separators are rejected even if the pattern allows them:
/// percent-encoding keeps the URL's shape here, but some proxies decode it.
///
/// # Errors
/// The rule that the value breaks, as it follows the variable's name. It does not list the config's values, which may name other
/// tenants.
pub(super) fn check_value(variable: &Variable, value: &str, is_in_url: bool) -> Result<(), Cow<'static, str>> {
    let is_separator = |c: char| matches!(c, '/' | '\\' | '%' | '?' | '#' | '@' | ':');
    let Variable { pattern, values, .. } = variable;
    let rule = if value.is_empty() || value.len() > MAX_VALUE_BYTES {
        "must have 1 to 256 bytes"
    } else if value.contains(char::is_control) {
        "must have no control characters"
    } else if is_in_url && value.contains(is_separator) {
        "must contain none of / \\ % ? # @ :, because a URL holds it"
    } else if !values.is_empty() && !values.iter().any(|allowed| allowed == value) {
        "must be one of the values that the config lists"
    } else if pattern.is_none() && values.is_empty() {
        "needs a pattern or values in the config"
    } else {
        return match pattern {
            Some(pattern) if !whole_value_regex(pattern).is_ok_and(|it| it.is_match(value)) => {
                Err(format!("must match the pattern `{pattern}`").into())
            }
            Some(_) | None => Ok(()),
        };
    };
    Err(rule.into())
}

/// Fills in a template's variables and returns its text. A template without variables stays the same byte for byte.
///
/// # Errors
/// [`ConfigError::Variable`] if a value is missing, unknown or not allowed, or if the values change more of the URL than
/// their own parts.
pub(crate) fn expand(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: &BTreeMap<String, String>,
) -> Result<String, ConfigError> {
    expand_checked(template, variables, values).map(|expanded| expanded.text)
}

/// The same as a URL. Values are percent-encoded in path and query.
///
/// # Errors
/// As [`expand`].
pub(crate) fn endpoint_url(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: &BTreeMap<String, String>,
) -> Result<Url, ConfigError> {
    expand_checked(template, variables, values).map(|expanded| expanded.url)
}

struct Expanded {
    text: String,
    url: Url,
}

fn expand_checked(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: &BTreeMap<String, String>,
) -> Result<Expanded, ConfigError> {
    let wrong = |name: &str, problem: Cow<'static, str>| ConfigError::Variable { name: name.to_owned(), problem };
    if let Some(name) = values.keys().find(|name| !variables.contains_key(*name)) {
        return Err(ConfigError::unknown_variable(name, variables.keys()));
    }
    let mut filled = BTreeMap::new();
    for name in variable_names(template) {
        let Some(variable) = variables.get(name) else { continue };
        let value = values.get(name).or(variable.default.as_ref()).ok_or_else(|| wrong(name, "is missing".into()))?;
        check_value(variable, value, true).map_err(|rule| wrong(name, rule))?;
        filled.insert(name.to_owned(), value.clone());
    }
    let values = filled;
    let template = fixed(template, variables, &values);
    let template = template.as_str();
    let sample = sample_url(template).ok_or_else(|| ConfigError::invalid("url", "an absolute URL"))?;
    let Parts { scheme, authority, rest } =
        parts(template).ok_or_else(|| ConfigError::invalid("url", "an absolute URL"))?;
    for name in variable_names(authority) {
        if !values.get(name).is_some_and(|value| value.split('.').all(is_label)) {
            return Err(wrong(name, "must be a host label: letters, digits and hyphens".into()));
        }
    }
    let host = substitute(authority, |name| values.get(name).cloned());
    let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let path = substitute(path, |name| values.get(name).map(|value| percent_encode(value)));
    // The values of a request are filled in later.
    let query = substitute(query, |name| {
        Some(values.get(name).map_or_else(|| format!("${{{name}}}"), |value| percent_encode(value)))
    });
    let (Some(host), Some(path), Some(query)) = (host, path, query) else {
        let names = variable_names(template);
        let open = names.iter().find(|name| !values.contains_key(**name)).copied().unwrap_or_default();
        return Err(ConfigError::unknown_variable(open, variables.keys()));
    };
    let text = format!("{scheme}://{host}{path}{query}");
    let url = Url::parse(&text).ok().filter(|url| has_same_shape(url, &sample, template));
    url.map(|url| Expanded { text, url }).ok_or_else(|| {
        let names: Vec<&str> = values.keys().map(String::as_str).collect();
        wrong(&names.join(", "), "changes more of the URL than its own part".into())
    })
}

/// Some providers' hosts have underscores, which DNS allows.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !text.starts_with(['-', '_'])
        && !text.ends_with('-')
}

/// Encodes all bytes except unreserved characters (RFC 3986 §2.3).
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
