//! URLs with `${variable}`s.
//!
//! A variable is one or more whole labels of the host left of a fixed suffix, or a part of the path. Scheme, port, host
//! suffix, query and the number of path segments come from the template, for any value: [`expand`] compares the result
//! with the template filled with a harmless word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use url::Url;

use super::{ConfigError, Variable};

const MAX_VALUE_BYTES: usize = 256;
/// Memory of one compiled pattern. Admins write patterns, and a short one can compile to megabytes.
const MAX_REGEX_BYTES: usize = 256 * 1024;
/// Value of every variable in a template's sample URL.
const WORD: &str = "x";

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Compiles a pattern so that it matches only whole values. Compiles it without the anchors first: `a)|(b` is valid only
/// between them, and would match parts of values.
pub(super) fn whole_value_regex(text: &str) -> Option<Regex> {
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build().ok();
    compile(text)?;
    compile(&format!(r"\A(?:{text})\z"))
}

pub(super) fn is_variable_name(text: &str) -> bool {
    text.len() <= 32
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn pieces(template: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}')?;
        if !is_variable_name(name) {
            return None;
        }
        pieces.push(Piece::Text(text));
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

pub(super) fn variable_names(template: &str) -> BTreeSet<&str> {
    let name_of = |piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Text(_) => None,
    };
    pieces(template).unwrap_or_default().into_iter().filter_map(name_of).collect()
}

struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    /// Path and query.
    rest: &'a str,
}

fn parts(template: &str) -> Option<Parts<'_>> {
    let (scheme, after) = template.split_once("://")?;
    let end = after.find(['/', '?', '#', '\\']).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end)?;
    Some(Parts { scheme, authority, rest })
}

/// Returns the part of the authority right of the variables. Returns `None` if a variable is not a whole label, or if
/// fewer than two fixed labels follow the last variable.
fn fixed_suffix(authority: &str) -> Option<String> {
    let Some(last) = authority.rfind("${") else { return Some(authority.to_owned()) };
    let (_, suffix) = authority.get(last..)?.split_once('}')?;
    let host = authority.split(':').next()?;
    let whole_labels = host.split('.').all(|label| {
        !label.contains('$')
            || label.strip_prefix("${").and_then(|name| name.strip_suffix('}')).is_some_and(is_variable_name)
    });
    let fixed = suffix.split(':').next()?.strip_prefix('.')?;
    (whole_labels && fixed.split('.').filter(|label| !label.is_empty()).count() >= 2).then(|| suffix.to_owned())
}

/// Returns the template's URL with a harmless word for every variable. Returns `None` if that is no absolute URL, or if a
/// variable is in a part of the URL where none is allowed.
pub(super) fn sample_url(template: &str) -> Option<Url> {
    let Parts { scheme, authority, rest } = parts(template)?;
    let is_http = scheme == "https" || scheme == "http";
    let is_clean = template.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    let path_end = rest.find('?').unwrap_or(rest.len());
    let is_query_fixed = rest.get(path_end..).is_some_and(|query| !query.contains("${"));
    if !is_http || !is_clean || !is_query_fixed || authority.is_empty() || authority.contains('@') {
        return None;
    }
    fixed_suffix(authority)?;
    let url = Url::parse(&substitute(template, |_| Some(WORD.to_owned()))?).ok()?;
    (url.has_host() && url.username().is_empty() && url.password().is_none()).then_some(url)
}

fn substitute(template: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut text = String::with_capacity(template.len());
    for piece in pieces(template)? {
        match piece {
            Piece::Text(fixed) => text.push_str(fixed),
            Piece::Variable(name) => text.push_str(&value(name)?),
        }
    }
    Some(text)
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

/// The same as a URL. Values are percent-encoded in the path.
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
    let path = substitute(rest, |name| values.get(name).map(|value| percent_encode(value)));
    let (Some(host), Some(path)) = (host, path) else { return Err(wrong("?", "is unknown")) };
    let text = format!("{scheme}://{host}{path}");
    let url = Url::parse(&text).ok().filter(|url| has_same_shape(url, &sample, template));
    url.map(|url| Expanded { text, url }).ok_or_else(|| wrong("?", "changes more of the URL than its own part"))
}

/// Returns true if the URL differs from the sample only where the template has variables.
fn has_same_shape(url: &Url, sample: &Url, template: &str) -> bool {
    let Some(Parts { authority, rest, .. }) = parts(template) else { return false };
    let Some(suffix) = fixed_suffix(authority) else { return false };
    let suffix = suffix.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let is_host_same = match (url.host_str(), sample.host_str()) {
        (Some(host), Some(_)) if authority.contains("${") => host.len() > suffix.len() && host.ends_with(&suffix),
        (host, sample) => host == sample,
    };
    let is_variable = rest.split('?').next().unwrap_or_default().split('/').skip(1).map(|part| part.contains("${"));
    let segments = |url: &Url| url.path().split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (ours, samples) = (segments(url), segments(sample));
    let is_path_same = ours.len() == samples.len()
        && ours
            .iter()
            .zip(&samples)
            .zip(is_variable.chain(std::iter::repeat(false)))
            .all(|((ours, sample), is_variable)| is_variable || ours == sample);
    is_host_same
        && is_path_same
        && url.scheme() == sample.scheme()
        && url.port() == sample.port()
        && url.query() == sample.query()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
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
