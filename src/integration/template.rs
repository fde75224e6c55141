//! URLs with `${variable}`s, and what may become of them.
//!
//! A variable stands for whole labels of the host left of a fixed suffix, or inside the path.
//! Scheme, port, host suffix, query and the number of path segments are the template's, whatever
//! the values: the result is compared with the template filled by a harmless word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use url::Url;

use super::{ConfigError, Variable};

/// Longest value of a variable.
const MAX_VALUE: usize = 256;
/// Memory that one compiled pattern may take.
const MAX_PATTERN_SIZE: usize = 256 * 1024;
/// Stands for any value when templates are judged.
const WORD: &str = "x";

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Compiles a pattern so that it matches whole values only. It has to be well-formed by itself
/// first, or `a)|(b` would slip out of the anchors.
pub(super) fn pattern(text: &str) -> Option<Regex> {
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_PATTERN_SIZE).build().ok();
    compile(text)?;
    compile(&format!(r"\A(?:{text})\z"))
}

/// Whether it can name a variable.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= 32
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn pieces(template: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}')?;
        if !is_name(name) {
            return None;
        }
        pieces.push(Piece::Text(text));
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

/// The variables that a template names.
pub(super) fn names(template: &str) -> BTreeSet<&str> {
    let variable = |piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Text(_) => None,
    };
    pieces(template).unwrap_or_default().into_iter().filter_map(variable).collect()
}

/// A template taken apart: `scheme://authority` and what follows.
struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    rest: &'a str,
}

fn parts(template: &str) -> Option<Parts<'_>> {
    let (scheme, after) = template.split_once("://")?;
    let end = after.find(['/', '?', '#', '\\']).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end)?;
    Some(Parts { scheme, authority, rest })
}

/// The part of the host that no variable touches; `None` when variables stand elsewhere than as
/// whole labels left of at least two fixed ones.
fn fixed_suffix(authority: &str) -> Option<String> {
    let Some(last) = authority.rfind("${") else { return Some(authority.to_owned()) };
    let (_, suffix) = authority.get(last..)?.split_once('}')?;
    let host = authority.split(':').next()?;
    let whole_labels = host.split('.').all(|label| {
        !label.contains('$') || label.strip_prefix("${").and_then(|name| name.strip_suffix('}')).is_some_and(is_name)
    });
    let fixed = suffix.split(':').next()?.strip_prefix('.')?;
    (whole_labels && fixed.split('.').filter(|label| !label.is_empty()).count() >= 2).then(|| suffix.to_owned())
}

/// The URL that a template stands for with a harmless word in every hole; `None` when it is no
/// absolute URL or its variables stand where they may not.
pub(super) fn judge(template: &str) -> Option<Url> {
    let Parts { scheme, authority, rest } = parts(template)?;
    let plain_scheme = scheme == "https" || scheme == "http";
    let clean = template.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    let path_end = rest.find('?').unwrap_or(rest.len());
    let fixed_query = rest.get(path_end..).is_some_and(|query| !query.contains("${"));
    if !plain_scheme || !clean || !fixed_query || authority.is_empty() || authority.contains('@') {
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

/// Each variable's value, given or by default, judged by its pattern.
pub(super) fn fill(
    variables: &BTreeMap<String, Variable>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    if given.keys().any(|name| !variables.contains_key(name)) {
        return Err(ConfigError::Variable { name: "?".to_owned(), problem: "is not one of the config's" });
    }
    let mut values = BTreeMap::new();
    for (name, variable) in variables {
        let wrong = |problem| ConfigError::Variable { name: name.clone(), problem };
        let value = given.get(name).or(variable.default.as_ref()).ok_or_else(|| wrong("is missing"))?;
        if !fits(variable, value) {
            return Err(wrong("does not have the form that the config asks for"));
        }
        values.insert(name.clone(), value.clone());
    }
    Ok(values)
}

/// Whether a variable may have this value. Separators are refused even where a pattern lets them
/// through: encoded they keep the shape here, but not behind every proxy.
pub(super) fn fits(variable: &Variable, value: &str) -> bool {
    let separator = |c: char| matches!(c, '/' | '\\' | '%' | '?' | '#' | '@' | ':') || c.is_control();
    !value.is_empty()
        && value.len() <= MAX_VALUE
        && !value.contains(separator)
        && pattern(&variable.pattern).is_some_and(|pattern| pattern.is_match(value))
}

/// A template's text with its variables filled in; without variables the template byte for byte.
///
/// # Errors
/// [`ConfigError::Variable`] when a value is missing, unknown, or of the wrong form, or when the
/// values together would change more of the URL than their own places.
pub(crate) fn expand(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: &BTreeMap<String, String>,
) -> Result<String, ConfigError> {
    expand_checked(template, variables, values).map(|(text, _)| text)
}

/// The URL of a template, its variables filled in (percent-encoded in the path).
///
/// # Errors
/// As [`expand`].
pub(crate) fn endpoint_url(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: &BTreeMap<String, String>,
) -> Result<Url, ConfigError> {
    expand_checked(template, variables, values).map(|(_, url)| url)
}

fn expand_checked(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: &BTreeMap<String, String>,
) -> Result<(String, Url), ConfigError> {
    let wrong = |name: &str, problem| ConfigError::Variable { name: name.to_owned(), problem };
    let values = fill(variables, values)?;
    let model = judge(template).ok_or_else(|| ConfigError::invalid("url", "an absolute URL"))?;
    let Parts { scheme, authority, rest } = parts(template).ok_or_else(|| wrong("?", "is misplaced"))?;
    for name in names(authority) {
        if !values.get(name).is_some_and(|value| value.split('.').all(is_label)) {
            return Err(wrong(name, "must be a label of a host name"));
        }
    }
    let host = substitute(authority, |name| values.get(name).cloned());
    let path = substitute(rest, |name| values.get(name).map(|value| percent_encode(value)));
    let (Some(host), Some(path)) = (host, path) else { return Err(wrong("?", "is not one of the config's")) };
    let text = format!("{scheme}://{host}{path}");
    let url = Url::parse(&text).ok().filter(|url| same_shape(url, &model, template));
    url.map(|url| (text, url)).ok_or_else(|| wrong("?", "changes more of the URL than its own place"))
}

/// Whether only the holes differ.
fn same_shape(url: &Url, model: &Url, template: &str) -> bool {
    let Some(Parts { authority, rest, .. }) = parts(template) else { return false };
    let Some(suffix) = fixed_suffix(authority) else { return false };
    let suffix = suffix.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let host = match (url.host_str(), model.host_str()) {
        (Some(host), Some(_)) if authority.contains("${") => host.len() > suffix.len() && host.ends_with(&suffix),
        (host, model) => host == model,
    };
    let holes = rest.split('?').next().unwrap_or_default().split('/').skip(1).map(|segment| segment.contains("${"));
    let segments = |url: &Url| url.path().split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (ours, models) = (segments(url), segments(model));
    let path = ours.len() == models.len()
        && ours.iter().zip(&models).zip(holes.chain(std::iter::repeat(false))).all(|((a, b), hole)| hole || a == b);
    host && path
        && url.scheme() == model.scheme()
        && url.port() == model.port()
        && url.query() == model.query()
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

/// All but the unreserved characters (RFC 3986 §2.3).
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
