//! Causes that delay a refresh, and its recovery: lost schedules, full queues, absent buses and configs, providers
//! that are down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::bus::Bus;
use crate::provider::{Provider, Received, Scripted};
use crate::support::child::signal;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World, parameter};

/// A token answer with a lifetime of so many seconds.
fn tokens(number: usize, seconds: i64) -> Scripted {
    let body = json!({ "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"), "expires_in": seconds });
    Scripted::json(200, &body)
}

fn is_refresh(received: &Received) -> bool {
    received.form().get("grant_type").is_some_and(|grant| grant == "refresh_token")
}

async fn connect(world: &World) {
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
}

async fn read(world: &World, query: &str) -> (StatusCode, Value) {
    world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/w{query}")).await
}

async fn configure(world: &World, method: Method) -> StatusCode {
    let path = format!("hub/integrations/{INTEGRATION}/oauth-config");
    let request = world.tokenbus.request(method, &path).header("x-api-key", &world.tokenbus.admin_key);
    request.json(&world.config()).send().await.expect("tokenbus answers").status()
}

#[tokio::test]
async fn a_connection_whose_config_is_deleted_stays_readable_and_refreshes_once_the_config_is_back() {
    // A refresh that is due sooner than this interval after the record would be put off.
    let settings = [("REFRESH__MIN_INTERVAL", "1ms")];
    let world = World::with_settings(Provider::start(|number, _| tokens(number, 3600)).await, &settings).await;
    connect(&world).await;
    assert_eq!(configure(&world, Method::DELETE).await, StatusCode::OK);
    let (status, body) = read(&world, "").await;
    assert_eq!(
        (status, &body["status"], &body["status_reason"]),
        (StatusCode::OK, &json!("active"), &json!("no_config"))
    );
    assert_eq!(body["access_token"], "at-0");
    let list = world.tokenbus.call(Method::GET, "oauth-connections").await.1;
    assert_eq!(list["results"][0]["status_reason"], "no_config", "{list}");

    let bus = Bus::of(&world.tokenbus.nats).await;
    bus.due("w").await;
    eventually("the refresh pauses", async || !bus.events("refresh_failed").await.is_empty()).await;
    assert_eq!(bus.events("refresh_failed").await[0]["reason"], "no_config");
    let expired = Some(tokenbus::internals::system::now());
    bus.change("w", &world.tokenbus.keys_file(), |stored| stored.connection.expiry = expired).await;
    assert_eq!(read(&world, "").await.1.get("access_token"), None, "the token has ended");
    assert_eq!(world.provider.received().len(), 1, "the provider gets no request meanwhile");

    assert_eq!(configure(&world, Method::PUT).await, StatusCode::OK);
    eventually("the token is refreshed at once", async || world.provider.received().len() > 1).await;
    eventually("the connection has no failure any more", async || {
        read(&world, "").await.1.get("status_reason").is_none()
    })
    .await;
    assert!(read(&world, "").await.1["access_token"].is_string());
}

#[tokio::test]
async fn min_valid_has_a_default_setting_and_each_read_may_ask_for_more() {
    let provider = Provider::start(|number, _| tokens(number, 3600)).await;
    let world =
        World::with_settings(provider, &[("REFRESH__MIN_VALID", "50m"), ("REFRESH__MIN_INTERVAL", "900ms")]).await;
    connect(&world).await;
    // At most half the lifetime counts; otherwise each read would cause a refresh.
    assert_eq!(read(&world, "").await.1["access_token"], "at-0");
    assert_eq!(read(&world, "?min_valid=3500").await.1["access_token"], "at-0");
    eventually("a read with a longer min_valid refreshes the token", async || {
        read(&world, "?min_valid=3599").await.1["access_token"] == "at-1"
    })
    .await;
}

/// A waiting caller gets an error before the gateway's own timeout, and a reader gets the still valid token.
#[tokio::test]
async fn d5_a_slow_refresh_is_504_and_reads_return_the_old_token() {
    let slow = |number, received: &Received| {
        tokens(number, 3600).after(Duration::from_secs(if is_refresh(received) { 9 } else { 0 }))
    };
    let world = World::with_settings(Provider::start(slow).await, &[("HTTP__DEADLINE", "3s")]).await;
    connect(&world).await;
    Bus::of(&world.tokenbus.nats).await.age("w", &world.tokenbus.keys_file()).await;
    let path = format!("{INTEGRATION}/oauth-refresh-token/w");
    let refresh = world.tokenbus.call(Method::GET, &path);
    let ((refreshed, said), (read, token)) = tokio::join!(refresh, read(&world, "?min_valid=3599"));
    assert_eq!(refreshed, StatusCode::GATEWAY_TIMEOUT, "{said}");
    assert_eq!((read, &token["access_token"]), (StatusCode::OK, &json!("at-0")), "{token}");
}

