//! Revocations that fail: the provider is asked again until it was told, the tries end, or a login ends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_nats::jetstream::message::StreamMessage;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::bus::Bus;
use crate::fleet::eventually;
use crate::provider::{Provider, Received, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::world::{INTEGRATION, World};

const SEALED: &str = "Oauth-Sealed-Revocation";

/// A world whose provider answers revocations with a status that the test changes.
struct Revoking {
    world: World,
    bus: Bus,
    status: Arc<AtomicU16>,
}

impl Revoking {
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::scripted(settings, |number, _| Scripted::tokens(number)).await
    }

    async fn scripted(
        settings: &[(&str, &str)],
        script: impl Fn(usize, &Received) -> Scripted + Send + Sync + 'static,
    ) -> Self {
        let status = Arc::new(AtomicU16::new(503));
        let now = Arc::clone(&status);
        let provider = Provider::start(move |number, received| match received.path.as_str() {
            "/revoke" => Scripted::new(now.load(Ordering::SeqCst), "text/plain", ""),
            _ => script(number, received),
        });
        Self { status, ..Self::of(World::with_settings(provider.await, settings).await).await }
    }

    /// A world whose provider answers revocations by itself.
    async fn of(world: World) -> Self {
        let mut config = world.config();
        config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
        world.tokenbus.configure(&config).await;
        assert_eq!(world.connect("w").await.0, StatusCode::OK);
        let bus = Bus::of(&world.tokenbus.nats).await;
        Self { world, bus, status: Arc::default() }
    }

    async fn delete(&self) -> StatusCode {
        self.world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/w")).await.0
    }

    /// Tokens that the provider was asked to revoke, in order.
    fn asked(&self) -> Vec<String> {
        let received = self.world.provider.received();
        let revocations = received.into_iter().filter(|received| received.path == "/revoke");
        revocations.filter_map(|received| received.form().remove("token")).collect()
    }

    async fn reasons(&self) -> Vec<String> {
        let events = self.bus.events("revoked").await;
        events.iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn schedule(&self) -> Option<Value> {
        self.bus.idle().await;
        let subject = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.w.refresh.at");
        let message = self.bus.last("OAUTH_SCHEDULE", &subject).await?;
        serde_json::from_slice(&message.payload).ok()
    }

    /// Makes the scheduled try due now.
    async fn try_now(&self) {
        let body = self.schedule().await.expect("another try is scheduled");
        self.bus.due_with("w", &body).await;
    }

    /// The sealed tokens in the connection's record.
    async fn waiting(&self) -> Option<String> {
        let subject = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.w");
        let record = self.bus.last("OAUTH", &subject).await.expect("the record");
        assert!(!String::from_utf8_lossy(&record.payload).contains("t-0"), "a tombstone shows no token");
        record.headers.get(SEALED).map(ToString::to_string)
    }
}

#[tokio::test]
async fn g1_a_failed_revocation_is_repeated_until_the_provider_was_told() {
    let revoking = Revoking::start(&[]).await;
    assert_eq!(revoking.delete().await, StatusCode::OK);
    assert_eq!(revoking.reasons().await, ["provider_error"]);
    assert_eq!(revoking.world.read("w").await.0, StatusCode::NOT_FOUND, "the tokens are never served");
    let sealed = revoking.waiting().await.expect("the tombstone holds the tokens");
    assert!(!sealed.contains("t-0"), "they are sealed");

    revoking.try_now().await;
    eventually("the provider is asked again", async || revoking.asked() == ["rt-0", "rt-0"]).await;
    eventually("another try is scheduled", async || revoking.schedule().await.is_some()).await;
    revoking.status.store(200, Ordering::SeqCst);
    revoking.try_now().await;
    eventually("the end has an event", async || revoking.reasons().await.len() == 2).await;
    assert_eq!(revoking.asked(), ["rt-0", "rt-0", "rt-0", "at-0"]);
    assert_eq!(revoking.reasons().await, ["provider_error", "revoked_at_provider"]);
    assert_eq!(revoking.bus.events("revoked").await[1]["actor"], "schedule");
    assert_eq!(revoking.waiting().await, None, "the tokens are gone");
    eventually("no try is left", async || revoking.schedule().await.is_none()).await;
}

#[tokio::test]
async fn a_refused_token_is_not_sent_again() {
    let revoking = Revoking::start(&[]).await;
    revoking.status.store(400, Ordering::SeqCst);
    assert_eq!(revoking.delete().await, StatusCode::OK);
    assert_eq!(revoking.reasons().await, ["provider_error"], "a status alone does not say what is refused");
    let refusing = Provider::start(|number, received| match received.path.as_str() {
        "/revoke" => Scripted::json(400, &json!({ "error": "invalid_token" })),
        _ => Scripted::tokens(number),
    });
    let world = World::with(refusing.await).await;
    let mut config = world.config();
    config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/w")).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let event = &bus.events("revoked").await[0];
    assert_eq!((&event["reason"], &event["provider_status"]), (&json!("refused_by_provider"), &json!(400)));
    assert_eq!(event["provider_error"], "invalid_token");
    assert_eq!(bus.info("OAUTH_SCHEDULE").await.state.messages, 0);
}

#[tokio::test]
async fn a_revocation_is_given_up_in_time() {
    let revoking = Revoking::start(&[("REVOKE__GIVE_UP_AFTER", "1ms")]).await;
    assert_eq!(revoking.delete().await, StatusCode::OK);
    assert_eq!(revoking.reasons().await, ["revocation_given_up"]);
    assert_eq!((revoking.waiting().await, revoking.schedule().await), (None, None));
}

#[tokio::test]
async fn a_login_under_the_same_name_ends_the_tries() {
    let revoking = Revoking::start(&[]).await;
    assert_eq!(revoking.delete().await, StatusCode::OK);
    let old = revoking.schedule().await.expect("another try is scheduled");
    assert_eq!(revoking.world.connect("w").await.0, StatusCode::OK);
    assert_eq!(revoking.reasons().await, ["provider_error", "replaced"]);
    let asked = revoking.asked();
    revoking.bus.due_with("w", &old).await;
    eventually("the late try ends", async || revoking.bus.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    assert_eq!(revoking.asked(), asked, "the provider would end the new grant, too");
    assert_eq!(revoking.world.read("w").await.0, StatusCode::OK);
}

#[tokio::test]
async fn d9_a_lost_try_of_a_revocation_is_scheduled_again() {
    let revoking = Revoking::start(&[("REFRESH__REPAIR_INTERVAL", "1s")]).await;
    assert_eq!(revoking.delete().await, StatusCode::OK);
    let lost = revoking.schedule().await;
    revoking.bus.purge("OAUTH_SCHEDULE", &format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.w.refresh.at")).await;
    eventually("the repair pass schedules it", async || revoking.schedule().await == lost).await;
}

/// The deletion knew only the old tokens.
#[tokio::test]
async fn g1_tokens_that_arrive_after_the_deletion_are_revoked_by_its_tries() {
    let (deleted, is_deleted) = watch::channel(false);
    let script = move |number, received: &Received| {
        let tokens = Scripted::tokens(number);
        if received.form().contains_key("refresh_token") { tokens.once(&is_deleted) } else { tokens }
    };
    let revoking = Revoking::scripted(&[("REFRESH__MIN_INTERVAL", "1ms")], script).await;
    let path = format!("{INTEGRATION}/oauth-refresh-token/w");
    let refresh = revoking.world.tokenbus.call(Method::GET, &path);
    let delete = async {
        eventually("the provider has the refresh token", async || revoking.world.provider.received().len() == 2).await;
        let answer = revoking.delete().await;
        deleted.send_replace(true);
        answer
    };
    let ((refreshed, body), deletion) = tokio::join!(refresh, delete);
    assert_eq!((refreshed, deletion), (StatusCode::NOT_FOUND, StatusCode::OK), "{body}");
    assert_eq!(revoking.asked(), ["rt-0", "rt-1"]);
    revoking.status.store(200, Ordering::SeqCst);
    revoking.try_now().await;
    eventually("the end has an event", async || revoking.reasons().await.len() == 2).await;
    assert_eq!(revoking.asked(), ["rt-0", "rt-1", "rt-1", "at-1"]);
    assert_eq!(revoking.reasons().await, ["provider_error", "revoked_at_provider"]);
}

/// A refresh puts its late tokens into the tombstone while the deletion still waits for the provider.
#[tokio::test]
async fn a_deletion_whose_tombstone_was_replaced_removes_the_entry() {
    let ((deleted, is_deleted), (kept, is_kept)) = (watch::channel(false), watch::channel(false));
    let provider = Provider::start(move |number, received| {
        let (form, done) = (received.form(), Scripted::new(200, "text/plain", ""));
        match (received.path.as_str(), form.get("token").map(String::as_str)) {
            ("/revoke", Some("rt-0")) => done.once(&is_kept),
            ("/revoke", Some("at-0")) => done,
            ("/revoke", _) => Scripted::new(503, "text/plain", ""),
            _ if form.contains_key("refresh_token") => Scripted::tokens(number).once(&is_deleted),
            _ => Scripted::tokens(number),
        }
    });
    let revoking = Revoking::of(World::with_settings(provider.await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await).await;
    let received = async |requests| {
        let what = format!("the provider has {requests} requests");
        eventually(&what, async || revoking.world.provider.received().len() == requests).await;
    };
    let path = format!("{INTEGRATION}/oauth-refresh-token/w");
    let refresh = async {
        let answer = revoking.world.tokenbus.call(Method::GET, &path).await;
        kept.send_replace(true);
        answer
    };
    let delete = async {
        received(2).await;
        let (answer, ()) = tokio::join!(revoking.delete(), async {
            received(3).await;
            deleted.send_replace(true);
        });
        answer
    };
    let ((refreshed, body), deletion) = tokio::join!(refresh, delete);
    assert_eq!((refreshed, deletion), (StatusCode::NOT_FOUND, StatusCode::OK), "{body}");
    assert_eq!(revoking.asked(), ["rt-0", "rt-1", "at-0"]);
    let entries = revoking.bus.messages("KV_oauth_connections").await;
    let is_entry = |entry: &&StreamMessage| {
        entry.subject.ends_with(".w") && entry.headers.get("KV-Operation").is_none() && !entry.payload.is_empty()
    };
    assert_eq!(entries.iter().filter(is_entry).count(), 0, "the bucket has no entry any more");
    eventually("the deletion has its event", async || !revoking.reasons().await.is_empty()).await;
    assert_eq!(revoking.reasons().await, ["revoked_at_provider"]);
}

/// A bearer token goes only to the revocation URL of its login, and a later config cannot add one.
#[tokio::test]
async fn d8_a_later_config_sends_no_bearer_token_to_its_revocation_url() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    let mut config = world.config();
    config["revocation_auth_method"] = "bearer".into();
    config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
    world.tokenbus.configure(&config).await;
    let revoking = Revoking { bus: Bus::of(&world.tokenbus.nats).await, world, status: Arc::default() };
    assert_eq!(revoking.world.connect("x").await.0, StatusCode::OK);
    assert_eq!(revoking.delete().await, StatusCode::OK);
    assert_eq!(revoking.reasons().await, ["no_revocation_url"]);
    assert_eq!((revoking.asked(), revoking.waiting().await), (Vec::new(), None), "nothing waits for another try");

    let path = format!("{INTEGRATION}/oauth-connections/x");
    assert_eq!(revoking.world.tokenbus.call(Method::DELETE, &path).await.0, StatusCode::OK);
    assert_eq!(revoking.reasons().await, ["no_revocation_url", "revoked_at_provider"]);
    assert_eq!(revoking.asked(), ["at-1"], "the access token alone");
    let received = revoking.world.provider.received();
    assert_eq!(received.last().and_then(|last| last.authorization.as_deref()), Some("Bearer at-1"));
}

/// An admin must not be able to collect tokens at another URL of the provider, in a comment for example.
#[tokio::test]
async fn d8_another_path_gets_no_token_to_revoke() {
    let world = World::with(Provider::generous().await).await;
    let (mut comment, url) = (world.config(), world.provider.url.clone());
    let revoking = Revoking::of(world).await;
    comment["revocation_url"] = json!(format!("{url}/comments"));
    comment["param_names"] = json!({ "revoke": { "token": "body", "token_type_hint": "", "client_id": "" } });
    comment["token_headers"] = json!({ "Api-Key": "theirs" });
    (comment["revocation_body_format"], comment["revocation_auth_method"]) = (json!("json"), json!("none"));
    revoking.world.tokenbus.configure(&comment).await;
    assert_eq!(revoking.delete().await, StatusCode::OK);
    assert_eq!(revoking.reasons().await.len(), 1);
    let received = revoking.world.provider.received();
    let paths: Vec<&str> = received.iter().map(|received| received.path.as_str()).collect();
    assert!(paths.contains(&"/revoke") && !paths.contains(&"/comments"), "{paths:?}");
}
