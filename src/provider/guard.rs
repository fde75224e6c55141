//! Which hosts may be talked to: names are resolved once, and only judged addresses are handed on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Whom the client may talk to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    /// Hosts that may have private addresses, names or literal addresses. This opens addresses, never
    /// `http`.
    pub allowed_hosts: Vec<String>,
    /// Opens `http` for loopback hosts alone, and loopback addresses for them and for `allowed_hosts`.
    pub allow_insecure_urls: bool,
}

/// Why a URL or host is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Neither https nor http on loopback where that is allowed.
    #[error("only https is allowed")]
    Scheme,
    /// No host, or with user information.
    #[error("not a plain URL with a host")]
    Form,
    /// A private or special address, or no public one behind the name.
    #[error("the host has no public address")]
    Address,
    /// The name does not resolve.
    #[error("the host name does not resolve")]
    Resolution,
}

impl Guard {
    /// Judges a URL before a request; literal addresses here, names when they are resolved.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Form);
        }
        let (address, is_loopback) = match url.host().ok_or(Refusal::Form)? {
            Host::Domain(name) => (None, name == "localhost"),
            Host::Ipv4(ip) => (Some(IpAddr::V4(ip)), ip.is_loopback()),
            Host::Ipv6(ip) => (Some(IpAddr::V6(ip)), ip.is_loopback()),
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && self.allow_insecure_urls && is_loopback) {
            return Err(Refusal::Scheme);
        }
        let host = url.host_str().unwrap_or_default();
        if address.is_none_or(|ip| self.allows(host, ip)) { Ok(()) } else { Err(Refusal::Address) }
    }

    /// Whether this address may be connected to under this host's name.
    #[must_use]
    pub(crate) fn allows(&self, host: &str, ip: IpAddr) -> bool {
        let host = bare(host);
        let is_listed = self.allowed_hosts.iter().any(|allowed| bare(allowed).eq_ignore_ascii_case(host));
        let is_local = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok();
        let plain = ip.to_canonical();
        if plain.is_loopback() {
            self.allow_insecure_urls && (is_listed || is_local)
        } else if is_never(plain) {
            false
        } else {
            is_public(ip) || is_listed
        }
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.')
}

/// Addresses that no list opens: nobody's host, cloud metadata among the link-local ones, and forms
/// that hide another address.
fn is_never(ip: IpAddr) -> bool {
    let closed = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || embeds_v4(ip),
    };
    closed || ip.is_unspecified() || ip.is_multicast()
}

/// IPv4-compatible, translated (RFC 2765), NAT64, Teredo and 6to4 addresses; mapped ones are judged as what they map.
fn embeds_v4(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0x0064, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..])
}

/// Whether an address is one of the public internet's, embedded addresses included.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _) // this network, private, loopback, multicast, reserved, broadcast
            | (100, 64..=127, _) // CGNAT (RFC 6598)
            | (169, 254, _) // link-local
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2) // protocol assignments, documentation
            | (192, 88, 99) // 6to4 relays
            | (192, 31, 196) | (192, 52, 193) | (192, 175, 48) // AS112, AMT
            | (198, 18..=19, _) // benchmarking
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, ..] = ip.segments();
    // Global unicast is 2000::/3; mapped, compatible, NAT64, ULA, link-local, multicast are outside.
    let special = match (a, b) {
        // Protocol assignments with Teredo and ORCHID, documentation (also RFC 9637), 6to4.
        (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff) => true,
        (0x2620, 0x004f) => c == 0x8000, // AS112
        _ => false,
    };
    (0x2000..=0x3fff).contains(&a) && !special
}

/// How a name becomes addresses.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Asks the system's resolver.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|host| async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }.boxed())
}

/// Resolves each name once for a connection; whatever is not allowed is left out, so that the address connected to is
/// the address judged.
pub(super) struct Resolver {
    pub(super) guard: Guard,
    /// The configured proxy, which is where all connections go and may be anywhere.
    pub(super) proxy: Option<String>,
    pub(super) lookup: Lookup,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, host) = (self.guard.clone(), name.as_str().to_owned());
        let is_proxy = self.proxy.as_ref().is_some_and(|proxy| bare(proxy).eq_ignore_ascii_case(bare(&host)));
        let found = (self.lookup)(host.clone());
        Box::pin(async move {
            let mut found = found.await.map_err(|_| Refusal::Resolution)?;
            found.retain(|address| is_proxy || guard.allows(&host, address.ip()));
            if found.is_empty() {
                return Err(Refusal::Address.into());
            }
            Ok::<Addrs, _>(Box::new(found.into_iter()))
        })
    }
}

#[cfg(test)]
mod tests;
