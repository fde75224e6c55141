//! Limits the open connections of each client network.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::gateway::listener::rate_limits::network;
use crate::permits::{Permit, Permits};

/// Permits for open connections, by client network.
pub(in crate::gateway) struct Peers {
    most_per_network: usize,
    trusted: Vec<IpNet>,
    open: Arc<Permits<IpAddr>>,
}

impl Peers {
    /// 0 sets no limit. Trusted proxies have none, because they carry the connections of many clients.
    pub(in crate::gateway) fn new(most_per_network: usize, trusted: Vec<IpNet>) -> Self {
        Self {
            most_per_network: if most_per_network == 0 { usize::MAX } else { most_per_network },
            trusted,
            open: Arc::default(),
        }
    }

    /// Returns a permit for a connection, or `None` if the peer's network has all that it may have.
    pub(in crate::gateway) fn take(&self, peer: IpAddr) -> Option<Permit<IpAddr>> {
        let most = if self.is_trusted(peer) { usize::MAX } else { self.most_per_network };
        self.open.take(&network(peer.to_canonical()), most)
    }

    /// Returns true for a trusted proxy.
    pub(in crate::gateway) fn is_trusted(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|trusted| trusted.contains(&peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_a_network_has_its_permits_and_returns_them() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let peers = Peers::new(2, vec!["10.0.0.0/8".parse().unwrap()]);
        let held = ["2001:db8::1", "2001:db8::2"].map(|peer| peers.take(address(peer)).unwrap());
        assert!(peers.take(address("2001:db8::ffff:3")).is_none(), "the same /64");
        assert!(peers.take(address("2001:db8:0:1::1")).is_some(), "another /64");
        let _mapped = ["192.0.2.1", "::ffff:192.0.2.1"].map(|peer| peers.take(address(peer)).unwrap());
        assert!(peers.take(address("192.0.2.1")).is_none());
        let proxied: Vec<_> = (0..9).map(|_| peers.take(address("10.1.2.3"))).collect();
        assert!(proxied.iter().all(Option::is_some));
        drop(held);
        assert!(peers.take(address("2001:db8::3")).is_some());
        let open = Peers::new(0, Vec::new());
        let all: Vec<_> = (0..99).map(|_| open.take(address("192.0.2.1"))).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
