//! Hosts under a public suffix (`co.uk`, `web.app`), where anyone can register a name. A variable that chooses such a name
//! would let the one who logs in choose whose server gets the client secret.

use std::collections::BTreeMap;

use psl::Type;

use super::hosts::fixed;
use super::parts::{WORD, host, last_host_variable, parts, substitute};
use crate::integration::Variable;

/// The host of a template is not fixed down to a registered name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::integration) struct OpenHost {
    /// The variable that chooses the registered name.
    pub(in crate::integration) variable: String,
    /// The variable's `shared_suffix` would allow the host.
    pub(in crate::integration) may_share: bool,
}

/// Checks a template's host with these values, or with a harmless word for every variable.
pub(in crate::integration) fn check_host(
    template: &str,
    variables: &BTreeMap<String, Variable>,
    values: Option<&BTreeMap<String, String>>,
) -> Result<(), OpenHost> {
    let template = &values.map_or_else(|| template.to_owned(), |values| fixed(template, variables, values));
    let Some(authority) = parts(template).map(|parts| parts.authority) else { return Ok(()) };
    let Some((variable, fixed)) = last_host_variable(authority) else { return Ok(()) };
    let value = |name: &str| values.map_or_else(|| Some(WORD.to_owned()), |values| values.get(name).cloned());
    let filled = substitute(authority, value).unwrap_or_default().to_ascii_lowercase();
    let Some(suffix) = psl::suffix(host(&filled).as_bytes()) else { return Ok(()) };

    // Both are whole labels at the end of the host. A longer fixed part has the registered name.
    let (fixed, public) = (host(fixed).len(), suffix.as_bytes().len());
    if fixed > public {
        return Ok(());
    }
    // A longer suffix contains a value, and then is not the one that the config's author knows.
    let may_share = suffix.typ() == Some(Type::Private) && fixed == public;
    let is_shared = variables.get(variable).is_some_and(|variable| variable.shared_suffix);
    if may_share && is_shared { Ok(()) } else { Err(OpenHost { variable: variable.to_owned(), may_share }) }
}
