//! A single server that is killed at each step of a command, alone or with the worker, and one that comes back with older
//! queues: every caller's success lasts, and no code and no spent refresh token is sent twice.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::iter;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::{Provider, Scripted};
use crate::refresh_crash::{connected, due, refreshes, strict_provider};
use crate::support::tokenbus::ACCOUNT;

const NAME: &str = "workspace1";
const KEYS: &str = "TOKENBUS_SECRETS__KEYS_FILE";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dead {
    Server,
    ServerAndWorker,
}

/// Scenes that start at once. Each starts a server and two processes, and a busy machine would let logins time out.
const AT_ONCE: usize = 6;
const BOTH: [Dead; 2] = [Dead::Server, Dead::ServerAndWorker];
const STEPS_OF_APPLY: [&str; 6] = [
    "apply_1_kv_written",
    "apply_2_answered",
    "apply_3_event_published",
    "apply_4_refresh_scheduled",
    "delivery_1_answered",
    "delivery_2_acked",
];

/// A worker that kills the server at that failpoint, ready.
async fn killer(fleet: &Fleet, place: &str, dead: Dead) -> Worker {
    let server = format!("{place} {}", fleet.nats.pid());
    let mut environment = vec![("FAIL_KILL_NATS_AT", server.as_str())];
    if dead == Dead::ServerAndWorker {
        environment.push(("FAIL_KILL_AT", place));
    }
    let worker = fleet.worker_with(&environment);
    worker.ready().await;
    fleet.ready().await;
    worker
}

/// Starts again what has died. The other worker, if one was needed.
async fn restart(fleet: &mut Fleet, worker: &mut Worker, dead: Dead) -> Option<Worker> {
    fleet.nats.restart_once_killed().await;
    if dead == Dead::Server {
        return None;
    }
    worker.ended().await;
    Some(fleet.worker().await)
}

async fn settle(fleet: &Fleet) {
    fleet.ready().await;
    fleet.idle().await;
}

fn codes(provider: &Provider) -> Vec<String> {
    provider.received().iter().filter_map(|received| received.form().remove("code")).collect()
}

#[track_caller]
fn assert_unique(values: &[String]) {
    let unique: HashSet<&String> = values.iter().collect();
    assert_eq!(unique.len(), values.len(), "{values:?}");
}

#[track_caller]
fn is_known(what: &str, status: StatusCode, body: &Value) -> bool {
    assert!(matches!(status.as_u16(), 200 | 502 | 503 | 504), "{what}: {status} {body}");
    status == StatusCode::OK
}

/// Checks that a caller's success lasts: the token or a newer one, its schedule, its event.
async fn assert_stored(what: &str, fleet: &Fleet, name: &str, answer: &Value) {
    let sequence = answer["sequence"].as_u64().expect("a connection has a sequence");
    let (status, read) = fleet.get(&format!("{INTEGRATION}/oauth-token/{name}")).await;
    assert_eq!(status, StatusCode::OK, "{what}: {read}");
    let stored = read["sequence"].as_u64().expect("a connection has a sequence");
    assert!(stored >= sequence, "{what}: {read}");
    assert!(stored > sequence || read["access_token"] == answer["access_token"], "{what}: {read}");
    let bus = Bus::of(&fleet.nats).await;
    eventually("the connection has a schedule", async || has_schedule(&bus, name).await).await;
    let is_connected = |event: &Value| event["event"] == "connected" && event["sequence"] == sequence;
    eventually("the login has its event", async || fleet.events().await.iter().any(is_connected)).await;
}

async fn has_schedule(bus: &Bus, name: &str) -> bool {
    let subject = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.{name}.refresh.at");
    bus.last("OAUTH_SCHEDULE", &subject).await.is_some()
}

async fn exchange_killed_at(place: &'static str, dead: Dead) {
    let what = &format!("{place} {dead:?}");
    let provider = strict_provider().await;
    let (mut fleet, mut configurer) = Fleet::configured(&provider.url).await;
    configurer.kill().await;
    let mut worker = killer(&fleet, place, dead).await;
    let state = fleet.login(NAME).await;
    let arriving = fleet.arrive(&state, "code");
    let ((status, body), _second) = tokio::join!(arriving, restart(&mut fleet, &mut worker, dead));
    settle(&fleet).await;
    if is_known(what, status, &body) {
        assert_stored(what, &fleet, NAME, &body).await;
    }
    let before = fleet.record(&Fleet::path(NAME)).await.1;

    let state = fleet.login(NAME).await;
    let (status, body) = fleet.arrive(&state, "next-code").await;
    assert_eq!(status, StatusCode::OK, "{what}: {body}");
    assert!(body["sequence"].as_u64() > Some(before), "{what}: {body}");
    fleet.idle().await;
    assert_stored(what, &fleet, NAME, &body).await;
    assert_unique(&codes(&provider));
}

