//! What meets at one connection: a refresh and a login, the clock and a caller, many callers and one failure, a worker
//! that died and whoever waits. Whatever meets, the connection keeps a schedule and everybody gets an answer.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::{Asked, Provider, Said};
use crate::refresh_crash::{connected, due};

const NAME: &str = "workspace1";

fn is_refresh(asked: &Asked) -> bool {
    asked.form().contains_key("refresh_token")
}

/// A provider whose refreshes end so.
async fn provider(refreshed: Said) -> Provider {
    Provider::start(move |number, asked| if is_refresh(asked) { refreshed.clone() } else { Said::tokens(number) }).await
}

/// What the connection's schedules remember: one for each, those that are due included.
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

async fn failures(fleet: &Fleet) -> usize {
    fleet.events().await.iter().filter(|event| event["event"] == "refresh_failed").count()
}

/// An old refresh fails after a new login, and its schedule takes the place of the login's.
#[tokio::test]
async fn d9_a_refresh_that_fails_after_a_new_login_leaves_the_login_its_schedule() {
    let (connected_anew, is_connected_anew) = watch::channel(false);
    let provider = provider(Said::json(503, &json!({})).once(&is_connected_anew)).await;
    let (fleet, _pushes) = connected(&provider).await;
    let _worker = fleet.worker().await;
    due(&fleet).await;
    eventually("the refresh is under way", async || provider.asked().iter().any(is_refresh)).await;
    let state = fleet.login(NAME).await;
    let (status, body) = fleet.arrive(&state, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    connected_anew.send_replace(true);
    eventually("the old refresh fails", async || failures(&fleet).await > 0).await;
    let set_for = json!({ "sequence": body["sequence"] });
    eventually("what is set is the login's", async || schedules(&fleet).await == [set_for.clone()]).await;
    assert_eq!(provider.asked().iter().filter(|asked| is_refresh(asked)).count(), 1);
}

/// What came up while a caller's refresh held the queue's place must not be forgotten with it: that one may end in
/// nothing.
#[tokio::test]
async fn d9_what_is_due_while_a_callers_refresh_is_queued_is_not_forgotten() {
    let refused = Said { headers: vec![("retry-after", "120".to_owned())], ..Said::json(503, &json!({})) };
    let provider = provider(refused).await;
    let (fleet, _pushes) = connected(&provider).await;
    let mut doomed = fleet.worker_dying_at("before_ack").await;
    let call = refreshes(&fleet, 1);
    let dies = async {
        assert!(!doomed.ended().await.success());
        // The command is on the queue still.
        due(&fleet).await;
        fleet.worker().await
    };
    let (_, _second) = tokio::join!(call, dies);
    fleet.idle().await;
    eventually("there is a schedule", async || schedules(&fleet).await.len() == 1).await;
    // Not one that is about to be dropped.
    let second =
        async || schedules(&fleet).await == [json!({ "sequence": fleet.stored(NAME).await.0.unwrap()["sequence"] })];
    eventually("it is the connection's", second).await;
    fleet.idle().await;
    assert_eq!(schedules(&fleet).await.len(), 1);
}

#[tokio::test]
async fn d1_a_failure_reaches_all_who_wait_at_once() {
    let provider = provider(Said::json(503, &json!({})).after(Duration::from_secs(2))).await;
    let (fleet, _pushes) = connected(&provider).await;
    let _workers: Vec<Worker> = join_all((0..3).map(|_| fleet.worker())).await;
    for (status, body) in refreshes(&fleet, 200).await {
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    }
    assert_eq!(provider.asked().iter().filter(|asked| is_refresh(asked)).count(), 1);
    assert!(fleet.deliveries("refresh").await < 100, "each waits for one failure, not for a command of its own");
}

/// A worker dies between the tombstone and the provider; a refresh that is due meanwhile takes nothing away.
#[tokio::test]
async fn g1_a_revocation_cut_short_is_repeated_by_the_next_worker() {
    let provider = Provider::start(|number, asked| match asked.path.as_str() {
        "/revoke" => Said::new(200, "text/plain", ""),
        _ => Said::tokens(number),
    })
    .await;
    let (fleet, _pushes) = connected(&provider).await;
    let mut configurer = fleet.worker().await;
    let mut config = fleet.config();
    config["revocation_url"] = format!("{}/revoke", provider.url).into();
    fleet.ready().await;
    assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
    configurer.kill().await;
    let mut doomed = fleet.worker_dying_at("after_revocation").await;
    let url = fleet.endpoint(&format!("hub/integrations/{INTEGRATION}/oauth-connections/{NAME}"));
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let delete = http.delete(url).header("x-api-key", &fleet.admin_keys[0]).send();
    let dies = async {
        assert!(!doomed.ended().await.success());
        due(&fleet).await;
        fleet.worker().await
    };
    // Whoever asked may have asked the one that died.
    let (_, _second) = tokio::join!(delete, dies);
    fleet.idle().await;
    let asked: Vec<Asked> = provider.asked().into_iter().filter(|asked| asked.path == "/revoke").collect();
    let tokens: Vec<String> = asked.iter().map(|asked| asked.form()["token"].clone()).collect();
    assert_eq!(tokens, ["rt-0", "at-0"]);
    let events = fleet.events().await;
    let revoked = events.iter().find(|event| event["event"] == "revoked").expect("an event");
    assert_eq!(revoked["reason"], "revoked_at_provider");
    assert_eq!(fleet.stored(NAME).await.0, None, "nothing is left of it here");
}
