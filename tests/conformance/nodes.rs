//! The examples of workflow nodes in other languages, each with its own client library.

use reqwest::{Method, StatusCode};
use std::time::Duration;
use tokio::time::{sleep, timeout};

use crate::parts::cable::Cable;
use crate::parts::install::{self, Example};
use crate::parts::scripted_bus::{Reply, ScriptedBus};
use crate::parts::world::{CONNECTION, INTEGRATION, World};
use crate::support::child::{Running, signal};
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::{PATIENCE, eventually};

/// Starts an example that follows the test's connection, with its log in that folder.
fn start(example: &Example, url: &str, password: &str, folder: &std::path::Path) -> Running {
    Running::start(&example.program, &folder.join("log"), |command| {
        command.args(&example.script).args([ACCOUNT, INTEGRATION, CONNECTION]);
        command.env("NATS_URL", url).env("NATS_USER", "demo").env("NATS_PASSWORD", password);
        command.env("PATH", &example.path).env("HOME", folder).env("XDG_CONFIG_HOME", folder);
    })
}

/// Ends an example in the way in which it can end its own children.
async fn stop(mut node: Running) {
    signal(node.pid(), "TERM");
    node.ended().await;
}

/// Sequence and status that a line shows.
fn state(line: &str) -> Option<(u64, String)> {
    let (sequence, rest) = line.strip_prefix("sequence ")?.split_once(": ")?;
    let (status, _length) = rest.split_once(", a token of ")?;
    Some((sequence.parse().ok()?, status.to_owned()))
}

fn active(sequence: u64) -> (u64, String) {
    (sequence, "active".to_owned())
}

fn revoked(sequence: u64) -> (u64, String) {
    (sequence, "revoked".to_owned())
}

/// Refreshes once the token is old enough and returns the new sequence.
async fn refresh(world: &World, before: u64) -> u64 {
    let wait = async {
        loop {
            let path = format!("{INTEGRATION}/oauth-refresh-token/{CONNECTION}");
            let (status, body) = world.tokenbus.call(Method::GET, &path).await;
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

/// Pushes arrive, also after a restart of the bus, and missed pushes are made up for.
async fn follows(example: &Example) {
    let mut world = World::start().await;
    let connection = world.connect(CONNECTION).await;
    let first = connection["sequence"].as_u64().expect("a stored connection");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nats = &world.tokenbus.nats;
    let cable = Cable::to(&nats.url).await;
    let mut node = start(example, &cable.url, nats.password("demo"), folder.path());
    assert_eq!(node.line(state).await, active(first));
    let second = refresh(&world, first).await;
    assert_eq!(node.line(state).await, active(second), "a push");

    world.tokenbus.nats.kill().await;
    world.tokenbus.nats.restart_once_killed().await;
    world.tokenbus.ready().await;
    // After a restart of the server refreshes wait, logins do not.
    let login = async || world.connect(CONNECTION).await["sequence"].as_u64().expect("a stored connection");
    let third = login().await;
    assert_eq!(node.line(state).await, active(third), "the subscription survives a restart of the bus");

    cable.cut();
    let fourth = login().await;
    cable.join();
    assert_eq!(node.line(state).await, active(fourth), "a push that was missed");

    cable.cut();
    let path = format!("{INTEGRATION}/oauth-connections/{CONNECTION}");
    let (status, body) = world.tokenbus.call(Method::DELETE, &path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    cable.join();
    assert_eq!(node.line(state).await, revoked(fourth), "a deletion that was missed");
    let fifth = login().await;
    assert_eq!(node.line(state).await, active(fifth), "a login after the deletion");
    stop(node).await;
}

/// The node asks again when no worker answers, when it is refused, and when the token is about to expire.
async fn asks(example: &Example) {
    let mut bus = ScriptedBus::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut node = start(example, &bus.nats.url, ScriptedBus::PASSWORD, folder.path());
    let log = folder.path().join("log");
    eventually("it reports that no worker answers", async || std::fs::metadata(&log).is_ok_and(|log| log.len() > 0))
        .await;
    bus.serve().await;
    bus.answer(Reply::Refused(503)).await;
    // Before the first login a connection is unknown. A push ends the wait.
    bus.answer(Reply::Refused(404)).await;
    bus.push(10, 3).await;
    assert_eq!(node.line(state).await, active(10));
    // Near the expiry, and again after an answer that has no newer token.
    bus.answer(Reply::State { sequence: 10, seconds: 2 }).await;
    bus.answer(Reply::State { sequence: 11, seconds: 2 }).await;
    assert_eq!(node.line(state).await, active(11));
    // An older push changes nothing. A push arrives before its connection can be found.
    bus.push(9, 3600).await;
    bus.answer(Reply::Refused(404)).await;
    bus.answer(Reply::State { sequence: 12, seconds: 2 }).await;
    assert_eq!(node.line(state).await, active(12));
    bus.answer(Reply::Refused(404)).await;
    bus.answer(Reply::Refused(404)).await;
    assert_eq!(node.line(state).await, revoked(12));
    stop(node).await;
}

#[tokio::test]
async fn o21_the_python_example_follows_a_connection() {
    let Some(example) = install::python_node() else { return };
    follows(&example).await;
}

#[tokio::test]
async fn o21_the_python_example_asks_again() {
    let Some(example) = install::python_node() else { return };
    asks(&example).await;
}

#[tokio::test]
async fn o21_the_javascript_example_follows_a_connection() {
    let Some(example) = install::javascript_node() else { return };
    follows(&example).await;
}

#[tokio::test]
async fn o21_the_javascript_example_asks_again() {
    let Some(example) = install::javascript_node() else { return };
    asks(&example).await;
}

#[tokio::test]
async fn o21_the_go_example_follows_a_connection() {
    let Some(example) = install::go_node() else { return };
    follows(&example).await;
}

#[tokio::test]
async fn o21_the_go_example_asks_again() {
    let Some(example) = install::go_node() else { return };
    asks(&example).await;
}

#[tokio::test]
async fn o21_the_shell_example_follows_a_connection() {
    let Some(example) = install::shell_node() else { return };
    follows(&example).await;
}

#[tokio::test]
async fn o21_the_shell_example_asks_again() {
    let Some(example) = install::shell_node() else { return };
    asks(&example).await;
}
