//! Deserializers for the forms in which settings are written.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use url::Url;

use super::section::AccountSettings;
use crate::subject::Account;

/// A duration as written: seconds, or a text such as `10m`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Length {
    Seconds(u64),
    Text(String),
}

impl Length {
    fn duration<E: de::Error>(self) -> Result<Duration, E> {
        let duration = match self {
            Self::Seconds(seconds) => Duration::from_secs(seconds),
            Self::Text(text) => text
                .parse::<jiff::Span>()
                .ok()
                .and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok())
                .and_then(|duration| Duration::try_from(duration).ok())
                .ok_or_else(|| E::custom(format!("`{text}` is not a duration; write `90`, `90s` or `10m`")))?,
        };
        if duration.is_zero() { Err(E::custom("must not be zero")) } else { Ok(duration) }
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Length::deserialize(deserializer)?.duration()
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Length::deserialize(deserializer)? {
        Length::Text(text) if text.is_empty() => Ok(None),
        length @ (Length::Seconds(_) | Length::Text(_)) => length.duration().map(Some),
    }
}

/// A number of bytes as written: a number, or a text such as `512MiB`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(i64),
    Text(String),
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let bytes = match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Some(bytes),
        Size::Text(text) => parse_bytes(&text),
    };
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| de::Error::custom("must be a number of bytes, such as `512MiB`"))
}

fn parse_bytes(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|char: char| !char.is_ascii_digit());
    let unit = match text.strip_prefix(digits)?.trim() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(unit)
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

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

pub(super) fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { parse_address(&text).map(Some).map_err(de::Error::custom) }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    // The parser's error says only that the text is not an address.
    let invalid = || format!("`{text}` is not an address with a port, such as `127.0.0.1:8080`");
    text.parse().ok().ok_or_else(invalid)
}

/// A number that must not be zero.
pub(super) fn count<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default + PartialEq,
    D: Deserializer<'de>,
{
    let count = T::deserialize(deserializer)?;
    if count == T::default() { Err(de::Error::custom("must be at least 1")) } else { Ok(count) }
}

/// The URL of an HTTP proxy. Errors never repeat it, because it may contain a password.
pub(super) fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let fits = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let wrong = || de::Error::custom("must be a URL such as `http://proxy.corp.example:3128`");
    text.parse().ok().filter(fits).map(Some).ok_or_else(wrong)
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: String| {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let wrong = |_| de::Error::custom(format!("`{text}` is neither an address nor a network such as `10.0.0.0/8`"));
        network.map(|network: IpNet| network.trunc()).map_err(wrong)
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(read).collect()
}

/// Settings by account. Names of environment variables arrive in lower case, and public keys are upper case.
pub(super) fn accounts<'de, D>(deserializer: D) -> Result<BTreeMap<Account, AccountSettings>, D::Error>
where
    D: Deserializer<'de>,
{
    let written = BTreeMap::<String, AccountSettings>::deserialize(deserializer)?;
    let parse = |(account, settings): (String, AccountSettings)| {
        Account::parse(&account.to_uppercase()).map(|account| (account, settings)).map_err(de::Error::custom)
    };
    written.into_iter().map(parse).collect()
}