#[tokio::test]
async fn d6_no_refresh_starts_while_nats_is_down() {
    let world = World::with(Provider::start(|number, _| tokens(number, 6)).await).await;
    loop {
        let began = Instant::now();
        connect(&world).await;
        signal(world.tokenbus.nats.pid(), "STOP");
        // Before the due time. A busy machine may miss it, so the test tries again.
        if began.elapsed() < Duration::from_millis(1_500) {
            break;
        }
        signal(world.tokenbus.nats.pid(), "CONT");
    }
    let before = world.provider.received().len();
    // After its due time and after the expiry.
    sleep(Duration::from_secs(7)).await;
    assert_eq!(world.provider.received().len(), before);
    signal(world.tokenbus.nats.pid(), "CONT");
    eventually("the token is refreshed afterwards", async || world.provider.received().len() > before).await;
}

#[tokio::test]
async fn d9_a_refresh_refused_by_a_full_queue_is_queued_once_it_has_room() {
    let world = World::with(Provider::start(|number, _| tokens(number, 3600)).await).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    connect(&world).await;
    let is_idle = async || bus.info("OAUTH_COMMANDS").await.state.messages == 0;
    eventually("the login is acknowledged", is_idle).await;
    bus.limit(&world.tokenbus.nats, "OAUTH_COMMANDS", 1).await;
    let other = format!("ms.integration.oauth.config.{INTEGRATION}.{ACCOUNT}.none");
    bus.fill("OAUTH_COMMANDS", &other.replace("config", "x").replace("none", "other")).await;
    bus.due("w").await;
    eventually("the queue rejects the due refresh", async || {
        world.tokenbus.log().contains("cannot queue a due refresh")
    })
    .await;
    assert_eq!(world.provider.received().len(), 1);
    bus.limit(&world.tokenbus.nats, "OAUTH_COMMANDS", -1).await;
    eventually("the token is refreshed", async || world.provider.received().len() > 1).await;
}

