//! Finds the client's address in `Forwarded` (RFC 7239) and `X-Forwarded-For`, using only the entries that trusted proxies
//! wrote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The headers' statement about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statement {
    /// No proxy forwarded the request.
    None,
    /// A proxy forwarded the request, and the client is unknown: the proxy is not trusted, or the headers are unreadable or
    /// contradict each other.
    Unclear,
    Address(IpAddr),
}

/// Returns the right-most address that is not a trusted proxy's: the client may have written everything left of it.
///
/// Returns the peer's address if the headers are missing, unreadable up to that entry, or contradict each other. They
/// contradict each other if a client invents one of them: the proxy appends to the other, and forwards the invented one
/// unchanged.
pub(in crate::gateway) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    match statement(peer, headers, trusted) {
        Statement::Address(address) => address,
        Statement::None | Statement::Unclear => peer.to_canonical(),
    }
}

/// Returns true if the client is certainly on this host.
pub(in crate::gateway) fn is_local(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> bool {
    match statement(peer, headers, trusted) {
        Statement::None => peer.to_canonical().is_loopback(),
        Statement::Unclear => false,
        Statement::Address(address) => address.is_loopback(),
    }
}

fn statement(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Statement {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let found = |name: &HeaderName, read: fn(&str) -> Option<IpAddr>| {
        let address = || walk(headers, name, read, is_trusted).map_or(Statement::Unclear, Statement::Address);
        headers.contains_key(name).then(address)
    };
    match (found(&header::FORWARDED, forwarded_for), found(&X_FORWARDED_FOR, node)) {
        (None, None) => Statement::None,
        _ if !is_trusted(peer.to_canonical()) => Statement::Unclear,
        (Some(one), Some(other)) if one != other => Statement::Unclear,
        (Some(stated), _) | (None, Some(stated)) => stated,
    }
}

/// Returns the right-most address that is not a trusted proxy's, or the left-most if all are. `None` if an entry up to
/// there cannot be read.
fn walk(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&str) -> Option<IpAddr>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let lines = headers.get_all(name).iter().rev();
    // Split as bytes: invalid text that a client wrote on the left must not make the rest unreadable.
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut last = None;
    for entry in entries {
        let address = read(std::str::from_utf8(entry).ok()?.trim())?;
        if !is_trusted(address) {
            return Some(address);
        }
        last = Some(address);
    }
    last
}

/// Parses an element such as `for="[2001:db8::1]:4711";proto=https`. Returns `None` for an obfuscated or unknown address.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value.trim());
    let (value, None) = (values.next()?, values.next()) else { return None };
    node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Parses an address with or without a port. IPv6 with a port is in brackets.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_plain = port.is_empty() || port.starts_with(':');
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_plain).map(|ip| IpAddr::V6(ip).to_canonical());
    }
    let with_port = || text.split_once(':').and_then(|(address, _)| address.parse::<Ipv4Addr>().ok()).map(IpAddr::V4);
    text.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests;
