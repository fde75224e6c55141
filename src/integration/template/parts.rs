//! The parts of a template, and the URL of a template with sample values.

use std::collections::BTreeSet;

use url::{Url, form_urlencoded};

/// Value of every variable in a template's sample URL.
pub(super) const WORD: &str = "x";

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

pub(in crate::integration) fn is_variable_name(text: &str) -> bool {
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

pub(in crate::integration) fn variable_names(template: &str) -> BTreeSet<&str> {
    placeholders(template).unwrap_or_default()
}

/// Returns the names in the text's `${…}`s; `None` if one is malformed.
pub(in crate::integration) fn placeholders(text: &str) -> Option<BTreeSet<&str>> {
    let name_of = |piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Text(_) => None,
    };
    Some(pieces(text)?.into_iter().filter_map(name_of).collect())
}

/// Splits off the fragment. Some providers' pages route by it (`https://x.example/#/authorize`).
pub(crate) fn split_route(template: &str) -> (&str, Option<&str>) {
    template.split_once('#').map_or((template, None), |(url, route)| (url, Some(route)))
}

pub(super) struct Parts<'a> {
    pub(super) scheme: &'a str,
    pub(super) authority: &'a str,
    /// Path and query.
    pub(super) rest: &'a str,
}

pub(super) fn parts(template: &str) -> Option<Parts<'_>> {
    let (scheme, after) = template.split_once("://")?;
    let end = after.find(['/', '?', '#', '\\']).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end)?;
    Some(Parts { scheme, authority, rest })
}

/// Returns an authority's host without port and trailing dot.
pub(super) fn host(authority: &str) -> &str {
    let host = authority.split(':').next().unwrap_or_default();
    host.strip_suffix('.').unwrap_or(host)
}

/// Returns the last variable of the authority, and the fixed part of the authority after it and its dot.
pub(super) fn last_host_variable(authority: &str) -> Option<(&str, &str)> {
    let (_, last) = authority.rsplit_once("${")?;
    let (name, fixed) = last.split_once('}')?;
    Some((name, fixed.strip_prefix('.')?))
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

/// Returns true if the variables of the template's host are whole labels left of a fixed suffix.
pub(in crate::integration) fn has_fixed_host(template: &str) -> bool {
    parts(template).is_none_or(|parts| fixed_suffix(parts.authority).is_some())
}

/// Returns the template's URL with a harmless word for every variable. Returns `None` if that is no absolute URL, or if a
/// variable is in a part of the URL where none is allowed.
pub(in crate::integration) fn sample_url(template: &str) -> Option<Url> {
    let Parts { scheme, authority, rest } = parts(template)?;
    let is_http = scheme == "https" || scheme == "http";
    let is_clean = template.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let has_fixed_names = form_urlencoded::parse(query.as_bytes()).all(|(name, _)| !name.contains("${"));
    if !is_http || !is_clean || !has_fixed_names || authority.is_empty() || authority.contains('@') {
        return None;
    }
    fixed_suffix(authority)?;
    let url = Url::parse(&substitute(template, |_| Some(WORD.to_owned()))?).ok()?;
    (url.has_host() && url.username().is_empty() && url.password().is_none()).then_some(url)
}

pub(super) fn substitute(template: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut text = String::with_capacity(template.len());
    for piece in pieces(template)? {
        match piece {
            Piece::Text(fixed) => text.push_str(fixed),
            Piece::Variable(name) => text.push_str(&value(name)?),
        }
    }
    Some(text)
}

/// Returns true if the URL differs from the sample only where the template has variables.
pub(super) fn has_same_shape(url: &Url, sample: &Url, template: &str) -> bool {
    let Some(Parts { authority, rest, .. }) = parts(template) else { return false };
    let Some(suffix) = fixed_suffix(authority) else { return false };
    let suffix = suffix.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let is_host_same = match (url.host_str(), sample.host_str()) {
        (Some(host), Some(_)) if authority.contains("${") => host.len() > suffix.len() && host.ends_with(&suffix),
        (host, sample) => host == sample,
    };
    // Its values are encoded, so they change no other part.
    let is_query_variable =
        url.query().is_some() && rest.split_once('?').is_some_and(|(_, query)| query.contains("${"));
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
        && (url.query() == sample.query() || is_query_variable)
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}