#[tokio::test]
async fn b3_d2_a_server_killed_at_any_step_of_a_callback_loses_no_success_and_repeats_no_code() {
    let before = [
        "exchange_1_callback_checked",
        "exchange_2_login_consumed",
        "exchange_3_code_sent",
        "exchange_4_record_written",
        "exchange_5_record_applied",
    ];
    let places = before.into_iter().chain(STEPS_OF_APPLY);
    let scenes = places.flat_map(|place| BOTH.map(|dead| exchange_killed_at(place, dead)));
    Box::pin(iter(scenes).buffer_unordered(AT_ONCE).collect::<()>()).await;
}

async fn refresh_killed_at(place: &'static str, dead: Dead, starts: &Semaphore) {
    let what = &format!("{place} {dead:?}");
    let provider = strict_provider().await;
    let starting = starts.acquire().await;
    let (mut fleet, _pushes) = connected(&provider).await;
    let before = fleet.record(&Fleet::path(NAME)).await.1;
    let mut worker = killer(&fleet, place, dead).await;
    due(&fleet).await;
    let _second = restart(&mut fleet, &mut worker, dead).await;
    settle(&fleet).await;
    drop(starting);
    // Within this window the new tokens exist nowhere, so the refresh token is sent once more, and refused.
    let is_lost = dead == Dead::ServerAndWorker && place == "refresh_2_token_sent";
    eventually("the refresh token was sent", async || refreshes(&provider) == 1 + usize::from(is_lost)).await;
    settle(&fleet).await;
    if !is_lost {
        let refreshed = async || fleet.stored(NAME).await.0.is_some_and(|it| it["sequence"].as_u64() > Some(before));
        eventually("the new token is stored", refreshed).await;
        let bus = Bus::of(&fleet.nats).await;
        eventually("the connection has a schedule", async || has_schedule(&bus, NAME).await).await;
    }
    // The deletion's command publishes the events that a crash left out.
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/{NAME}");
    let (status, body) = fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{what}: {body}");
    let events = fleet.events().await;
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("refreshed"), count("needs_reauthorization")), (usize::from(!is_lost), 0), "{what}: {events:?}");
    assert_eq!(refreshes(&provider), 1 + usize::from(is_lost), "{what}");
}

#[tokio::test]
async fn d2_d4_a_server_killed_at_any_step_of_a_refresh_loses_no_token_and_repeats_none() {
    let before =
        ["refresh_1_permit_taken", "refresh_2_token_sent", "refresh_3_record_written", "refresh_4_record_applied"];
    let places = before.into_iter().chain(STEPS_OF_APPLY);
    // All wait for their hold at the same time.
    let starts = &Semaphore::new(AT_ONCE);
    join_all(places.flat_map(|place| BOTH.map(|dead| refresh_killed_at(place, dead, starts)))).await;
}

async fn deletion_killed_at(place: &'static str, dead: Dead) {
    let what = &format!("{place} {dead:?}");
    let provider = strict_provider().await;
    let (mut fleet, mut first) = Fleet::configured(&provider.url).await;
    // A nats-server 2.15.1 that is killed right after a purge has emptied an encrypted stream may drop the stream.
    for name in [NAME, "another"] {
        let state = fleet.login(name).await;
        assert_eq!(fleet.arrive(&state, &format!("code-{name}")).await.0, StatusCode::OK);
    }
    fleet.idle().await;
    first.kill().await;
    let mut worker = killer(&fleet, place, dead).await;
    let (path, key) = (format!("hub/integrations/{INTEGRATION}/oauth-connections/{NAME}"), fleet.admin_keys[0].clone());
    let (url, http) = (fleet.endpoint(&path), fleet.http.clone());
    let deleting =
        async { http.delete(url).header("x-api-key", &key).send().await.expect("the edge answers").status() };
    let (status, _second) = tokio::join!(deleting, restart(&mut fleet, &mut worker, dead));
    let read = async || fleet.get(&format!("{INTEGRATION}/oauth-token/{NAME}")).await.0;
    if is_known(what, status, &Value::Null) {
        // While the gateway is away from the bus a read fails, and never has a token.
        assert_ne!(read().await, StatusCode::OK, "{what}");
    }
    settle(&fleet).await;
    let (again, body) = fleet.request(Method::DELETE, &path, &key, &json!({})).await;
    assert!(matches!(again.as_u16(), 200 | 404), "{what}: {again} {body}");
    assert_eq!(read().await, StatusCode::NOT_FOUND, "{what}");
    fleet.idle().await;
    let revoked = async || fleet.events().await.iter().any(|event| event["event"] == "revoked");
    eventually("the deletion has its event", revoked).await;

    let state = fleet.login(NAME).await;
    let (status, body) = fleet.arrive(&state, "next-code").await;
    assert_eq!(status, StatusCode::OK, "{what}: {body}");
    fleet.idle().await;
    assert_stored(what, &fleet, NAME, &body).await;
}

