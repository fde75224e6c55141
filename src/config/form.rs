//! The forms that settings are written in.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Seconds(u64),
        Text(String),
    }
    let duration = match Form::deserialize(deserializer)? {
        Form::Seconds(seconds) => Duration::from_secs(seconds),
        Form::Text(text) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a duration; write `90`, `90s` or `10m`")))?,
    };
    if duration.is_zero() { Err(de::Error::custom("must be longer than nothing")) } else { Ok(duration) }
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Seconds(u64),
        Text(String),
    }
    match Form::deserialize(deserializer)? {
        Form::Text(text) if text.is_empty() => Ok(None),
        Form::Text(text) => duration(de::value::StringDeserializer::<D::Error>::new(text)).map(Some),
        Form::Seconds(seconds) => duration(de::value::U64Deserializer::<D::Error>::new(seconds)).map(Some),
    }
}

pub(super) fn edge_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let fits = id.is_empty() || crate::subject::is_id(&id);
    if fits { Ok(id) } else { Err(de::Error::custom("must be 22 letters, digits, `_` or `-`")) }
}

pub(super) fn optional<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}
