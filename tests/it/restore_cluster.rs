//! A store moves from one server to a new cluster of three, and back.

use async_nats::jetstream;

use crate::backup::Store;
use crate::bus::Bus;
use crate::nats_cluster::cluster_ports;
use crate::restore::{STREAMS, compare};
use crate::support::nats::Nats;
use crate::support::wait::eventually;

#[tokio::test]
async fn a_store_moves_from_one_server_to_three_and_back() {
    let mut store = Store::filled().await;
    store.final_backup("up").await;
    let (clients, routes) = cluster_ports(1_400);
    let three = Nats::cluster(clients, routes).await;
    let setup = jetstream::new(three.connect("setup").await);
    eventually("the cluster has a leader", async || setup.query_account().await.is_ok()).await;
    store.restore(&three, "up").await;
    compare(&store.world.tokenbus.nats, &three).await;
    for stream in STREAMS {
        let replicas = Bus::of(&three).await.info(stream).await.config.num_replicas;
        assert_eq!(replicas, 3, "{stream}");
    }

    store.world.tokenbus.serve_on(three).await;
    assert_eq!(store.world.read("one").await.0, 200);
    assert_eq!(store.world.connect("three").await.0, 200);
    Bus::of(&store.world.tokenbus.nats).await.idle().await;
    store.final_backup("down").await;
    let one = Nats::start().await;
    store.restore(&one, "down").await;
    compare(&store.world.tokenbus.nats, &one).await;
    store.world.tokenbus.serve_on(one).await;
    for name in ["one", "two", "three"] {
        assert_eq!(store.world.read(name).await.0, 200, "{name}");
    }
    assert_eq!(store.world.connect("four").await.0, 200);
}
