//! Concurrent operations on one connection: a refresh and a login, a schedule and a caller, many callers and one
//! failure, a dead worker and waiting callers. The connection always keeps a schedule; every caller gets an answer.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use futures_util::future::join_all;
use jiff::SignedDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::command::Credential;
use tokenbus::internals::connection::StoredConnection;
use tokenbus::internals::gateway::{Command, RequestContext};
use tokenbus::subject::{Account, Integration};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::{Provider, Received, Scripted};
use crate::refresh_crash::{connected, due};
use crate::support::tokenbus::ACCOUNT;

const NAME: &str = "workspace1";

fn is_refresh(received: &Received) -> bool {
    received.form().contains_key("refresh_token")
}

/// A provider that answers refreshes with `refreshed`.
async fn provider(refreshed: Scripted) -> Provider {
    Provider::start(
        move |number, received| if is_refresh(received) { refreshed.clone() } else { Scripted::tokens(number) },
    )
    .await
}

/// The contents of the connection's schedules, due ones included.
async fn schedules(fleet: &Fleet) -> Vec<Value> {
    let stream = fleet.jetstream("worker").await.get_stream("OAUTH_SCHEDULE").await.expect("the stream");
    let mut found = Vec::new();
    for end in ["at", "due"] {
        let subject = format!("ms.integration.oauth.{}.refresh.{end}", Fleet::path(NAME));
        let message = stream.get_last_raw_message_by_subject(&subject).await.ok();
        found.extend(message.and_then(|message| serde_json::from_slice(&message.payload).ok()));
    }
    found
}

async fn refreshes(fleet: &Fleet, callers: usize) -> Vec<(StatusCode, Value)> {
    let path = format!("{INTEGRATION}/oauth-refresh-token/{NAME}");
    join_all((0..callers).map(|_| fleet.get(&path))).await
}

async fn delete(fleet: &Fleet, path: &str) -> StatusCode {
    let url = fleet.endpoint(&format!("hub/integrations/{INTEGRATION}/{path}"));
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let answer = http.delete(url).header("x-api-key", &fleet.admin_keys[0]).send().await;
    answer.expect("the edge answers").status()
}

async fn failures(fleet: &Fleet) -> usize {
    fleet.events().await.iter().filter(|event| event["event"] == "refresh_failed").count()
}

