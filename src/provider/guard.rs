//! Decides which hosts the client may connect to. A name is resolved once per connection, and the connection goes to an
//! address that was checked: a second look-up could return another address (DNS rebinding).

mod address;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ipnet::Ipv6Net;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

pub(crate) use self::address::nat64_prefix;
use self::address::{NAT64, inside_nat64, is_metadata_name, is_never_allowed, is_public};

/// The hosts that the client may connect to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    /// Names or literal addresses of hosts that may have private addresses. They still need `https`.
    pub allowed_hosts: Vec<String>,
    /// Allows `http` for loopback hosts only, and loopback addresses for them and for `allowed_hosts`.
    pub allow_insecure_urls: bool,
    /// Prefixes of this network's NAT64, beside `64:ff9b::/96`.
    pub nat64_prefixes: Vec<Ipv6Net>,
}

/// A URL or host that the client must not connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GuardError {
    /// Not `https`, and not `http` for an allowed loopback host.
    #[error("only https is allowed")]
    Scheme,
    /// No host, or user information.
    #[error("not a URL with a host and without user information")]
    Form,
    /// The address is private or special, or the name has no public address.
    #[error("the host has no public address")]
    Address,
    /// The name of a cloud metadata service.
    #[error("the host is a metadata service of a cloud")]
    Metadata,
}

impl Guard {
    /// Checks a URL and its literal address before a request. The [`Resolver`] checks the addresses of a name.
    pub(crate) fn check_url(&self, url: &Url) -> Result<(), GuardError> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(GuardError::Form);
        }
        let host = url.host_str().unwrap_or_default();
        if is_metadata_name(bare(host)) {
            return Err(GuardError::Metadata);
        }
        let (address, is_loopback) = match url.host().ok_or(GuardError::Form)? {
            Host::Domain(name) => (None, name == "localhost"),
            Host::Ipv4(ip) => (Some(IpAddr::V4(ip)), ip.is_loopback()),
            Host::Ipv6(ip) => (Some(IpAddr::V6(ip)), ip.is_loopback()),
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && self.allow_insecure_urls && is_loopback) {
            return Err(GuardError::Scheme);
        }
        if address.is_none_or(|ip| self.allows(host, ip)) { Ok(()) } else { Err(GuardError::Address) }
    }

    /// Returns true if the client may connect to this address of the host.
    #[must_use]
    pub(crate) fn allows(&self, host: &str, ip: IpAddr) -> bool {
        let host = bare(host);
        let is_listed = self.allowed_hosts.iter().any(|allowed| bare(allowed).eq_ignore_ascii_case(host));
        let is_local = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok();
        let canonical = ip.to_canonical();
        if let IpAddr::V6(translated) = canonical {
            if let Some(inside) = inside_nat64(translated, &[NAT64]) {
                // Translators refuse others under this prefix (RFC 6052 §3.1).
                return is_public(inside.into());
            }
            if let Some(inside) = inside_nat64(translated, &self.nat64_prefixes) {
                // A loopback address inside would be the translator itself.
                let is_never_allowed = inside.is_loopback() || is_never_allowed(inside.into());
                return !is_never_allowed && (is_public(inside.into()) || is_listed);
            }
        }
        if canonical.is_loopback() {
            self.allow_insecure_urls && (is_listed || is_local)
        } else if is_never_allowed(canonical) {
            false
        } else {
            is_public(ip) || is_listed
        }
    }
}

/// Returns a host without the brackets of an IPv6 address and the dot of a root.
pub(crate) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.')
}

/// Resolves a name to addresses.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|host| async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }.boxed())
}

/// Resolves a name once per connection and returns only allowed addresses, so that the client connects to an address that
/// was checked.
pub(super) struct Resolver {
    pub(super) guard: Guard,
    /// Host of the configured proxy, which may have any address. All connections go to it.
    pub(super) proxy: Option<String>,
    pub(super) lookup: Lookup,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, host) = (self.guard.clone(), name.as_str().to_owned());
        let is_proxy = self.proxy.as_ref().is_some_and(|proxy| bare(proxy).eq_ignore_ascii_case(bare(&host)));
        let found = (self.lookup)(host.clone());
        Box::pin(async move {
            let mut found = found.await?;
            found.retain(|address| is_proxy || guard.allows(&host, address.ip()));
            if found.is_empty() {
                return Err(GuardError::Address.into());
            }
            Ok::<Addrs, _>(Box::new(found.into_iter()))
        })
    }
}

#[cfg(test)]
mod tests;
