//! The life of a grant: what the provider's answers, the clock and changes of the config do to a connection.

use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::{PATIENCE, eventually};
use crate::world::{INTEGRATION, World};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A token answer that contains the number of the request, without a lifetime.
fn tokens(number: usize) -> Value {
    json!({ "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}") })
}

fn with(mut answer: Value, fields: &Value) -> Scripted {
    let fields = fields.as_object().expect("an object").clone();
    answer.as_object_mut().expect("an object").extend(fields);
    Scripted::json(200, &answer)
}

fn hour(number: usize) -> Scripted {
    with(tokens(number), &json!({ "expires_in": HOUR }))
}

fn refused() -> Scripted {
    Scripted::json(400, &json!({ "error": "invalid_grant" }))
}

/// A connection `w`, its provider and its bus.
struct Grant {
    world: World,
    bus: Bus,
    pushes: Subscriber,
}

impl Grant {
    /// Logs in. The provider's answers have the numbers 0 for the login, and from 1 on for refreshes.
    async fn new(answer: impl Fn(usize) -> Scripted + Send + Sync + 'static) -> Self {
        let provider = Provider::start(move |number, _| answer(number)).await;
        let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
        let tenant = world.tokenbus.nats.connect("demo").await;
        let pushes = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.*")).await.unwrap();
        Nats::flush(&tenant).await;
        let bus = Bus::of(&world.tokenbus.nats).await;
        let mut grant = Self { world, bus, pushes };
        assert_eq!(grant.world.connect("w").await.0, StatusCode::OK);
        grant.pushed().await;
        grant.idle().await;
        grant
    }

