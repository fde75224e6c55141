//! URLs with `${variable}`s.
//!
//! A variable is one or more whole labels of the host left of a fixed suffix, or a part of the path or of a query's value.
//! Scheme, port, host suffix and the number of path segments come from the template, for any value: [`expand`] compares the
//! result with the template filled with a harmless word.

mod parts;
mod public_suffix;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use url::Url;

pub(crate) use self::parts::split_route;
use self::parts::{Parts, has_same_shape, parts, substitute};
pub(super) use self::parts::{is_variable_name, placeholders, sample_url, variable_names};
pub(super) use self::public_suffix::check_host;
use super::{ConfigError, Variable};

const MAX_VALUE_BYTES: usize = 256;
/// Memory of one compiled pattern. Admins write patterns, and a short one can compile to megabytes.
const MAX_REGEX_BYTES: usize = 256 * 1024;

/// Compiles a pattern so that it matches only whole values. Compiles it without the anchors first: `a)|(b` is valid only
/// between them, and would match parts of values.
pub(super) fn whole_value_regex(text: &str) -> Option<Regex> {
    bounded_regex(text)?;
    bounded_regex(&format!(r"\A(?:{text})\z"))
}

/// Compiles a pattern that may be found anywhere.
pub(super) fn bounded_regex(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build().ok()
}

/// Returns each variable's value, given or default, after checking it against the pattern.
pub(super) fn resolve_values(
    variables: &BTreeMap<String, Variable>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    if given.keys().any(|name| !variables.contains_key(name)) {
        return Err(ConfigError::Variable { name: "?".to_owned(), problem: "is unknown" });
    }
    let mut values = BTreeMap::new();
    for (name, variable) in variables {
        let wrong = |problem| ConfigError::Variable { name: name.clone(), problem };
        let value = given.get(name).or(variable.default.as_ref()).ok_or_else(|| wrong("is missing"))?;
        if !is_allowed_value(variable, value) {
            return Err(wrong("must match the config's pattern, have 1 to 256 bytes and contain no URL separator"));
        }
        values.insert(name.clone(), value.clone());
    }
    Ok(values)
}

/// Returns true if the variable may have this value. Separators are rejected even if the pattern allows them:
/// percent-encoding keeps the URL's shape here, but some proxies decode it.
pub(super) fn is_allowed_value(variable: &Variable, value: &str) -> bool {
    let is_separator = |c: char| matches!(c, '/' | '\\' | '%' | '?' | '#' | '@' | ':') || c.is_control();
    !value.is_empty()
        && value.len() <= MAX_VALUE_BYTES
        && !value.contains(is_separator)
        && whole_value_regex(&variable.pattern).is_some_and(|regex| regex.is_match(value))
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
    let wrong = |name: &str, problem| ConfigError::Variable { name: name.to_owned(), problem };
    let values = resolve_values(variables, values)?;
    let sample = sample_url(template).ok_or_else(|| ConfigError::invalid("url", "an absolute URL"))?;
    let Parts { scheme, authority, rest } =
        parts(template).ok_or_else(|| wrong("?", "is in the wrong part of the URL"))?;
    for name in variable_names(authority) {
        if !values.get(name).is_some_and(|value| value.split('.').all(is_label)) {
            return Err(wrong(name, "must be a host label"));
        }
    }
    let host = substitute(authority, |name| values.get(name).cloned());
    let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let path = substitute(path, |name| values.get(name).map(|value| percent_encode(value)));
    // The values of a request are filled in later.
    let query = substitute(query, |name| {
        Some(values.get(name).map_or_else(|| format!("${{{name}}}"), |value| percent_encode(value)))
    });
    let (Some(host), Some(path), Some(query)) = (host, path, query) else { return Err(wrong("?", "is unknown")) };
    let text = format!("{scheme}://{host}{path}{query}");
    let url = Url::parse(&text).ok().filter(|url| has_same_shape(url, &sample, template));
    url.map(|url| Expanded { text, url }).ok_or_else(|| wrong("?", "changes more of the URL than its own part"))
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
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
