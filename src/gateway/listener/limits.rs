//! The limits of a listener, with their defaults.

use std::time::Duration;

use ipnet::IpNet;

use crate::gateway::listener::rate_limits::Rate;

/// The limits of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Open connections. More wait in the operating system's backlog.
    pub connections: usize,
    /// Open connections of one client network. More are closed at once. Trusted proxies have no limit; 0 sets none. From three
    /// quarters on, connections of the network are closed after [`Limits::header_timeout`] without a request.
    pub connections_per_address: usize,
    /// Longest time for the head of the first request to arrive, TLS handshake included, and for each further head from its
    /// first byte.
    pub header_timeout: Duration,
    /// Longest time for a connection without a running request. While no further connection can be accepted, it is
    /// [`Limits::header_timeout`].
    pub idle_timeout: Duration,
    /// Longest time for a body to arrive, from the beginning of the request.
    pub body_timeout: Duration,
    /// Longest time for the whole answer. Must exceed the backend's deadline for commands.
    pub request_timeout: Duration,
    /// Bytes of all headers together.
    pub headers: usize,
    /// Bytes of path and query.
    pub uri: usize,
    /// Bytes of a body.
    pub body: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Requests of one client network.
    pub address_rate: Rate,
    /// Requests with one credential.
    pub credential_rate: Rate,
    /// Proxies whose headers name the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// True if the trusted proxies send the PROXY protocol.
    pub proxy_protocol: bool,
    /// Longest wait for running requests at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 256,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(620),
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            headers: 64 * 1024,
            // Room for a code, a scope and an ignored parameter of 16 KiB each.
            uri: 56 * 1024,
            body: 64 * 1024,
            streams: 64,
            address_rate: Rate { per_second: 200, burst: 1000 },
            credential_rate: Rate { per_second: 100, burst: 500 },
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            drain: Duration::from_secs(25),
        }
    }
}
