//! TLS or plaintext: which servers a process may use.

use std::net::IpAddr;
use std::path::Path;

use async_nats::ServerAddr;

use super::ConnectError;
use crate::config;

/// Servers and encryption that the settings allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jetstream) enum Transport {
    /// TLS to all servers, also to those that a cluster adds: they are named without a scheme.
    Tls,
    /// Only the servers in the settings. One that a cluster adds may be beyond loopback.
    Listed,
    /// TLS where a scheme or a server demands it.
    Any,
}

/// Judges the settings alone: a machine in the middle could take TLS out of the server's INFO.
///
/// # Errors
/// If a server beyond loopback would be used without TLS, and `nats.allow_plaintext` is not set.
pub(in crate::jetstream) fn transport(settings: &config::Nats, servers: &[String]) -> Result<Transport, ConnectError> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    // The client reports an address that it cannot parse.
    let addresses = || servers.iter().filter_map(|server| server.parse::<ServerAddr>().ok());
    let has_certificates = given(&settings.ca) || given(&settings.client_cert);
    if has_certificates || addresses().all(|address| address.tls_required()) {
        return Ok(Transport::Tls);
    }
    if settings.allow_plaintext {
        return Ok(Transport::Any);
    }
    match addresses().find(|address| !address.tls_required() && !is_loopback(address.host())) {
        Some(address) => Err(ConnectError::Plaintext { server: format!("{}:{}", address.host(), address.port()) }),
        None => Ok(Transport::Listed),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}
