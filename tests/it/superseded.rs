//! Logins whose record another command replaces or prevents: no grant stays alive that no connection has.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::sync::watch;

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, eventually};
use crate::provider::{Provider, Received, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::world::World;

fn revoked(received: Vec<Received>) -> Vec<String> {
    let revocations = received.into_iter().filter(|received| received.path == "/revoke");
    let mut tokens: Vec<_> = revocations.filter_map(|received| received.form().remove("token")).collect();
    tokens.sort();
    tokens
}

#[tokio::test]
async fn h13_a_login_superseded_by_a_deletion_leaves_no_grant_alive() {
    let (deleted, is_deleted) = watch::channel(false);
    let script = move |number, received: &Received| {
        let is_late = received.form().get("code").is_some_and(|code| code == "late");
        if is_late { Scripted::tokens(number).once(&is_deleted) } else { Scripted::tokens(number) }
    };
    let world = World::with(Provider::start(script).await).await;
    let mut config = world.config();
    config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);

    let late = world.login("w").await;
    let callback = world.callback(&[("code", "late"), ("state", &late.state)]);
    let delete = async {
        eventually("the provider has the code", async || world.provider.received().len() == 2).await;
        let answer = world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/w")).await;
        deleted.send_replace(true);
        answer.0
    };
    let ((status, body), deletion) = tokio::join!(world.tokenbus.arrive(&callback), delete);
    assert_eq!((status, deletion), (StatusCode::BAD_REQUEST, StatusCode::OK), "{body}");
    assert_eq!(world.read("w").await.0, StatusCode::NOT_FOUND);
    assert_eq!(revoked(world.provider.received()), ["at-0", "at-1", "rt-0", "rt-1"]);
    let failed = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    assert_eq!(failed[0]["reason"], "superseded");
}

/// A refresh brings tokens of the same grant after a deletion that leaves the grant alone.
#[tokio::test]
async fn h13_a_refresh_after_a_deletion_that_keeps_the_grant_revokes_nothing() {
    let (deleted, is_deleted) = watch::channel(false);
    let script = move |number, received: &Received| {
        let is_refresh = received.form().contains_key("refresh_token");
        if is_refresh { Scripted::tokens(number).once(&is_deleted) } else { Scripted::tokens(number) }
    };
    let world = World::with_settings(Provider::start(script).await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let mut config = world.config();
    config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);

    let path = format!("{INTEGRATION}/oauth-refresh-token/w");
    let refresh = world.tokenbus.call(Method::GET, &path);
    let delete = async {
        eventually("the provider has the refresh token", async || world.provider.received().len() == 2).await;
        let path = format!("{INTEGRATION}/oauth-connections/w?revoke=false");
        let answer = world.tokenbus.call(Method::DELETE, &path).await;
        deleted.send_replace(true);
        answer.0
    };
    let ((status, body), deletion) = tokio::join!(refresh, delete);
    assert_eq!((status, deletion), (StatusCode::NOT_FOUND, StatusCode::OK), "{body}");
    assert_eq!(revoked(world.provider.received()), [""; 0]);
}

/// A worker dies after it has written a login's record, and a refresh replaces that record before the login's command is
/// delivered again: the connection is the login's, so the login has succeeded.
#[tokio::test]
async fn h13_a_login_whose_record_a_refresh_has_replaced_has_succeeded() {
    let provider = Provider::generous().await;
    let (mut fleet, mut first) = Fleet::configured(&provider.url).await;
    first.kill().await;
    // A refresh leaves a record alone that is younger than this.
    fleet.settings.insert("TOKENBUS_REFRESH__MIN_INTERVAL".to_owned(), "1ms".to_owned());
    let mut doomed = fleet.worker_dying_at("exchange_4_record_written").await;
    let state = fleet.login("w").await;
    let takeover = async {
        doomed.ended().await;
        let record = fleet.record(&Fleet::path("w")).await.0.expect("the worker has written it");
        Bus::of(&fleet.nats).await.due_for("w", &json!(record)).await;
        (record, fleet.worker().await)
    };
    let ((status, body), (record, _second)) = tokio::join!(fleet.arrive(&state, "code"), takeover);
    fleet.idle().await;
    let (newest, _) = fleet.record(&format!("{ACCOUNT}.{INTEGRATION}.w")).await;
    assert!(newest > Some(record), "the refresh came first");
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("active")), "{body}");
    let events = fleet.events().await;
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("connected"), count("exchange_failed")), (1, 0), "{events:?}");
}
