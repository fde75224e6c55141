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

impl Origin {
    /// The part of the origin that events show: the client's address only if the settings say so.
    #[must_use]
    pub(crate) fn for_events(&self, shows_address: bool) -> Self {
        Self { client_address: self.client_address.filter(|_| shows_address), request_id: self.request_id.clone() }
    }
}
