//! The gateway's listener: connections, TLS, client addresses and limits.

pub(super) mod client_address;
pub(super) mod limits;
pub(super) mod peers;
pub(super) mod rate_limits;
pub(super) mod server;
pub(super) mod tls;
