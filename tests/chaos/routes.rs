//! The routes between the servers of a cluster: a link for each direction in which one of them dials another.

use std::time::Duration;

use crate::deployment::Deployment;
use crate::faults::{Fault, Step};
use crate::links::{Cut, Links};
use crate::provider_log::ProviderLog;
use crate::support::nats::Nodes;
use crate::support::wait::eventually;

/// Routes of three servers; they end when dropped.
pub(crate) struct Routes {
    /// With the numbers of the server that dials and of the server that it dials.
    links: Vec<(usize, usize, Links)>,
}

impl Routes {
    /// Links between servers on these ports, and the servers' settings with them.
    pub(crate) async fn between(clients: [u16; 3], routes: [u16; 3]) -> (Self, Nodes) {
        let (mut links, mut peers) = (Vec::new(), [(); 3].map(|()| Vec::new()));
        for (from, peers) in peers.iter_mut().enumerate() {
            for (to, port) in routes.into_iter().enumerate().filter(|(to, _)| *to != from) {
                let link = Links::to(&format!("127.0.0.1:{port}")).await;
                peers.push(link.urls.clone());
                links.push((from, to, link));
            }
        }
        (Self { links }, Nodes { clients, routes, peers: peers.map(|peers| peers.join(",")) })
    }

    /// Cuts all routes of that server. [`Cut::ToServer`] lets nothing reach it, [`Cut::ToProcess`] lets nothing leave it.
    pub(crate) fn set(&self, server: usize, cut: Cut) {
        let as_seen_from_it = match cut {
            Cut::ToServer => Cut::ToProcess,
            Cut::ToProcess => Cut::ToServer,
            Cut::Whole | Cut::Closed | Cut::Silent => cut,
        };
        for (from, to, link) in &self.links {
            if *to == server {
                link.set(cut);
            } else if *from == server {
                link.set(as_seen_from_it);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_another_leader_when_the_routes_of_its_leader_are_cut() {
    let (provider_log, _provider) = ProviderLog::open().await;
    let mut deployment = Deployment::start_cluster(provider_log).await;
    for cut in [Cut::Closed, Cut::Silent, Cut::ToProcess] {
        deployment.idle().await;
        let leader = deployment.leader_of("OAUTH").await.expect("the stream has a leader");
        let step = |is_begin| Step { at: Duration::ZERO, fault: Fault::CutServer(leader, cut), is_begin };
        deployment.apply(&step(true)).await;
        eventually("another server leads the stream", async || {
            deployment.leader_of("OAUTH").await.is_some_and(|new| new != leader)
        })
        .await;
        deployment.apply(&step(false)).await;
    }
}
