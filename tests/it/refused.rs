//! A server that refuses writes for a while: no token is lost, and no record stays without its KV entry, schedule and
//! event.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use tokio::time::sleep;

use crate::bus::{Bus, Limit};
use crate::provider::{Provider, Received, Scripted};
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World};

/// Streams that a refresh and a login write, and how long they refuse.
const REFUSALS: [(&str, Limit, u64); 8] = [
    ("OAUTH", Limit::Size, 100),
    ("OAUTH", Limit::Size, 1_500),
    ("OAUTH", Limit::Size, 20_000),
    ("OAUTH", Limit::Messages, 3_000),
    ("OAUTH", Limit::Bytes, 3_000),
    ("KV_oauth_connections", Limit::Size, 3_000),
    ("KV_oauth_connections", Limit::Size, 20_000),
    ("OAUTH_EVENTS", Limit::Size, 3_000),
];

async fn refused_during(step: Step, (stream, limit, milliseconds): (&'static str, Limit, u64)) {
    let case = format!("{step:?}: {stream} refuses by {limit:?} for {milliseconds} ms");
    let provider = Provider::start(move |number, received: &Received| match received.path.as_str() {
        "/revoke" => Scripted::new(200, "text/plain", ""),
        _ => Scripted::tokens(number).after(Duration::from_millis(300)),
    });
    let world = World::with_settings(provider.await, &[("REFRESH__MIN_INTERVAL", "1m")]).await;
    let mut config = world.config();
    config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
    world.tokenbus.configure(&config).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let requests = || world.provider.received().iter().filter(|received| received.path == "/token").count();
    if step == Step::Refresh {
        assert_eq!(world.connect("w").await.0, StatusCode::OK);
        bus.age("w", &world.tokenbus.keys_file()).await;
    }
    let sent = requests() + 1;
    let login = world.login("w").await;
    let call = async {
        if step == Step::Refresh {
            bus.due("w").await;
        } else {
            world.tokenbus.arrive(&world.callback(&[("code", "code"), ("state", &login.state)])).await;
        }
    };
    let refuse = async {
        eventually("the provider has the request", async || requests() == sent).await;
        let before = bus.refuse(&world.tokenbus.nats, stream, limit).await;
        sleep(Duration::from_millis(milliseconds)).await;
        Bus::configure(&world.tokenbus.nats, before).await;
    };
    tokio::join!(call, refuse);

    let token = format!("at-{}", sent - 1);
    let is_stored = async || world.read("w").await.1["access_token"] == token.as_str();
    eventually(&format!("the new tokens are stored; {case}"), is_stored).await;
    eventually(&format!("the command ends; {case}"), async || bus.info("OAUTH_COMMANDS").await.state.messages == 0)
        .await;
    assert_eq!(requests(), sent, "{case}");
    let event = if step == Step::Refresh { "refreshed" } else { "connected" };
    assert_eq!(bus.events(event).await.len(), 1, "{case}");
    let schedule = bus.messages("OAUTH_SCHEDULE").await;
    assert_eq!(schedule.len(), 1, "{case}");
    assert_eq!(bus.info("OAUTH_DEAD").await.state.messages, 0, "{case}");
    let deleted = world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/w")).await;
    assert_eq!(deleted.0, StatusCode::OK, "{case}: {}", deleted.1);
    assert!(world.provider.received().iter().any(|received| received.form().get("token") == Some(&token)), "{case}");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Exchange,
    Refresh,
}

#[tokio::test]
async fn h4_a_refresh_loses_nothing_while_the_server_refuses_writes() {
    join_all(REFUSALS.map(|refusal| refused_during(Step::Refresh, refusal))).await;
}

#[tokio::test]
async fn h4_a_login_loses_nothing_while_the_server_refuses_writes() {
    join_all(REFUSALS.map(|refusal| refused_during(Step::Exchange, refusal))).await;
}