/// An old refresh fails after a new login, and its schedule takes the place of the login's.
#[tokio::test]
async fn d9_a_refresh_that_fails_after_a_new_login_keeps_the_logins_schedule() {
    let (connected_anew, is_connected_anew) = watch::channel(false);
    let provider = provider(Scripted::json(503, &json!({})).once(&is_connected_anew)).await;
    let (fleet, _pushes) = connected(&provider).await;
    let _worker = fleet.worker().await;
    due(&fleet).await;
    eventually("the refresh is running", async || provider.received().iter().any(is_refresh)).await;
    let state = fleet.login(NAME).await;
    let (status, body) = fleet.arrive(&state, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    connected_anew.send_replace(true);
    eventually("the old refresh fails", async || failures(&fleet).await > 0).await;
    let set_for = json!({ "sequence": body["sequence"] });
    eventually("the remaining schedule is the login's", async || schedules(&fleet).await == [set_for.clone()]).await;
    assert_eq!(provider.received().iter().filter(|received| is_refresh(received)).count(), 1);
}

/// An old command ends without a next refresh, after a new login has set its own.
#[tokio::test]
async fn d9_a_slow_revocation_keeps_the_schedule_of_a_new_login() {
    let revoked = Scripted::json(200, &json!({})).after(Duration::from_secs(4));
    let provider = Provider::start(
        move |number, received| {
            if received.path == "/revoke" { revoked.clone() } else { Scripted::tokens(number) }
        },
    );
    let provider = provider.await;
    let (fleet, _worker) = Fleet::configured(&provider.url).await;
    let mut config = fleet.config();
    config["revocation_url"] = json!(format!("{}/revoke", provider.url));
    assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
    let login = async || {
        let (status, body) = fleet.arrive(&fleet.login(NAME).await, "code").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    };
    login().await;
    let meanwhile = async {
        eventually("the revocation arrives", async || {
            provider.received().iter().any(|received| received.path == "/revoke")
        })
        .await;
        login().await
    };
    let path = format!("oauth-connections/{NAME}");
    let (deleted, body) = tokio::join!(delete(&fleet, &path), meanwhile);
    assert_eq!(deleted, StatusCode::OK);
    fleet.idle().await;
    assert!(fleet.events().await.iter().any(|event| event["event"] == "revoked"), "it came to its end");
    assert_eq!(schedules(&fleet).await, [json!({ "sequence": body["sequence"] })]);
}

/// A refresh finishes during a login of the same connection. The login still succeeds: the person need not log in
/// again.
#[tokio::test]
async fn d3_a_login_replaces_the_record_of_a_concurrent_refresh() {
    let codes = |received: &[Received]| received.iter().filter(|received| received.form().contains_key("code")).count();
    let provider = Provider::start(|number, received| {
        let is_second = received.form().get("code").is_some_and(|code| code == "second");
        Scripted::tokens(number).after(Duration::from_secs(if is_second { 3 } else { 0 }))
    });
    let provider = provider.await;
    let (fleet, _pushes) = connected(&provider).await;
    let _worker = fleet.worker().await;
    let state = fleet.login(NAME).await;
    let refresh = async {
        eventually("the code is sent", async || codes(&provider.received()) == 2).await;
        refreshes(&fleet, 1).await.remove(0)
    };
    let ((status, body), (refreshed, answer)) = tokio::join!(fleet.arrive(&state, "second"), refresh);
    assert_eq!((status, refreshed), (StatusCode::OK, StatusCode::OK), "{body} {answer}");
    assert!(body["sequence"].as_u64() >= answer["sequence"].as_u64(), "{body} {answer}");
    let (newest, _) = fleet.record(&Fleet::path(NAME)).await;
    assert_eq!(body["sequence"].as_u64(), newest);
    fleet.idle().await;
    assert_eq!(schedules(&fleet).await, [json!({ "sequence": body["sequence"] })]);
}

/// A refresh finds no config, and stores that failure only after the config has returned.
#[tokio::test]
async fn d9_a_refresh_that_found_no_config_continues_if_the_config_returns_meanwhile() {
    let provider = Provider::generous().await;
    let (fleet, _pushes) = connected(&provider).await;
    let mut configures = fleet.worker().await;
    assert_eq!(delete(&fleet, "oauth-config").await, StatusCode::OK);
    configures.kill().await;
    let first = fleet.worker_stopping_at("postpone_1_time_chosen").await;
    // Prepare all calls before a worker is paused.
    let caller = RequestContext {
        credential: Some(Credential::new(Secret::new(format!("X-Api-Key {}", fleet.admin_keys[0])))),
        ..RequestContext::default()
    };
    let (integration, account) = (Integration::parse(INTEGRATION).unwrap(), Account::parse(ACCOUNT).unwrap());
    let edge = fleet.own_edge().await;
    let seal_to = edge.seal_to(&caller).await;
    let put = Command::Put { integration, account, seal_to, body: fleet.config().to_string().into() };
    due(&fleet).await;
    first.stopped().await;
    let _second = fleet.worker().await;
    edge.bus.command(put, &caller).await.expect("the config is back");
    first.signal("CONT");
    eventually("the token is refreshed", async || provider.received().iter().any(is_refresh)).await;
}

/// A refresh that becomes due while a caller's refresh is queued must not be lost: the caller's may end without a new
/// schedule.
#[tokio::test]
async fn d9_a_refresh_due_while_a_callers_refresh_is_queued_is_not_lost() {
    let refused = Scripted { headers: vec![("retry-after", "120".to_owned())], ..Scripted::json(503, &json!({})) };
    let provider = provider(refused).await;
    let (fleet, _pushes) = connected(&provider).await;
    let mut doomed = fleet.worker_dying_at("delivery_1_answered").await;
    let call = refreshes(&fleet, 1);
    let dies = async {
        assert!(!doomed.ended().await.success());
        // The command is still on the queue.
        due(&fleet).await;
        fleet.worker().await
    };
    let (_, _second) = tokio::join!(call, dies);
    fleet.idle().await;
    eventually("there is a schedule", async || schedules(&fleet).await.len() == 1).await;
    // Don't count one that is about to be dropped.
    let second =
        async || schedules(&fleet).await == [json!({ "sequence": fleet.stored(NAME).await.0.unwrap()["sequence"] })];
    eventually("the schedule is that of the current connection", second).await;
    fleet.idle().await;
    assert_eq!(schedules(&fleet).await.len(), 1);
}

#[tokio::test]
async fn d1_a_failure_reaches_all_waiting_callers_at_once() {
    let provider = provider(Scripted::json(503, &json!({})).after(Duration::from_secs(2))).await;
    let (fleet, _pushes) = connected(&provider).await;
    let _workers: Vec<Worker> = join_all((0..3).map(|_| fleet.worker())).await;
    for (status, body) in refreshes(&fleet, 200).await {
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    }
    assert_eq!(provider.received().iter().filter(|received| is_refresh(received)).count(), 1);
    assert!(fleet.deliveries("refresh").await < 100, "each waits for one failure, not for a command of its own");
}

/// A worker dies between the tombstone and the revocation; a refresh that becomes due meanwhile changes nothing.
#[tokio::test]
async fn g1_an_interrupted_revocation_is_repeated_by_the_next_worker() {
    let provider = revoking().await;
    let fleet = cut_off_at("revoke_2_tombstone_written", &provider).await;
    due(&fleet).await;
    let _second = fleet.worker().await;
    fleet.idle().await;
    assert_revoked(&fleet, &provider, &["rt-0", "at-0"]).await;
}

/// The server has lost the command, so that no worker repeats it; the next deletion does.
#[tokio::test]
async fn g1_a_lost_revocation_is_repeated_by_the_next_deletion() {
    let provider = revoking().await;
    let fleet = cut_off_at("revoke_2_tombstone_written", &provider).await;
    let commands = fleet.jetstream("worker").await.get_stream("OAUTH_COMMANDS").await.unwrap();
    let lost = commands.cached_info().state.last_sequence;
    assert!(commands.delete_message(lost).await.unwrap());
    let _second = fleet.worker().await;
    fleet.ready().await;
    assert_eq!(delete(&fleet, &format!("oauth-connections/{NAME}")).await, StatusCode::OK);
    fleet.idle().await;
    assert_asked(&provider, &["rt-0", "at-0"]);
    // Each of the two deletions has its event.
    assert_eq!(reasons(&fleet).await, ["revocation_unknown", "revoked_at_provider"]);
}

#[tokio::test]
async fn a_revocation_interrupted_after_any_step_ends_in_one_event() {
    let check = async |step, expected: &[&str]| {
        let provider = revoking().await;
        let fleet = cut_off_at(step, &provider).await;
        let _second = fleet.worker().await;
        fleet.idle().await;
        assert_revoked(&fleet, &provider, expected).await;
    };
    tokio::join!(
        check("revoke_1_connection_found", &["rt-0", "at-0"]),
        check("revoke_3_provider_asked", &["rt-0", "at-0", "rt-0", "at-0"]),
        check("revoke_4_outcome_stored", &["rt-0", "at-0"]),
        check("revoke_5_tombstone_applied", &["rt-0", "at-0"]),
    );
}

/// The next worker cannot know whether the refresh token was sent, so it holds the refresh.
#[tokio::test]
async fn a_postponed_refresh_whose_worker_dies_is_held() {
    let check = async |step: &str, reason: &str| {
        let provider = provider(Scripted::json(503, &json!({}))).await;
        let (fleet, _pushes) = connected(&provider).await;
        let mut doomed = fleet.worker_dying_at(step).await;
        due(&fleet).await;
        assert!(!doomed.ended().await.success(), "{step}");
        let _second = fleet.worker().await;
        let stored_reason =
            async || fleet.stored(NAME).await.0.map(|stored| stored["refresh_failure"]["reason"].clone());
        eventually("the refresh is held", async || stored_reason().await == Some(json!("refresh_interrupted"))).await;
        fleet.idle().await;
        assert_eq!(provider.received().iter().filter(|received| is_refresh(received)).count(), 1, "{step}");
        // The first worker may have died before it acked the due message, which then comes again.
        eventually("one schedule is left", async || schedules(&fleet).await.len() == 1).await;
        fleet.idle().await;
        let mut events = fleet.events().await;
        events.retain(|event| event["event"] == "refresh_failed");
        assert_eq!(events.iter().map(|event| &event["reason"]).collect::<Vec<_>>(), [reason], "{step}");
    };
    tokio::join!(
        check("postpone_1_time_chosen", "refresh_interrupted"),
        check("postpone_2_event_published", "provider_error"),
        check("postpone_3_failure_stored", "provider_error"),
        check("postpone_4_refresh_scheduled", "provider_error"),
    );
}

/// The stored failure says that the event was published, so the event comes first.
#[tokio::test]
async fn the_event_of_an_expired_token_survives_the_worker_that_was_to_publish_it() {
    let check = async |step: &str| {
        let provider = provider(Scripted::json(503, &json!({}))).await;
        let (fleet, _pushes) = connected(&provider).await;
        let keys = fleet.setting("TOKENBUS_SECRETS__KEYS_FILE");
        let hour_ago = tokenbus::internals::system::now() - SignedDuration::from_hours(1);
        let failing = |stored: &mut StoredConnection| {
            let failure =
                json!({ "count": 1, "until": hour_ago, "status": 502, "reason": "provider_error", "since": hour_ago });
            stored.connection.expiry = Some(hour_ago);
            stored.refresh_failure = serde_json::from_value(failure).unwrap();
        };
        Bus::of(&fleet.nats).await.change(NAME, keys.as_ref(), failing).await;
        let mut doomed = fleet.worker_dying_at(step).await;
        due(&fleet).await;
        assert!(!doomed.ended().await.success(), "{step}");
        let _second = fleet.worker().await;
        fleet.idle().await;
        let events = async || fleet.events().await.iter().filter(|event| event["event"] == "token_expired").count();
        eventually("the expiry is reported", async || events().await > 0).await;
        assert_eq!(events().await, 1, "{step}");
    };
    tokio::join!(
        check("postpone_1_time_chosen"),
        check("postpone_2_event_published"),
        check("postpone_3_failure_stored"),
        check("postpone_4_refresh_scheduled"),
    );
}

async fn revoking() -> Provider {
    Provider::start(|number, received| match received.path.as_str() {
        "/revoke" => Scripted::new(200, "text/plain", ""),
        _ => Scripted::tokens(number),
    })
    .await
}

/// A connection whose deletion ended with its worker after that step.
async fn cut_off_at(step: &str, provider: &Provider) -> Fleet {
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    let mut config = fleet.config();
    config["revocation_url"] = format!("{}/revoke", provider.url).into();
    assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
    assert_eq!(fleet.arrive(&fleet.login(NAME).await, "code").await.0, StatusCode::OK);
    fleet.idle().await;
    first.kill().await;
    let mut doomed = fleet.worker_dying_at(step).await;
    let path = format!("oauth-connections/{NAME}");
    let deleted = delete(&fleet, &path);
    let dies = async { assert!(!doomed.ended().await.success()) };
    // The call waits at the worker that dies, so it fails.
    tokio::join!(deleted, dies);
    fleet
}

async fn assert_revoked(fleet: &Fleet, provider: &Provider, expected: &[&str]) {
    assert_asked(provider, expected);
    assert_eq!(reasons(fleet).await, ["revoked_at_provider"]);
    assert_eq!(fleet.stored(NAME).await.0, None, "nothing is left of it here");
}

#[track_caller]
fn assert_asked(provider: &Provider, expected: &[&str]) {
    let received: Vec<Received> =
        provider.received().into_iter().filter(|received| received.path == "/revoke").collect();
    let tokens: Vec<String> = received.iter().map(|received| received.form()["token"].clone()).collect();
    assert_eq!(tokens, expected);
}

/// The reasons of the events `revoked`.
async fn reasons(fleet: &Fleet) -> Vec<String> {
    let events = fleet.events().await.into_iter().filter(|event| event["event"] == "revoked");
    events.map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// No stream takes claims for a moment. Another worker could not know that nothing was sent, so the first one waits. A queue that
/// loses nothing needs claims, as in a cluster.
#[tokio::test]
async fn d3_a_claim_that_fails_for_a_moment_holds_no_refresh() {
    let provider = provider(Scripted::tokens(1)).await;
    let (fleet, _pushes) = connected(&provider).await;
    fleet.idle().await;
    let jetstream = fleet.jetstream("setup").await;
    for queue in ["OAUTH_COMMANDS", "OAUTH_SCHEDULE"] {
        let config = Bus::of(&fleet.nats).await.info(queue).await.config;
        jetstream.delete_stream(queue).await.expect("deleted");
        jetstream.create_stream(Config { persist_mode: None, ..config }).await.expect("created");
    }
    let (_first, _second) = (fleet.worker().await, fleet.worker().await);
    fleet.ready().await;
    let claims = Bus::of(&fleet.nats).await.info("KV_oauth_nonces").await.config;
    let away = Config { subjects: vec!["unused.>".to_owned()], ..claims.clone() };
    Bus::configure(&fleet.nats, away).await;
    let returns = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(provider.received().len(), 1, "nothing is sent without a claim");
        Bus::configure(&fleet.nats, claims).await;
    };
    let path = format!("odd/oauth-refresh-token/{NAME}");
    let ((status, body), ()) = tokio::join!(fleet.get(&path), returns);
    assert_eq!((status, &body["access_token"]), (StatusCode::OK, &json!("at-1")), "{body}");
}
