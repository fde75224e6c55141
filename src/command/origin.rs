//! The origin of a request, as the gateway saw it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Travels with each call and each command. Workers believe the gateway: a key's networks and the addresses in events are
/// as true as the gateways are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The client's address, after trusted proxies. `None` for the command line and for nodes on the bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<IpAddr>,
    /// The request's id in the gateway's log and in the answer's `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}
