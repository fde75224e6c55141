//! The query's parameters. Each may occur once, and all must be used.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::gateway::routes::error::HttpError;
use crate::secret::Secret;

/// Longest value of a query parameter. A config takes 8 KiB of scopes, and codes that hold encrypted data can be long.
const MAX_VALUE_BYTES: usize = 16 * 1024;
/// Longest parameter name that an error text repeats.
const MAX_SHOWN_NAME_CHARS: usize = 64;
/// Most unknown parameters that an error text names.
const MAX_SHOWN_NAMES: usize = 8;

/// The query's parameters. Each occurs once.
#[derive(Debug)]
pub(in crate::gateway) struct Query(BTreeMap<String, Secret>);

impl Query {
    pub(in crate::gateway) fn parse(raw: &str) -> Result<Self, HttpError> {
        Self::parse_if(raw, |_| true)
    }

    /// Parses only the parameters of these names, and ignores others.
    pub(in crate::gateway) fn parse_known(raw: &str, names: &[&str]) -> Result<Self, HttpError> {
        Self::parse_if(raw, |name| names.contains(&name))
    }

    fn parse_if(raw: &str, is_wanted: impl Fn(&str) -> bool) -> Result<Self, HttpError> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(raw.as_bytes()).filter(|(name, _)| is_wanted(name)) {
            let shown = shown(&name);
            if value.len() > MAX_VALUE_BYTES {
                return Err(HttpError::bad_request(format!(
                    "parameter {shown} is longer than {MAX_VALUE_BYTES} bytes"
                )));
            }
            if parameters.insert(name.into_owned(), Secret::new(value)).is_some() {
                return Err(HttpError::bad_request(format!("parameter {shown} is given twice")));
            }
        }
        Ok(Self(parameters))
    }

    pub(in crate::gateway) fn take(&mut self, name: &str) -> Option<Secret> {
        self.0.remove(name)
    }

    /// Takes a parameter that must not be missing or empty.
    pub(in crate::gateway) fn require(&mut self, name: &str) -> Result<Secret, HttpError> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| HttpError::bad_request(format!("parameter {name} is missing")))
    }

    /// Moves a parameter unchanged into a call's body.
    pub(in crate::gateway) fn move_to(&mut self, name: &str, body: &mut Map<String, Value>) {
        if let Some(value) = self.take(name) {
            body.insert(name.to_owned(), value.expose().into());
        }
    }

    pub(in crate::gateway) fn number<N>(&mut self, name: &str, range: RangeInclusive<N>) -> Result<Option<N>, HttpError>
    where
        N: Copy + FromStr + PartialOrd + Display,
    {
        let Some(text) = self.take(name) else { return Ok(None) };
        let has_only_digits = text.expose().bytes().all(|byte| byte.is_ascii_digit());
        let number = text.expose().parse().ok().filter(|number| has_only_digits && range.contains(number));
        let (least, most) = (range.start(), range.end());
        let wrong = || HttpError::bad_request(format!("{name} must be a whole number from {least} to {most}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// Moves a parameter that is `true` or `false` into a call's body.
    pub(in crate::gateway) fn move_flag_to(
        &mut self,
        name: &str,
        body: &mut Map<String, Value>,
    ) -> Result<(), HttpError> {
        let Some(text) = self.take(name) else { return Ok(()) };
        let wrong = |source| HttpError::NotAFlag { name: name.to_owned(), source };
        let flag: bool = text.expose().parse().map_err(wrong)?;
        body.insert(name.to_owned(), flag.into());
        Ok(())
    }

    /// Takes all parameters with this prefix, and returns them without it.
    pub(in crate::gateway) fn take_prefixed(&mut self, prefix: &str) -> Map<String, Value> {
        let (taken, left): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = left;
        let strip = |name: String| name.strip_prefix(prefix).unwrap_or_default().to_owned();
        taken.into_iter().map(|(name, value)| (strip(name), value.expose().into())).collect()
    }

    /// Rejects parameters that were not taken.
    pub(in crate::gateway) fn expect_empty(&self) -> Result<(), HttpError> {
        let left: Vec<String> = self.0.keys().take(MAX_SHOWN_NAMES).map(|name| shown(name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(HttpError::bad_request(format!("unknown parameter {}", left.join(", "))))
    }
}

/// A parameter's name as error texts show it.
fn shown(name: &str) -> String {
    format!("`{}`", name.chars().take(MAX_SHOWN_NAME_CHARS).collect::<String>())
}