    async fn idle(&self) {
        eventually("no command is queued", async || self.bus.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    }

    /// Lets the schedule fire now, and waits until its command is done.
    async fn due(&self) {
        self.idle().await;
        let before = self.bus.last_sequence("OAUTH_COMMANDS").await;
        self.bus.due("w").await;
        eventually("the command of the schedule", async || self.bus.last_sequence("OAUTH_COMMANDS").await > before)
            .await;
        self.idle().await;
    }

    async fn advance(&self, seconds: i64) {
        self.bus.advance("w", &self.world.tokenbus.keys_file(), seconds).await;
    }

    async fn read(&self) -> Value {
        let (status, body) = self.world.read("w").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    async fn refresh(&self) -> (StatusCode, Value) {
        self.world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-refresh-token/w")).await
    }

    async fn pushed(&mut self) -> Value {
        let message = timeout(PATIENCE, self.pushes.next()).await.expect("a push arrives").expect("it is open");
        serde_json::from_slice(&message.payload).expect("a push is JSON")
    }

    /// No push is left.
    async fn assert_no_push(&mut self) {
        let push = timeout(Duration::from_millis(100), self.pushes.next()).await;
        assert!(push.is_err(), "{push:?}");
    }

    fn requests(&self) -> usize {
        self.world.provider.received().len()
    }

    /// The reasons of the events of that name, oldest first.
    async fn events(&self, name: &str) -> Vec<Value> {
        self.bus.events(name).await.iter().map(|event| event["reason"].clone()).collect()
    }

    /// Seconds until the schedule fires.
    async fn next_due(&self) -> i64 {
        let schedule = self.bus.messages("OAUTH_SCHEDULE").await.pop().expect("a schedule");
        let at = schedule.headers.get("Nats-Schedule").expect("a time").as_str().trim_start_matches("@at ").to_owned();
        let at: jiff::Timestamp = at.parse().expect("a time");
        at.as_second() - tokenbus::internals::system::now().as_second()
    }
}

fn state(body: &Value) -> (&str, &str, &str) {
    let text = |name: &str| body[name].as_str().unwrap_or("-");
    (text("status"), text("status_reason"), text("access_token"))
}

#[tokio::test]
async fn d4_one_invalid_grant_leads_to_a_second_look_and_costs_nothing() {
    let mut grant = Grant::new(|number| if number == 1 { refused() } else { hour(number) }).await;
    let records = grant.bus.last_sequence("OAUTH").await;
    grant.due().await;
    assert_eq!(state(&grant.read().await), ("active", "invalid_grant", "at-0"));
    assert!((350..=361).contains(&grant.next_due().await), "a tenth of what is left");
    assert_eq!(grant.bus.last_sequence("OAUTH").await, records, "only KV has changed");
    grant.assert_no_push().await;
    // Until the second look, callers get the first answer, and an early schedule sends nothing.
    let (status, body) = grant.refresh().await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
    grant.due().await;
    assert_eq!(grant.requests(), 2);
    grant.advance(361).await;
    grant.due().await;
    assert_eq!(state(&grant.read().await), ("active", "-", "at-2"));
    assert_eq!(grant.events("refresh_failed").await, ["invalid_grant"]);
    assert_eq!(grant.events("needs_reauthorization").await, Vec::<Value>::new());
}

#[tokio::test]
async fn d4_a_grant_refused_twice_needs_reauthorization_and_keeps_its_tokens() {
    let mut grant = Grant::new(|number| if (1..=3).contains(&number) { refused() } else { hour(number) }).await;
    grant.due().await;
    grant.advance(361).await;
    grant.due().await;
    assert_eq!(state(&grant.pushed().await), ("needs_reauthorization", "invalid_grant", "at-0"));
    let body = grant.read().await;
    assert_eq!(state(&body), ("needs_reauthorization", "invalid_grant", "at-0"));
    assert_eq!(body["refresh_token"], "rt-0");
    assert_eq!(grant.events("needs_reauthorization").await, ["invalid_grant"]);
    assert!(grant.next_due().await > 3_000, "the end of the access token is scheduled");
    // Explicit tries back off.
    assert_eq!(grant.refresh().await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(grant.requests(), 3);
    grant.advance(61).await;
    let (status, body) = grant.refresh().await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
    assert_eq!(grant.refresh().await.0, StatusCode::TOO_MANY_REQUESTS);
    grant.advance(61).await;
    assert_eq!(grant.refresh().await.0, StatusCode::TOO_MANY_REQUESTS, "now it is two minutes");
    // The access token goes when it expires.
    grant.advance(HOUR).await;
    grant.due().await;
    assert_eq!(state(&grant.pushed().await), ("needs_reauthorization", "invalid_grant", "-"));
    assert_eq!(grant.events("token_expired").await, ["invalid_grant"]);
    assert_eq!(state(&grant.read().await), ("needs_reauthorization", "invalid_grant", "-"));
    assert_eq!(grant.requests(), 4, "the schedule sends nothing any more");
    // The record is new, so the wait begins again.
    grant.advance(61).await;
    let (status, body) = grant.refresh().await;
    assert_eq!((status, state(&body)), (StatusCode::OK, ("active", "-", "at-4")));
    assert_eq!(state(&grant.pushed().await), ("active", "-", "at-4"));
}

#[tokio::test]
async fn the_end_of_a_token_without_refresh_token_is_reported_and_pushed() {
    let mut grant = Grant::new(|_| Scripted::json(200, &json!({ "access_token": "t", "expires_in": 3 }))).await;
    assert_eq!(state(&grant.pushed().await), ("needs_reauthorization", "expired", "-"));
    eventually("the event", async || grant.events("needs_reauthorization").await == ["expired"]).await;
    assert_eq!(state(&grant.read().await), ("needs_reauthorization", "expired", "-"));
    let grant = Grant::new(|_| Scripted::json(200, &json!({ "access_token": "t", "expires_in": HOUR }))).await;
    assert_eq!(state(&grant.read().await), ("active", "-", "t"));
    let path = format!("{INTEGRATION}/oauth-token/w?min_valid=7200");
    let (status, body) = grant.world.tokenbus.call(Method::GET, &path).await;
    assert_eq!((status, state(&body)), (StatusCode::OK, ("active", "no_refresh_token", "t")));
    // A read at the end does not wait for the schedule.
    grant.advance(HOUR).await;
    assert_eq!(state(&grant.read().await), ("needs_reauthorization", "expired", "-"));
    assert_eq!(grant.requests(), 1);
}

#[tokio::test]
async fn h16_a_refresh_without_a_lifetime_is_followed_by_the_next() {
    let mut grant = Grant::new(|number| {
        let lifetime = if number == 0 { json!({ "expires_in": 4 }) } else { json!({}) };
        with(tokens(number), &lifetime)
    })
    .await;
    for number in 1..3 {
        let pushed = grant.pushed().await;
        let expected = json!(format!("at-{number}"));
        assert_eq!((&pushed["access_token"], &pushed["expires_in"]), (&expected, &json!(4)));
        assert!(pushed["expiry"].is_string(), "{pushed}");
    }
    assert!(grant.bus.events("refreshed").await[0]["expiry"].is_string());
}

/// An admin must not be able to collect tokens at another URL of the provider: in a comment that the request makes for the
/// admin's own account, or in what a webhook there has received.
#[tokio::test]
async fn d8_another_path_gets_no_token_in_any_form_and_refreshes_carry_on_at_the_url_of_the_login() {
    let grant = Grant::new(hour).await;
    let (fits, url) = (grant.world.config(), grant.world.provider.url.clone());
    let (mut rotated, mut moved) = (fits.clone(), fits.clone());
    (rotated["client_secret"], rotated["token_auth_method"]) = (json!("next"), json!("client_secret_basic"));
    (rotated["token_headers"], rotated["refresh_params"]) = (json!({ "Api-Key": "k" }), json!({ "audience": "a" }));
    moved["token_url"] = json!(format!("{url}/v2/token"));
    let (mut comment, mut webhook) = (rotated.clone(), fits);
    comment["refresh_url"] = json!(format!("{url}/comments"));
    comment["param_names"] = json!({ "refresh": { "refresh_token": "body", "grant_type": "", "client_id": "" } });
    comment["token_body_format"] = json!("json");
    webhook["token_url"] = json!(format!("{url}/hooks/1?key=theirs"));
    for config in [rotated, moved, comment, webhook] {
        grant.world.tokenbus.configure(&config).await;
        let (status, body) = grant.refresh().await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("active")), "{body}");
        assert_eq!(grant.world.provider.received().last().expect("a request").path, "/token");
    }
}

#[tokio::test]
async fn d8_a_config_that_does_not_fit_pauses_refreshes_until_one_fits() {
    let mut grant = Grant::new(hour).await;
    let other = Provider::start(|number, _| hour(number)).await;
    let fits = grant.world.config();
    let mut changed = [fits.clone(), fits.clone(), fits.clone()];
    changed[0]["client_id"] = json!("another");
    changed[1]["token_url"] = json!(format!("{}/token", other.url));
    changed[2]["token_url"] = json!(format!("{}/token", other.url));
    changed[2]["refresh_url"] = json!(format!("{}/token", other.url));
    for (number, config) in changed.into_iter().enumerate() {
        let before = grant.bus.last_sequence("OAUTH_COMMANDS").await;
        grant.world.tokenbus.configure(&config).await;
        if number == 0 {
            grant.due().await;
        } else {
            // The new config and, at once, the paused refresh.
            let both = async || grant.bus.last_sequence("OAUTH_COMMANDS").await >= before + 2;
            eventually("the paused refresh", both).await;
            grant.idle().await;
        }
        assert_eq!(state(&grant.read().await), ("active", "config_changed", "at-0"));
    }
    assert_eq!((grant.requests(), other.received().len()), (1, 0), "nothing was sent");
    assert_eq!(grant.events("refresh_failed").await, ["config_changed"]);
    // The token ends meanwhile: readers get the state, and the event comes once.
    grant.advance(HOUR).await;
    for _ in 0..2 {
        grant.due().await;
    }
    assert_eq!(state(&grant.read().await), ("active", "config_changed", "-"));
    assert_eq!(grant.events("token_expired").await, ["config_changed"]);
    grant.assert_no_push().await;
    grant.world.tokenbus.configure(&fits).await;
    assert_eq!(state(&grant.pushed().await), ("active", "-", "at-1"));
    assert_eq!(other.received().len(), 0);
}

#[tokio::test]
async fn refusals_in_other_words_end_after_a_day_and_not_before() {
    let facebook = json!({ "error": { "type": "OAuthException", "code": 190 } });
    for answer in [
        Scripted::json(400, &json!({ "status": "BAD_REFRESH_TOKEN", "message": "m" })),
        Scripted::json(400, &facebook),
        Scripted::new(401, "text/plain", "Unauthorized"),
        Scripted::json(404, &json!({})),
    ] {
        let mut grant = Grant::new(move |number| if number == 0 { hour(0) } else { answer.clone() }).await;
        grant.due().await;
        assert_eq!(state(&grant.read().await).0, "active");
        grant.advance(HOUR).await;
        for _ in 0..12 {
            assert_eq!(grant.events("needs_reauthorization").await.len(), 0);
            grant.due().await;
            if grant.requests() == 6 {
                break;
            }
            grant.advance(6 * HOUR).await;
        }
        // Five failures within 19 hours were too early.
        grant.advance(6 * HOUR).await;
        grant.due().await;
        assert_eq!(grant.events("needs_reauthorization").await, ["refresh_failing"]);
        assert_eq!(state(&grant.pushed().await), ("needs_reauthorization", "refresh_failing", "-"));
        assert_eq!(grant.events("token_expired").await.len(), 1);
        assert_eq!(grant.read().await["refresh_token"], "rt-0", "for an explicit try");
    }
}

#[tokio::test]
async fn a_provider_that_is_down_or_refuses_the_client_ends_no_grant() {
    for (answer, reason) in [
        (Scripted::new(503, "text/html", "down"), "provider_error"),
        (Scripted::json(400, &json!({ "error": "unauthorized_client" })), "unauthorized_client"),
    ] {
        let grant = Grant::new(move |number| if number == 0 { hour(0) } else { answer.clone() }).await;
        for _ in 0..8 {
            grant.due().await;
            grant.advance(DAY).await;
        }
        let (status, body) = grant.world.read("w").await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
        assert!(grant.events("refresh_failed").await.iter().all(|seen| seen == reason));
        assert_eq!(grant.events("token_expired").await, [reason]);
        assert_eq!(grant.events("needs_reauthorization").await.len(), 0);
    }
}

#[tokio::test]
async fn idle_refresh_tokens_are_refreshed_by_age_and_their_end_is_announced() {
    let grant = Grant::new(|number| {
        let left = if number == 0 { 604_799 } else { 604_799 / 2 };
        with(tokens(0), &json!({ "expires_in": 60 * DAY, "refresh_token_expires_in": left }))
    })
    .await;
    assert!(grant.read().await["refresh_token_expiry"].is_string());
    let half = 604_799 / 2;
    let due = grant.next_due().await;
    assert!((half - 60..=half + 1).contains(&due), "before half of the time has passed: {due}");
    grant.advance(half).await;
    grant.due().await;
    assert_eq!(grant.requests(), 2);
    // The end did not move, so a person is warned a day before.
    assert!((half - DAY - 60..=half - DAY + 1).contains(&grant.next_due().await));
    grant.advance(half - DAY).await;
    grant.due().await;
    let warnings = grant.bus.events("reauthorization_due").await;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0]["expiry"].is_string(), "{warnings:?}");
    assert_eq!((grant.requests(), state(&grant.read().await)), (2, ("active", "-", "at-0")));
}
