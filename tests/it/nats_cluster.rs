//! The shipped configuration of three nodes: everything is kept three times, and one node may die.

use std::net::TcpListener;
use std::time::Duration;

use async_nats::jetstream;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::Tokenbus;
use crate::world::World;

/// How long a cluster may take to agree on a leader, and to go on without a node.
const PATIENCE: Duration = Duration::from_mins(1);

/// Ports that are free at this moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a listener has an address").port())
}

async fn world() -> World {
    let nats = Nats::cluster(free_ports(), free_ports()).await;
    let agreed = async {
        let jetstream = jetstream::new(nats.connect("worker").await);
        while jetstream.query_account().await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, agreed).await.expect("the cluster agrees on a leader");
    let tokenbus = Tokenbus::start_on(nats, &[("NATS__REPLICAS", "3")]).await;
    let world = World { tokenbus, provider: Provider::generous().await };
    world.tokenbus.configure(&world.config()).await;
    world
}

#[tokio::test]
async fn a_cluster_keeps_everything_three_times_and_goes_on_without_a_node() {
    let mut world = world().await;
    assert_eq!(world.tokenbus.nats.others(), 2);
    assert_eq!(world.connect("kept").await.0, StatusCode::OK);
    let kept = world.read("kept").await;
    for stream in ["OAUTH", "OAUTH_COMMANDS", "KV_oauth_connections"] {
        assert_eq!(Bus::of(&world.tokenbus.nats).await.info(stream).await.config.num_replicas, 3, "{stream}");
    }

    world.tokenbus.nats.kill().await;
    let goes_on = async {
        while world.tokenbus.get("oauth-connections").await != StatusCode::OK {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, goes_on).await.expect("the other two go on");
    let reads = async {
        loop {
            let read = world.read("kept").await;
            if read.0 != StatusCode::SERVICE_UNAVAILABLE {
                return read;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, reads).await.expect("each stream has a leader again"), kept);
    let goes_on = async {
        let mut logins = 0;
        loop {
            logins += 1;
            let name = format!("new{logins}");
            let path = format!("{}/oauth-login/{name}", crate::world::INTEGRATION);
            if world.tokenbus.get(&path).await == StatusCode::OK && world.connect(&name).await.0 == StatusCode::OK {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, goes_on).await.expect("logins go on");
    let codes = world.provider.asked().iter().map(|asked| asked.form()["code"].clone()).collect::<Vec<_>>();
    assert!(codes.len() >= 2, "{}", json!(codes));
}
