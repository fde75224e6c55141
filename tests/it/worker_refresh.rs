//! Refreshes: when due, on request, and not again after the provider's refusal.

use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::bus::Bus;
use crate::provider::{Provider, Received, Scripted};
use crate::support::child::signal;
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, Tokenbus};
use crate::support::wait::{PATIENCE, eventually};
use crate::world::{INTEGRATION, World};

/// A token answer that contains the number of the request, with a lifetime of so many seconds.
fn tokens(number: usize, seconds: i64) -> Scripted {
    let body = json!({ "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"), "expires_in": seconds });
    Scripted::json(200, &body)
}

fn is_refresh(received: &Received) -> bool {
    received.form().get("grant_type").is_some_and(|grant| grant == "refresh_token")
}

/// A provider that issues tokens for an hour and answers refreshes with `answer`.
async fn provider(refreshed: impl Fn(usize) -> Scripted + Send + Sync + 'static) -> Provider {
    Provider::start(move |number, received| if is_refresh(received) { refreshed(number) } else { tokens(number, 3600) })
        .await
}

/// A world with a connection that is old enough to be refreshed again. The next one stays young.
async fn connected(provider: Provider) -> World {
    connected_with(provider, &json!({})).await
}

/// The same with changes of the config.
async fn connected_with(provider: Provider, changes: &Value) -> World {
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "10m")]).await;
    let mut config = world.config();
    config.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    Bus::of(&world.tokenbus.nats).await.age("w", &world.tokenbus.keys_file()).await;
    world
}

async fn refresh(world: &World) -> (StatusCode, Value) {
    world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-refresh-token/w")).await
}

async fn pushes(world: &World) -> Subscriber {
    let tenant = world.tokenbus.nats.connect("demo").await;
    let pushes = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.*")).await.unwrap();
    Nats::flush(&tenant).await;
    pushes
}

async fn next(pushes: &mut Subscriber) -> Value {
    let message = timeout(PATIENCE, pushes.next()).await.expect("a push arrives").expect("the subscription is open");
    serde_json::from_slice(&message.payload).expect("a push is JSON")
}

#[tokio::test]
async fn d7_short_lived_tokens_are_refreshed_on_schedule_by_the_servers_clock() {
    let world = World::with(Provider::start(|number, _| tokens(number, 4)).await).await;
    let mut subscriber = pushes(&world).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    for number in 0..3 {
        let pushed = next(&mut subscriber).await;
        assert_eq!((&pushed["access_token"], &pushed["status"]), (&json!(format!("at-{number}")), &json!("active")));
        assert!(pushed.get("refresh_token").is_none(), "{pushed}");
    }
    let received = world.provider.received();
    assert!(received.len() <= 4, "half the lifetime lies between two refreshes");
    for (number, received) in received.iter().enumerate().skip(1) {
        assert_eq!(received.form()["refresh_token"], format!("rt-{}", number - 1), "the rotated one is used");
    }
    let bus = Bus::of(&world.tokenbus.nats).await;
    let refreshed = &bus.events("refreshed").await[0];
    assert_eq!((&refreshed["actor"], &refreshed["connection_id"]), (&json!("schedule"), &json!("w")));
}

#[tokio::test]
async fn d1_many_refreshes_at_once_are_one_token_request() {
    let slow = |number| tokens(number, 3600).after(Duration::from_millis(300));
    let world = connected(provider(slow).await).await;
    let answers = join_all((0..50).map(|_| refresh(&world))).await;
    for (status, body) in &answers {
        assert_eq!(
            (*status, &body["access_token"], &body["sequence"]),
            (StatusCode::OK, &json!("at-1"), &answers[0].1["sequence"])
        );
    }
    assert_eq!(world.provider.received().len(), 2, "one exchange, one refresh");
    let (_, again) = refresh(&world).await;
    assert_eq!(again["sequence"], answers[0].1["sequence"], "a young record is the answer");
}

