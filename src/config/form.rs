//! Deserializers for the forms in which settings are written.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, de};
use url::Url;

use super::section::AccountSettings;
use crate::foreign_text::has_hidden;
use crate::provider::{bare, nat64_prefix};
use crate::subject::Account;

/// Longest duration: 100 years. Much later times do not fit into the clocks of the system and of NATS.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
/// Largest count. A semaphore takes it, also with several permits for each.
const MOST: u32 = u32::MAX;

/// A duration as written: seconds, or a text such as `10m`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a duration; write `90`, `90s` or `10m`")]
enum Length {
    Seconds(u64),
    Text(String),
}

impl Length {
    fn duration<E: de::Error>(self) -> Result<Duration, E> {
        let duration = self.duration_or_zero()?;
        if duration.is_zero() { Err(E::custom("must not be zero")) } else { Ok(duration) }
    }

    fn duration_or_zero<E: de::Error>(self) -> Result<Duration, E> {
        let duration = match self {
            Self::Seconds(seconds) => Duration::from_secs(seconds),
            Self::Text(text) => {
                parse_duration(&text).ok_or_else(|| E::custom("must be a duration; write `90`, `90s` or `10m`"))?
            }
        };
        if duration > LONGEST { Err(E::custom("must be at most 100 years")) } else { Ok(duration) }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    // In the environment, everything is a text.
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let span = text.parse::<jiff::Span>().ok()?;
    Duration::try_from(span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Length::deserialize(deserializer)?.duration()
}

pub(super) fn duration_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Length::deserialize(deserializer)?.duration_or_zero()
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Length::deserialize(deserializer)? {
        Length::Text(text) if text.is_empty() => Ok(None),
        length @ (Length::Seconds(_) | Length::Text(_)) => length.duration().map(Some),
    }
}

/// A number of bytes as written: a number, or a text such as `512MiB`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a number of bytes, such as `512MiB`")]
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

/// A limit for a request's headers: enough for a browser's own, and bounded because each connection may fill it.
pub(super) fn header_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let bytes = usize::try_from(bytes(deserializer)?).map_err(de::Error::custom)?;
    let fits = (8 << 10..=1 << 20).contains(&bytes);
    if fits { Ok(bytes) } else { Err(de::Error::custom("must be from `8KiB` to `1MiB`")) }
}

/// A path such as `/hub`, without the slash at its end.
pub(super) fn base_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    let path = path.trim_end_matches('/');
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/-._~".contains(char);
    let fits = path.is_empty() || path.starts_with('/') && path.chars().all(is_plain) && !path.contains("//");
    if fits { Ok(path.to_owned()) } else { Err(de::Error::custom("must be a path such as `/tokenbus`")) }
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

fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    // The parser's error says only that the text is not an address.
    text.parse().ok().ok_or("must be an address with a port, such as `127.0.0.1:8080`")
}

/// A number from 1 to [`MOST`].
pub(super) fn count<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<u32>,
    D: Deserializer<'de>,
{
    let count = u64::deserialize(deserializer)?;
    if count == 0 {
        return Err(de::Error::custom("must be at least 1"));
    }
    let fitting = u32::try_from(count).ok().and_then(|count| T::try_from(count).ok());
    fitting.ok_or_else(|| de::Error::custom(format!("must be at most {MOST}")))
}

/// The URL of an HTTP proxy.
pub(super) fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    http_url(deserializer, "must be a URL such as `http://proxy.corp.example:3128`")
}

/// A URL of HTTP, or an empty text.
pub(super) fn optional_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    http_url(deserializer, "must be a URL with http:// or https://, such as `https://hub.example`")
}

/// Errors never repeat the URL, because it may contain a password. `hub.example:8080` is a URL with the scheme `hub.example`.
fn http_url<'de, D: Deserializer<'de>>(deserializer: D, wrong: &'static str) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let fits = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    text.parse().ok().filter(fits).map(Some).ok_or_else(|| de::Error::custom(wrong))
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: String| {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let wrong = |_| de::Error::custom("must be addresses or networks such as `10.0.0.0/8`");
        network.map(|network: IpNet| canonical(network.trunc())).map_err(wrong)
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(read).collect()
}

/// A listener on `[::]` names IPv4 clients as `::ffff:10.1.2.3`, and addresses are compared as IPv4 ones.
fn canonical(network: IpNet) -> IpNet {
    let inside = network.prefix_len().checked_sub(96);
    match (network.addr().to_canonical(), inside) {
        (IpAddr::V4(address), Some(length)) => Ipv4Net::new(address, length).map_or(network, IpNet::V4),
        _ => network,
    }
}

/// Names and addresses of hosts. An entry with a scheme, a port or a path would match nothing.
pub(super) fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    let wrong = "must be hosts such as `sso.corp.example` or addresses, without scheme, port and path";
    if hosts.iter().all(|host| is_host(bare(host))) { Ok(hosts) } else { Err(de::Error::custom(wrong)) }
}

/// Hosts, suffixes of hosts, and networks; `*` is all of them.
pub(super) fn direct_hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    let is_direct =
        |host: &String| host == "*" || host.parse::<IpNet>().is_ok() || is_host(host.strip_prefix('.').unwrap_or(host));
    let wrong = "must be hosts, suffixes such as `.internal`, addresses or networks such as `10.0.0.0/8`, without scheme, \
                 port and path";
    if hosts.iter().all(is_direct) { Ok(hosts) } else { Err(de::Error::custom(wrong)) }
}

/// Names are compared in the form that URLs have: other letters than ASCII as `xn--…`.
fn is_host(text: &str) -> bool {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    let is_part = |part: &str| !part.is_empty() && part.chars().all(is_plain);
    text.parse::<IpAddr>().is_ok() || text.split('.').all(is_part)
}

/// A URL. Errors never repeat it.
pub(super) fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    parse_url(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

pub(super) fn urls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse_url(text)).collect::<Result<_, _>>().map_err(de::Error::custom)
}

fn parse_url(text: &str) -> Result<Url, &'static str> {
    text.parse().ok().ok_or("must be URLs such as `https://app.example`")
}

/// Prefixes of NAT64.
pub(super) fn nat64_prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv6Net>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| nat64_prefix(text)).collect::<Result<_, _>>().map_err(de::Error::custom)
}

/// A name that people see, as that of an integration.
pub(super) fn shown_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    let is_shown = |name: &String| !name.trim().is_empty() && !has_hidden(name);
    if name.as_ref().is_none_or(is_shown) {
        return Ok(name);
    }
    Err(de::Error::custom("must be a visible text without control characters and invisible characters"))
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