#[tokio::test]
async fn d2_a_server_killed_at_any_step_of_a_deletion_serves_no_deleted_token() {
    let before = [
        "revoke_1_connection_found",
        "revoke_2_tombstone_written",
        "revoke_3_provider_asked",
        "revoke_4_outcome_stored",
        "revoke_5_tombstone_applied",
    ];
    let places = before.into_iter().chain(STEPS_OF_APPLY);
    let scenes = places.flat_map(|place| BOTH.map(|dead| deletion_killed_at(place, dead)));
    Box::pin(iter(scenes).buffer_unordered(AT_ONCE).collect::<()>()).await;
}

/// The status of an explicit refresh, and the seconds after which to try again.
async fn refresh(fleet: &Fleet, path: &str) -> (StatusCode, Option<u64>) {
    let url = fleet.endpoint(&format!("hub/integrations/{INTEGRATION}/{path}/{NAME}"));
    let answer = fleet.http.get(url).header("x-api-key", &fleet.admin_keys[0]).send().await.expect("the edge answers");
    let wait = answer.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.parse().ok());
    (answer.status(), wait)
}

#[tokio::test]
async fn d4_after_a_restart_of_the_server_no_refresh_token_is_sent_for_one_hold() {
    let provider = strict_provider().await;
    let (mut fleet, _pushes) = connected(&provider).await;
    let _worker = fleet.worker().await;
    fleet.ready().await;
    fleet.nats.kill().await;
    fleet.nats.restart_once_killed().await;
    fleet.ready().await;
    let (status, wait) = refresh(&fleet, "oauth-refresh-token").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(wait.is_some_and(|wait| (60..=102).contains(&wait)), "{wait:?}");
    assert_eq!(refresh(&fleet, "oauth-token").await.0, StatusCode::OK, "a token that is valid is served");
    due(&fleet).await;
    Bus::of(&fleet.nats).await.advance(NAME, fleet.setting(KEYS).as_ref(), 3_700).await;
    let (status, wait) = refresh(&fleet, "oauth-token").await;
    assert_eq!((status, wait.is_some()), (StatusCode::SERVICE_UNAVAILABLE, true), "an expired one needs a refresh");
    fleet.idle().await;
    assert_eq!(refreshes(&provider), 0);
    eventually("the due refresh runs after the hold", async || refreshes(&provider) == 1).await;
    fleet.idle().await;
    assert_eq!(refresh(&fleet, "oauth-token").await.0, StatusCode::OK);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{}", from.display());
}

/// A power loss may cost two minutes of what the server had not synced.
#[tokio::test]
async fn d4_b3_d9_queues_that_come_back_older_repeat_no_code_and_lose_no_connection() {
    let (gate, opened) = watch::channel(false);
    let provider = Provider::start(move |number, received| {
        let answer = Scripted::tokens(number);
        if received.form().get("code").is_some_and(|code| code == "slow") { answer.once(&opened) } else { answer }
    })
    .await;
    let (mut fleet, _worker) = Fleet::configured(&provider.url).await;
    let connect = async |fleet: &Fleet, name: &str| {
        let state = fleet.login(name).await;
        let (status, body) = fleet.arrive(&state, &format!("code-{name}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        fleet.idle().await;
        body
    };
    connect(&fleet, "deleted").await;
    // The copy has a command that runs.
    let state = fleet.login("slow").await;
    #[expect(clippy::disallowed_methods, reason = "the test waits for the task")]
    let arriving = tokio::spawn(fleet.arrive(&state, "slow"));
    eventually("the code was sent", async || codes(&provider).iter().any(|code| code == "slow")).await;
    fleet.nats.kill().await;
    let kept = tempfile::tempdir().expect("a temporary folder");
    let streams = fleet.nats.store().join("jetstream/OAUTH/streams");
    let queues = ["OAUTH_COMMANDS", "OAUTH_SCHEDULE"];
    for queue in queues {
        copy(&streams.join(queue), kept.path());
    }
    fleet.nats.restart_once_killed().await;
    fleet.ready().await;
    gate.send_replace(true);
    let (status, slow) = arriving.await.expect("the request ends");
    let is_connected = is_known("slow", status, &slow);
    fleet.idle().await;
    let late = connect(&fleet, "late").await;
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/deleted");
    let (status, body) = fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    fleet.idle().await;

    fleet.nats.kill().await;
    for queue in queues {
        std::fs::remove_dir_all(streams.join(queue)).expect("the queue has files");
        copy(&kept.path().join(queue), &streams);
    }
    fleet.nats.restart_once_killed().await;
    settle(&fleet).await;
    if is_connected {
        assert_stored("slow", &fleet, "slow", &slow).await;
    }
    assert_stored("late", &fleet, "late", &late).await;
    assert_eq!(fleet.get(&format!("{INTEGRATION}/oauth-token/deleted")).await.0, StatusCode::NOT_FOUND);
    let next = connect(&fleet, "next").await;
    assert!(next["sequence"].as_u64() > late["sequence"].as_u64());
    assert_stored("next", &fleet, "next", &next).await;
    assert_unique(&codes(&provider));
    assert_eq!(refreshes(&provider), 0);
}