#[tokio::test]
async fn a_refresh_token_in_a_request_must_be_the_stored_one() {
    let world = connected(provider(|number| tokens(number, 3600)).await).await;
    let path = |token: &str| format!("{INTEGRATION}/oauth-refresh-token/w?refresh_token={token}");
    let (status, body) = world.tokenbus.call(Method::GET, &path("rt-9")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(world.provider.received().len(), 1);
    let (status, body) = world.tokenbus.call(Method::GET, &path("rt-0")).await;
    assert_eq!((status, &body["refresh_token"]), (StatusCode::OK, &json!("rt-1")));
}

#[tokio::test]
async fn d2_an_absent_or_empty_refresh_token_keeps_the_old_one() {
    for kept in [json!({ "access_token": "new" }), json!({ "access_token": "new", "refresh_token": "" })] {
        let world = connected(provider(move |_| Scripted::json(200, &kept)).await).await;
        let (status, body) = refresh(&world).await;
        assert_eq!(
            (status, &body["access_token"], &body["refresh_token"]),
            (StatusCode::OK, &json!("new"), &json!("rt-0"))
        );
        assert_eq!(body["scope"], Value::Null);
    }
}

#[tokio::test]
async fn d4_invalid_grant_needs_reauthorization_and_stops_refreshes() {
    let refused = |_| Scripted::json(400, &json!({ "error": "invalid_grant", "error_description": "canary" }));
    let world = connected(provider(refused).await).await;
    let mut subscriber = pushes(&world).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    bus.advance("w", &world.tokenbus.keys_file(), 3_600).await;
    let (status, body) = refresh(&world).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
    assert_eq!(body["reason"], "invalid_grant");
    let pushed = next(&mut subscriber).await;
    assert_eq!(pushed["status"], "needs_reauthorization");
    assert!(pushed.get("access_token").is_none(), "{pushed}");

    let (status, body) = world.read("w").await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("needs_reauthorization")));
    assert_eq!((&body["access_token"], &body["refresh_token"]), (&Value::Null, &json!("rt-0")), "{body}");
    assert_eq!(refresh(&world).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.provider.received().len(), 2, "no more requests");
    assert_eq!(bus.events("needs_reauthorization").await[0]["reason"], "invalid_grant");
    assert_eq!(bus.info("OAUTH_SCHEDULE").await.state.messages, 0, "nothing is due any more");
    assert_eq!(world.connect("w").await.1["status"], "active", "a new login mends it");
}

#[tokio::test]
async fn d4_invalid_client_is_the_integrations_fault_and_keeps_the_connection() {
    let world = connected(provider(|_| Scripted::json(401, &json!({ "error": "invalid_client" }))).await).await;
    assert_eq!(refresh(&world).await.0, StatusCode::BAD_GATEWAY);
    let (_, body) = world.read("w").await;
    assert_eq!((&body["status"], &body["access_token"]), (&json!("active"), &json!("at-0")));
}

#[tokio::test]
async fn d5_a_failing_provider_is_retried_later_and_reads_return_the_old_token() {
    let world = connected(provider(|_| Scripted::new(503, "text/html", "<h1>down</h1>")).await).await;
    let answers = join_all((0..5).map(|_| refresh(&world))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::BAD_GATEWAY), "{answers:?}");
    assert_eq!(world.provider.received().len(), 2, "its failure is the answer to all who waited");
    let path = format!("{INTEGRATION}/oauth-token/w?min_valid=86400");
    let (status, body) = world.tokenbus.call(Method::GET, &path).await;
    assert_eq!((status, &body["access_token"]), (StatusCode::OK, &json!("at-0")));
    let bus = Bus::of(&world.tokenbus.nats).await;
    assert_eq!(bus.events("refresh_failed").await[0]["reason"], "provider_error");
    assert_eq!(bus.info("OAUTH_SCHEDULE").await.state.messages, 1, "it is tried again");
    // The event is published before the acknowledgement.
    let is_idle = async || bus.info("OAUTH_COMMANDS").await.state.messages == 0;
    eventually("the refresh waits in no queue", is_idle).await;
}

#[tokio::test]
async fn d8_a_refresh_only_uses_the_client_that_the_token_was_issued_to() {
    let world = connected(provider(|number| tokens(number, 3600)).await).await;
    let mut config = world.config();
    config["client_id"] = "another".into();
    world.tokenbus.configure(&config).await;
    let (status, body) = refresh(&world).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(body["reason"], "config_changed", "{body}");
    assert!(body["error"].as_str().unwrap().starts_with("the integration's config"), "{body}");
    assert_eq!(world.provider.received().len(), 1, "nothing was sent");
    let (_, body) = world.read("w").await;
    assert_eq!((&body["status"], &body["status_reason"]), (&json!("active"), &json!("config_changed")));
    assert_eq!(body["access_token"], "at-0", "nothing is lost");
}

#[tokio::test]
async fn a_read_first_refreshes_a_token_that_expires_soon() {
    let world = connected(provider(|number| tokens(number, 3600)).await).await;
    assert_eq!(world.read("w").await.1["access_token"], "at-0");
    let (_, body) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/w?min_valid=3700")).await;
    assert_eq!(body["access_token"], "at-1");
}

