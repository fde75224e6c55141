//! The shipped configuration of three nodes: all data has three replicas, and one node may die.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::ask::ask;
use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::nats::{Nats, binary};
use crate::support::root;
use crate::support::tokenbus::{PROGRAM, Tokenbus};
use crate::support::wait::{PATIENCE, eventually};
use crate::world::World;

/// Free ports from this one on, below the range from which the system assigns ports to other tests.
fn free_ports<const N: usize>(from: u16) -> [u16; N] {
    let mut free = (from..).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    std::array::from_fn(|_| free.next().expect("a free port"))
}

/// Ports for clients and for routes, so many after those of the first test.
pub(crate) fn cluster_ports(offset: u16) -> ([u16; 3], [u16; 3]) {
    // Another run on this machine uses other ports.
    let from = offset + 10_000 + u16::try_from(std::process::id() % 10_000).expect("a small number");
    (free_ports(from), free_ports(from + 100))
}

/// A cluster whose ports begin so many after those of the first test.
async fn world(offset: u16) -> World {
    let (clients, routes) = cluster_ports(offset);
    started_on(Nats::cluster(clients, routes).await, Provider::generous().await, &[]).await
}

/// Waits until the cluster has a leader, and starts the program on it.
pub(crate) async fn started_on(nats: Nats, provider: Provider, more: &[(&str, &str)]) -> World {
    let agreed = async {
        let jetstream = jetstream::new(nats.connect("worker").await);
        while jetstream.query_account().await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, agreed).await.expect("the cluster agrees on a leader");
    let settings: Vec<_> = more.iter().copied().chain([("NATS__REPLICAS", "3")]).collect();
    let world = World { tokenbus: Tokenbus::start_on(nats, &settings).await, provider };
    world.tokenbus.configure(&world.config()).await;
    world
}

#[tokio::test]
async fn a_cluster_stores_three_replicas_and_continues_without_one_node() {
    let mut world = world(0).await;
    assert_eq!(world.tokenbus.nats.others(), 2);
    assert_eq!(world.connect("kept").await.0, StatusCode::OK);
    let kept = world.read("kept").await;
    for stream in ["OAUTH", "OAUTH_COMMANDS", "KV_oauth_connections"] {
        assert_eq!(Bus::of(&world.tokenbus.nats).await.info(stream).await.config.num_replicas, 3, "{stream}");
    }

    world.tokenbus.nats.kill().await;
    let goes_on = async {
        // Any replica may answer a list; the current leader answers a read.
        while world.tokenbus.get("oauth-connections").await != StatusCode::OK || world.read("kept").await != kept {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, goes_on).await.expect("the other two go on");
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
    let codes = world.provider.received().iter().map(|received| received.form()["code"].clone()).collect::<Vec<_>>();
    assert!(codes.len() >= 2, "{}", json!(codes));
}

#[tokio::test]
async fn h4_without_a_majority_callers_get_503_and_the_gateway_is_not_ready() {
    let mut world = world(200).await;
    assert_eq!(world.connect("kept").await.0, StatusCode::OK);
    world.tokenbus.nats.kill().await;
    world.tokenbus.nats.kill_another().await;
    let readiness = || world.tokenbus.request(reqwest::Method::GET, "readyz");
    eventually("the gateway is not ready", async || ask(readiness()).await.status == 503).await;
    let path = format!("hub/integrations/{}/oauth-token/kept", crate::world::INTEGRATION);
    let read = || world.tokenbus.request(reqwest::Method::GET, &path).header("x-api-key", &world.tokenbus.key);
    eventually("reads are refused", async || ask(read()).await.status != 200).await;
    // Each takes as long as a call waits for an election.
    for _ in 0..3 {
        let answer = ask(read()).await;
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
        assert_eq!(ask(readiness()).await.status, 503, "it stays so");
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn the_demo_holds_on_a_cluster_with_three_workers_and_two_gateways() {
    let mut demo = tokio::process::Command::new(PROGRAM);
    demo.args(["demo", "--nats-server", binary(), "--cluster"]).arg(root().join("nats/cluster"));
    let output = demo.current_dir(root()).kill_on_drop(true).output().await.expect("the program runs");
    let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}{errors}");
    for process in ["nats-server-3", "worker-3", "edge-2", "Every step held"] {
        assert!(shown.contains(process), "{process} in {shown}");
    }
}

/// A configuration with its included files.
fn whole(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines =
        text.lines().map(|line| match line.strip_prefix("include \"").and_then(|rest| rest.strip_suffix('"')) {
            Some(file) => whole(&path.parent().expect("a file is in a folder").join(file)),
            None => line.split('#').next().unwrap_or_default().trim().to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn e3_every_shipped_configuration_encrypts_what_it_stores() {
    let folders = ["nats", "nats/cluster"].map(|folder| std::fs::read_dir(root().join(folder)).expect("a folder"));
    let files = folders.into_iter().flatten().map(|entry| entry.expect("a file").path());
    let servers: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "conf")).collect();
    let servers: Vec<_> = servers.iter().map(|path| (path, whole(path))).collect();
    // A file with a port starts a server; servers include the other files.
    let servers: Vec<_> =
        servers.iter().filter(|(_, text)| text.lines().any(|line| line.starts_with("port:"))).collect();
    assert_eq!(servers.len(), 4, "local.conf and three nodes");
    for (path, text) in servers {
        let lines: Vec<&str> = text.lines().collect();
        for line in ["jetstream {", "cipher: chachapoly", "key: $NATS_JETSTREAM_KEY", "sync_interval: always"] {
            assert_eq!(lines.iter().filter(|it| **it == line).count(), 1, "{}: {line}", path.display());
        }
    }
}
