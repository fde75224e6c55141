//! A token endpoint that rotates at once and answers late: its tokens exist nowhere else.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::bus::Bus;
use crate::fleet::Fleet;
use crate::provider::{Provider, Received, Scripted};
use crate::support::child::signal;
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World};

fn is_refresh(received: &Received) -> bool {
    received.form()["grant_type"] == "refresh_token"
}

/// The provider spends the refresh token when it receives it, and answers 11 s later.
#[tokio::test]
async fn c3_a_refresh_waits_for_a_slow_answer() {
    let script = |number, received: &Received| {
        Scripted::tokens(number).after(Duration::from_secs(if is_refresh(received) { 11 } else { 0 }))
    };
    let settings = [("REFRESH__MIN_INTERVAL", "1ms"), ("HTTP__DEADLINE", "3s")];
    let world = World::with_settings(Provider::start(script).await, &settings).await;
    assert_eq!(world.connect("one").await.0, 200);
    let (status, body) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-refresh-token/one")).await;
    assert_eq!(status.as_u16(), 504, "{body}");
    eventually("the new token is stored", async || world.read("one").await.1["access_token"] == "at-1").await;
    assert_eq!(world.provider.received().len(), 2, "the refresh token is sent once");
}

#[tokio::test]
async fn c3_the_caller_of_a_slow_login_finds_the_connection_later() {
    let script = |number, _: &Received| Scripted::tokens(number).after(Duration::from_secs(5));
    let world = World::with_settings(Provider::start(script).await, &[("HTTP__DEADLINE", "2s")]).await;
    let (status, body) = world.connect("one").await;
    assert_eq!(status.as_u16(), 504, "{body}");
    assert!(body["error"].as_str().expect("a text").contains("still running"), "{body}");
    eventually("the connection is there", async || world.read("one").await.1["access_token"] == "at-0").await;
}

/// The time of the config covers both requests of a deletion: the second one is cut off.
#[tokio::test]
async fn c3_all_requests_of_a_deletion_share_the_config_s_time() {
    let script = |number, received: &Received| match received.path.as_str() {
        "/revoke" => Scripted::json(200, &json!({})).after(Duration::from_secs(2)),
        _ => Scripted::tokens(number),
    };
    let world = World::with(Provider::start(script).await).await;
    let mut config = world.config();
    (config["revocation_url"], config["timeout"]) = (json!(format!("{}/revoke", world.provider.url)), json!(3));
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("one").await.0, 200);
    let began = Instant::now();
    let path = format!("{INTEGRATION}/oauth-connections/one");
    assert_eq!(world.tokenbus.call(Method::DELETE, &path).await.0, 200);
    assert!(began.elapsed() < Duration::from_millis(3_900), "{:?}", began.elapsed());
    assert_eq!(world.provider.received().len(), 3, "both tokens are sent");
}

/// A revocation endpoint may be slow too: it has the config's time, not the ten seconds of other requests.
#[tokio::test]
async fn c3_a_revocation_waits_for_a_slow_answer() {
    let script = |number, received: &Received| match received.path.as_str() {
        "/revoke" => Scripted::json(200, &json!({})).after(Duration::from_secs(11)),
        _ => Scripted::tokens(number),
    };
    let world = World::with_settings(Provider::start(script).await, &[("HTTP__DEADLINE", "2s")]).await;
    let mut config = world.config();
    config["revocation_url"] = json!(format!("{}/revoke", world.provider.url));
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("one").await.0, 200);
    let path = format!("{INTEGRATION}/oauth-connections/one");
    assert_eq!(world.tokenbus.call(Method::DELETE, &path).await.0, 504);
    let bus = Bus::of(&world.tokenbus.nats).await;
    eventually("the deletion has its event", async || bus.events("revoked").await.len() == 1).await;
    assert_eq!(bus.events("revoked").await[0]["reason"], "revoked_at_provider");
}

/// A worker that is told to stop while a provider has the code waits for the answer, longer than `worker.drain`.
#[tokio::test]
async fn d6_a_shutdown_waits_for_tokens_that_are_under_way() {
    let victim = Arc::new(AtomicU32::new(0));
    let provider = Provider::start({
        let victim = Arc::clone(&victim);
        move |number, _| {
            signal(victim.load(Ordering::SeqCst), "TERM");
            Scripted::tokens(number).after(Duration::from_secs(4))
        }
    })
    .await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    first.kill().await;
    let mut worker = fleet.worker_with(&[("TOKENBUS_WORKER__DRAIN", "1s")]);
    worker.ready().await;
    victim.store(worker.pid(), Ordering::SeqCst);
    let state = fleet.login("one").await;
    let ((status, body), ended): (_, ExitStatus) = tokio::join!(fleet.arrive(&state, "code"), worker.ended());
    assert!(ended.success(), "{ended}\n{}", worker.log());
    assert_eq!(status.as_u16(), 200, "{body}");
    assert_eq!(body["access_token"], "at-0", "{body}");
}