#[tokio::test]
async fn g1_deleting_revokes_at_the_provider_and_here_even_if_the_provider_fails() {
    for status in [200, 500] {
        let provider = Provider::start(move |number, received| match received.path.as_str() {
            "/revoke" => Scripted::new(status, "text/plain", ""),
            _ => tokens(number, 3600),
        });
        let world = World { provider: provider.await, tokenbus: Tokenbus::start(&[]).await };
        let mut config = world.config();
        config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
        world.tokenbus.configure(&config).await;
        assert_eq!(world.connect("w").await.0, StatusCode::OK);
        let mut subscriber = pushes(&world).await;
        let path = format!("{INTEGRATION}/oauth-connections/w");
        assert_eq!(world.tokenbus.call(Method::DELETE, &path).await, (StatusCode::OK, json!({ "message": "success" })));

        let revocation = world.provider.received()[1].form();
        assert_eq!((revocation["token"].as_str(), revocation["token_type_hint"].as_str()), ("rt-0", "refresh_token"));
        let received = world.provider.received();
        let second = received.get(2).map(|received| received.form()["token_type_hint"].clone());
        let expected = (status == 200).then_some("access_token");
        assert_eq!(second.as_deref(), expected, "then the access token, unless the first revocation failed");
        let pushed = next(&mut subscriber).await;
        assert_eq!((&pushed["status"], pushed.get("access_token")), (&json!("revoked"), None));
        assert_eq!(world.read("w").await.0, StatusCode::NOT_FOUND);
        assert_eq!(world.tokenbus.call(Method::GET, "oauth-connections").await.1["results_total"], 0);
        assert_eq!(world.tokenbus.call(Method::DELETE, &path).await.0, StatusCode::NOT_FOUND);
        let bus = Bus::of(&world.tokenbus.nats).await;
        bus.idle().await;
        let tries = u64::from(status != 200);
        assert_eq!(bus.info("OAUTH_SCHEDULE").await.state.messages, tries, "a failed revocation is tried again");
        let outcome = if status == 200 { "revoked_at_provider" } else { "provider_error" };
        assert_eq!(bus.events("revoked").await[0]["reason"], outcome);
        assert_eq!(world.connect("w").await.0, StatusCode::OK, "a new login begins anew");
    }
}

#[tokio::test]
async fn d9_a_lost_schedule_is_found_and_restored() {
    let provider = Provider::start(|number, _| tokens(number, 3600)).await;
    let world = World::with_settings(provider, &[("REFRESH__REPAIR_INTERVAL", "1s")]).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    let bus = Bus::of(&world.tokenbus.nats).await;
    bus.purge("OAUTH_SCHEDULE", &format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.w.refresh.at")).await;
    eventually("the repair pass sets the schedule", async || bus.info("OAUTH_SCHEDULE").await.state.messages > 0).await;
}

/// Waits until the provider has received that many requests.
async fn wait_for_requests(world: &World, times: usize) {
    eventually("the provider receives the request", async || world.provider.received().len() >= times).await;
}

#[tokio::test]
async fn d1_a_bus_outage_during_a_refresh_causes_no_second_token_request() {
    let slow = |number| tokens(number, 3600).after(Duration::from_secs(1));
    let world = connected(provider(slow).await).await;
    let away = async {
        wait_for_requests(&world, 2).await;
        signal(world.tokenbus.nats.pid(), "STOP");
        // Longer than the ack wait: the command is delivered again.
        sleep(Duration::from_secs(7)).await;
        signal(world.tokenbus.nats.pid(), "CONT");
    };
    tokio::join!(refresh(&world), away);
    let bus = Bus::of(&world.tokenbus.nats).await;
    eventually("the command ends", async || bus.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    assert_eq!(world.provider.received().len(), 2, "one exchange, one refresh");
    let (_, body) = world.read("w").await;
    assert_eq!((&body["access_token"], &body["refresh_token"]), (&json!("at-1"), &json!("rt-1")));
}

#[tokio::test]
async fn g1_deleting_during_a_refresh_leaves_no_connection() {
    let (deleted, is_deleted) = watch::channel(false);
    let provider = provider(move |number| tokens(number, 3600).once(&is_deleted)).await;
    let revocation_url = format!("{}/revoke", provider.url);
    let world = connected_with(provider, &json!({ "revocation_url": revocation_url })).await;
    let delete = async {
        wait_for_requests(&world, 2).await;
        let answer = world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/w")).await;
        deleted.send_replace(true);
        answer
    };
    let ((refreshed, body), (deleted, _)) = tokio::join!(refresh(&world), delete);
    assert_eq!((refreshed, deleted), (StatusCode::NOT_FOUND, StatusCode::OK), "{body}");
    assert_eq!(world.read("w").await.0, StatusCode::NOT_FOUND);
    let revoked = world.provider.received().into_iter().filter(|received| received.path == "/revoke");
    let mut revoked: Vec<_> = revoked.filter_map(|received| received.form().remove("token")).collect();
    revoked.sort();
    assert_eq!(revoked, ["at-0", "at-1", "rt-0", "rt-1"], "what the refresh brought ends, too");
}
