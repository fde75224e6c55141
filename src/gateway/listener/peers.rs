//! Limits the open connections of each client network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::gateway::listener::rate_limits::network;

/// Open connections, by client network.
pub(in crate::gateway) struct Peers {
    most_per_network: usize,
    trusted: Vec<IpNet>,
    networks: Arc<Mutex<HashMap<IpAddr, Network>>>,
}

#[derive(Debug, Default)]
struct Network {
    open: usize,
    /// True from three quarters of its connections down to half of them. The distance keeps a client from waking all
    /// connections of its network with each one that it opens.
    is_crowded: watch::Sender<bool>,
}

impl Network {
    fn set_open(&mut self, open: usize, most: usize) {
        self.open = open;
        let is_crowded = open > if *self.is_crowded.borrow() { most / 2 } else { most / 4 * 3 };
        self.is_crowded.send_if_modified(|current| std::mem::replace(current, is_crowded) != is_crowded);
    }
}

/// A permit for a connection. Dropping it returns it.
#[derive(Debug)]
pub(in crate::gateway) struct Permit {
    networks: Arc<Mutex<HashMap<IpAddr, Network>>>,
    network: IpAddr,
    most: usize,
    is_crowded: watch::Receiver<bool>,
}

impl Permit {
    /// True while the network should close idle connections.
    pub(in crate::gateway) fn is_crowded(&self) -> watch::Receiver<bool> {
        self.is_crowded.clone()
    }
}

impl Peers {
    /// 0 sets no limit. Trusted proxies have none, because they carry the connections of many clients.
    pub(in crate::gateway) fn new(most_per_network: usize, trusted: Vec<IpNet>) -> Self {
        Self {
            most_per_network: if most_per_network == 0 { usize::MAX } else { most_per_network },
            trusted,
            networks: Arc::default(),
        }
    }

    /// Returns a permit for a connection, or `None` if the peer's network has all that it may have.
    pub(in crate::gateway) fn take(&self, peer: IpAddr) -> Option<Permit> {
        let most = if self.is_trusted(peer) { usize::MAX } else { self.most_per_network };
        let address = network(peer.to_canonical());
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let network = networks.entry(address).or_default();
        if network.open >= most {
            return None;
        }
        network.set_open(network.open + 1, most);
        let is_crowded = network.is_crowded.subscribe();
        Some(Permit { networks: Arc::clone(&self.networks), network: address, most, is_crowded })
    }

    /// Returns true for a trusted proxy.
    pub(in crate::gateway) fn is_trusted(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|trusted| trusted.contains(&peer))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        match networks.get_mut(&self.network) {
            Some(network) if network.open > 1 => network.set_open(network.open - 1, self.most),
            // Entries of former clients would pile up.
            _ => drop(networks.remove(&self.network)),
        }
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
        drop(proxied);
        assert_eq!(peers.networks.lock().unwrap().len(), 1, "only of 192.0.2.1");
        let open = Peers::new(0, Vec::new());
        let all: Vec<_> = (0..99).map(|_| open.take(address("192.0.2.1"))).collect();
        assert!(all.iter().all(Option::is_some));
    }

    #[test]
    fn g3_a_network_is_crowded_from_three_quarters_down_to_half() {
        let (peers, address) = (Peers::new(8, Vec::new()), "192.0.2.1".parse().unwrap());
        let mut held: Vec<_> = (0..6).map(|_| peers.take(address).unwrap()).collect();
        let is_crowded = held[0].is_crowded();
        assert!(!*is_crowded.borrow());
        held.push(peers.take(address).unwrap());
        assert!(*is_crowded.borrow());
        held.truncate(5);
        assert!(*is_crowded.borrow());
        held.truncate(4);
        assert!(!*is_crowded.borrow());
        let other = peers.take("192.0.2.2".parse().unwrap()).unwrap();
        assert!(!*other.is_crowded().borrow());
    }
}
