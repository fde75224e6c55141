//! The nodes' side of the bus with another client library, nats-py.

use reqwest::StatusCode;
use std::time::Duration;
use tokio::time::{sleep, timeout};

use crate::parts::install;
use crate::parts::world::{CONNECTION, INTEGRATION, World};
use crate::support::child::Running;
use crate::support::root;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::PATIENCE;

/// Refreshes once the token is old enough and returns the new sequence.
async fn refresh(world: &World, before: u64) -> u64 {
    let wait = async {
        loop {
            let path = format!("{INTEGRATION}/oauth-refresh-token/{CONNECTION}");
            let (status, body) = world.tokenbus.call(reqwest::Method::GET, &path).await;
            // A bus that has just restarted may need a moment.
            assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{body}");
            match body["sequence"].as_u64() {
                Some(sequence) if sequence > before => return sequence,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never refreshed: {}", world.tokenbus.log()))
}

fn sequence(line: &str) -> Option<u64> {
    let (sequence, rest) = line.strip_prefix("sequence ")?.split_once(": ")?;
    rest.starts_with("active, a token of ").then(|| sequence.parse().ok())?
}

#[tokio::test]
async fn the_python_example_prints_the_current_token_and_each_new_one() {
    let Some(python) = install::python() else { return };
    let mut world = World::start().await;
    let connection = world.connect(CONNECTION).await;
    let first = connection["sequence"].as_u64().expect("a stored connection");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut node = Running::start(python, &folder.path().join("log"), |command| {
        command.arg(root().join("examples/node.py")).args([ACCOUNT, INTEGRATION, CONNECTION]);
        let nats = &world.tokenbus.nats;
        command.env("NATS_URL", &nats.url).env("NATS_USER", "demo").env("NATS_PASSWORD", nats.password("demo"));
    });
    assert_eq!(node.line(sequence).await, first);
    let second = refresh(&world, first).await;
    assert_eq!(node.line(sequence).await, second);
    // The subscription survives the restart of the bus.
    world.tokenbus.nats.kill().await;
    world.tokenbus.nats.restart_once_killed().await;
    world.tokenbus.ready().await;
    let third = refresh(&world, second).await;
    assert_eq!(node.line(sequence).await, third);
}
