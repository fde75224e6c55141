//! Built-in settings of known providers, compiled in from `config/providers`.

use serde_json::Value;

use crate::integration::with_profile;

/// Names and texts of the profiles, by name. `build.rs` lists the files.
const PROFILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

fn names() -> impl Iterator<Item = &'static str> {
    PROFILES.iter().map(|(name, _)| *name)
}

fn profile(name: &str) -> Option<Value> {
    let (_, text) = PROFILES.iter().find(|(known, _)| *known == name)?;
    toml::from_str(text).ok()
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider must be one of: {0}")]
pub(crate) struct UnknownProfile(String);

/// Adds the fields of the profile that the body names as `provider`. The body's own fields take precedence.
pub(crate) fn apply(body: Value) -> Result<Value, UnknownProfile> {
    let Some(name) = body.get("provider").and_then(Value::as_str) else { return Ok(body) };
    let profile = profile(name).ok_or_else(|| UnknownProfile(names().collect::<Vec<_>>().join(", ")))?;
    Ok(with_profile(body, &profile))
}

#[cfg(test)]
mod tests;