#[tokio::test]
async fn d9_an_abandoned_refresh_is_scheduled_again_and_has_an_event() {
    let provider = Provider::start(|number, _| tokens(number, 3600)).await;
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    connect(&world).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    // A command that no worker can read.
    bus.spoil("w").await;
    bus.due("w").await;
    eventually("the refresh is given up", async || !bus.events("refresh_failed").await.is_empty()).await;
    assert_eq!(bus.events("refresh_failed").await[0]["reason"], "given_up");
    assert_eq!(bus.info("OAUTH_SCHEDULE").await.state.messages, 1, "there is a new schedule");
    eventually("the queue is empty again", async || bus.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    assert_eq!(world.provider.received().len(), 1);
    // The person logs in again; then the refresh can be sent again.
    connect(&world).await;
    let listed = world.tokenbus.tool(&["dead", "list", "--json"]).await;
    let letter: Value = serde_json::from_str(listed.lines().next().expect("a letter")).expect("JSON");
    let said = world.tokenbus.tool(&["dead", "retry", &letter["number"].to_string()]).await;
    assert!(said.contains("sent again"), "{said}");
    eventually("the refresh is done", async || !bus.events("refreshed").await.is_empty()).await;
    assert_eq!(bus.events("refreshed").await[0]["actor"], "cli");
    assert!(world.tokenbus.tool(&["dead", "list"]).await.contains("no dead letters"));
}

#[tokio::test]
async fn d9_the_repair_pass_removes_an_entry_that_a_late_write_restored() {
    let provider = Provider::start(|number, _| tokens(number, 3600)).await;
    let world = World::with_settings(provider, &[("REFRESH__REPAIR_INTERVAL", "1s")]).await;
    connect(&world).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let key = format!("$KV.oauth_connections.{ACCOUNT}.{INTEGRATION}.w");
    let stored = bus.messages("KV_oauth_connections").await.pop().expect("the entry");
    let path = format!("{INTEGRATION}/oauth-connections/w");
    assert_eq!(world.tokenbus.call(Method::DELETE, &path).await.0, StatusCode::OK);
    let is_deleted = async || {
        let entry = bus.last("KV_oauth_connections", &key).await.expect("an entry or a marker");
        entry.headers.get("KV-Operation").is_some()
    };
    assert!(is_deleted().await, "a marker is left of it");
    assert_eq!(bus.info("OAUTH_SCHEDULE").await.state.messages, 0);
    bus.client.request(key.clone(), stored.payload).await.expect("stored");
    eventually("the entry is deleted again", is_deleted).await;
    assert_eq!(read(&world, "").await.0, StatusCode::NOT_FOUND);
}

/// A worker with a fast clock has recorded a pass in the future.
#[tokio::test]
async fn d9_a_repair_pass_recorded_in_the_future_does_not_prevent_the_next() {
    let provider = Provider::start(|number, _| tokens(number, 3600)).await;
    let world = World::with_settings(provider, &[("REFRESH__REPAIR_INTERVAL", "1s")]).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let mark = json!({ "begun": "2999-01-01T00:00:00Z" }).to_string();
    bus.client.request("$KV.oauth_meta.repair", mark.into()).await.expect("stored");
    connect(&world).await;
    bus.purge("OAUTH_SCHEDULE", ">").await;
    eventually("the connection has a schedule again", async || bus.info("OAUTH_SCHEDULE").await.state.messages == 1)
        .await;
}

#[tokio::test]
async fn d5_a_provider_that_is_down_does_not_delay_another() {
    let (waiting, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let dead = Provider::start({
        let most = Arc::clone(&most);
        move |number, received| {
            if !is_refresh(received) {
                return tokens(number, 24);
            }
            most.fetch_max(waiting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let waiting = Arc::clone(&waiting);
            // Well within the time of a request to a provider, so the counted requests are still running.
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(5));
                waiting.fetch_sub(1, Ordering::SeqCst);
            });
            tokens(number, 24).after(Duration::from_mins(1))
        }
    })
    .await;
    let good = Provider::start(|number, received| tokens(number, if is_refresh(received) { 3600 } else { 24 })).await;
    let settings = [("WORKER__CONCURRENCY", "4"), ("REFRESH__CONCURRENCY", "2")];
    let world = World::with_settings(dead, &settings).await;
    let mut config = world.config();
    config["integration_id"] = json!("good");
    config["token_url"] = json!(format!("{}/token", good.url));
    world.tokenbus.configure(&config).await;
    for number in 0..16 {
        assert_eq!(world.connect(&format!("d{number}")).await.0, StatusCode::OK);
    }
    for number in 0..4 {
        let state = parameter(&world.tokenbus.login("good", &format!("g{number}")).await, "state");
        let callback = world.callback(&[("code", "c"), ("state", &state)]);
        assert_eq!(world.tokenbus.arrive(&callback).await.0, StatusCode::OK);
    }
    eventually("the tokens of the working provider are refreshed", async || good.received().len() == 8).await;
    let received = world.provider.received().iter().filter(|received| is_refresh(received)).count();
    assert!(received < 16, "the dead one's are not all through yet: {received}");
    assert!(most.load(Ordering::SeqCst) <= 2, "two at once, not {}", most.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_refresh_uses_the_configured_refresh_url_and_parameters() {
    let provider = Provider::start(|number, _| tokens(number, 3600)).await;
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let mut config = world.config();
    config["refresh_url"] = format!("{}/renew", world.provider.url).into();
    (config["token_params"], config["refresh_params"]) = (json!({ "once": "a" }), json!({ "again": "b" }));
    world.tokenbus.configure(&config).await;
    connect(&world).await;
    let path = format!("{INTEGRATION}/oauth-refresh-token/w");
    assert_eq!(world.tokenbus.call(Method::GET, &path).await.0, StatusCode::OK);
    let received = world.provider.received();
    let seen = received.iter().map(|received| {
        let form = received.form();
        (received.path.clone(), form.get("once").cloned(), form.get("again").cloned(), is_refresh(received))
    });
    let a = |text: &str| Some(text.to_owned());
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [("/token".to_owned(), a("a"), None, false), ("/renew".to_owned(), None, a("b"), true)]
    );
}
