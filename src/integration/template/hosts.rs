//! Hosts with variables that have a list of values.

use std::collections::BTreeMap;

use super::is_label;
use super::parts::{Parts, parts, substitute, variable_names};
use crate::integration::Variable;

/// Most hosts of one template. Each is checked when the config is put.
const MAX_HOSTS: usize = 256;

/// Writes the values of variables with a list of values into the template's host.
pub(in crate::integration) fn fixed(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: &BTreeMap<String, String>,
) -> String {
    let Some(Parts { scheme, authority, rest }) = parts(template) else { return template.to_owned() };
    let value_of = |name: &str| {
        let is_listed = variables.get(name).is_some_and(|variable| !variable.values.is_empty());
        let value = values.get(name).filter(|_| is_listed).cloned();
        Some(value.unwrap_or_else(|| format!("${{{name}}}")))
    };
    match substitute(authority, value_of) {
        Some(authority) => format!("{scheme}://{authority}{rest}"),
        None => template.to_owned(),
    }
}

/// Returns the template with each combination of these values; `None` if there are too many, or if a value cannot be in a
/// host.
pub(in crate::integration) fn variants(template: &str, variables: &BTreeMap<String, Variable>) -> Option<Vec<String>> {
    let mut variants = vec![template.to_owned()];
    for name in parts(template).map(|parts| variable_names(parts.authority)).unwrap_or_default() {
        let Some(variable) = variables.get(name).filter(|variable| !variable.values.is_empty()) else { continue };
        let with = |template: &String, value: &String| {
            fixed(template, variables, &BTreeMap::from([(name.to_owned(), value.clone())]))
        };
        if !variable.values.iter().all(|value| value.split('.').all(is_label)) {
            return None;
        }
        let all = variants.iter().flat_map(|it| variable.values.iter().map(move |value| with(it, value)));
        variants = all.take(MAX_HOSTS.saturating_add(1)).collect();
    }
    (variants.len() <= MAX_HOSTS).then_some(variants)
}
