//! A grant with rotating refresh tokens survives many refreshes while workers die, because no refresh token is
//! sent twice. The server revokes a grant when it receives an old refresh token again.

use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::parts::client::{CLIENT, SECRET, metadata};
use crate::parts::provider::Provider;
use crate::parts::visitor::{Consent, query, walk};
use reqwest::StatusCode;
use serde_json::json;
use url::Url;

const CONNECTION: &str = "workspace1";
const REFRESHES: u64 = 200;
const KILLS: usize = 20;
/// Places outside the window from sending the request to the stored record.
const PLACES: [&str; 4] =
    ["refresh_3_record_written", "apply_1_kv_written", "apply_3_event_published", "delivery_1_answered"];
/// Failpoint of every tenth kill, which holds the next refresh for most of a minute.
const BEFORE: &str = "refresh_1_permit_taken";
/// Tokens are never too young to be refreshed, and each worker shows its metrics.
const SETTINGS: [(&str, &str); 2] =
    [("TOKENBUS_REFRESH__MIN_INTERVAL", "500ms"), ("TOKENBUS_HTTP__METRICS_LISTEN", "127.0.0.1:0")];

#[tokio::test]
async fn d2_a_rotating_grant_survives_twenty_killed_workers() {
    let fleet = Fleet::start("http://127.0.0.1:9").await;
    let provider = connect(&fleet).await;
    let lasting = [worker(&fleet, None).await, worker(&fleet, None).await];
    let (mut kills, mut last) = (0, sequence(&fleet).await);
    while kills < KILLS {
        let place = if kills % 10 == 0 { BEFORE } else { PLACES[kills % PLACES.len()] };
        let mut doomed = worker(&fleet, Some(place)).await;
        while doomed.process.is_alive() {
            due(&fleet, last).await;
            last = newer(&fleet, last).await;
            // Wait for the dead worker's refresh first: another one would find it queued.
            fleet.idle().await;
        }
        doomed.ended().await;
        kills += 1;
    }
    let third = worker(&fleet, None).await;
    fleet.ready().await;
    while refreshes(&provider).await < REFRESHES {
        let (status, body) = fleet.get(&format!("{INTEGRATION}/oauth-refresh-token/{CONNECTION}")).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("active")), "{body}");
        assert!(body["sequence"].as_u64() > Some(last), "{body}");
        last = body["sequence"].as_u64().expect("a sequence");
    }
    let received = provider.received().await;
    assert!(received.iter().all(|received| received.status == 200), "{received:?}");
    println!("{} refreshes in a row, {kills} workers killed: the grant is alive", refreshes(&provider).await);
    let (mut seconds, mut times) = (0.0, 0.0);
    for worker in lasting.iter().chain([&third]) {
        let (more, count) = refresh_window(worker).await;
        (seconds, times) = (seconds + more, times + count);
    }
    println!(
        "from sending the refresh token to the stored record: {:.1} ms on average of {times}",
        seconds / times * 1e3
    );
}

/// The provider, and a connection to it that a worker made, which has ended.
async fn connect(fleet: &Fleet) -> Provider {
    let mut client = metadata(CLIENT);
    let mut config = fleet.config();
    client["redirect_uris"] = json!([config["redirect_url"]]);
    let provider = Provider::start(std::slice::from_ref(&client)).await;
    config["client_id"] = client["client_id"].clone();
    config["client_secret"] = SECRET.into();
    config["token_auth_method"] = client["token_endpoint_auth_method"].clone();
    config["auth_url"] = provider.authorization_endpoint().as_str().into();
    config["token_url"] = provider.token_endpoint().as_str().into();
    let mut first = fleet.worker().await;
    fleet.ready().await;
    let (status, body) = fleet.put(&fleet.admin_keys[0], &config).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, login) = fleet.get(&format!("{INTEGRATION}/oauth-login/{CONNECTION}")).await;
    let start: Url = login["oauth_url"].as_str().and_then(|url| url.parse().ok()).expect("a URL");
    let callback = walk(start, config["redirect_url"].as_str().expect("a URL"), Consent::Allow).await;
    let found = query(&callback);
    let (status, body) = fleet.arrive(&found["state"], &found["code"]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    fleet.idle().await;
    first.kill().await;
    provider
}

async fn worker(fleet: &Fleet, dies_at: Option<&str>) -> Worker {
    let mut settings = SETTINGS.to_vec();
    settings.extend(dies_at.map(|place| ("FAIL_KILL_AT", place)));
    let worker = fleet.worker_with(&settings);
    worker.ready().await;
    worker
}

async fn sequence(fleet: &Fleet) -> u64 {
    let stored = fleet.stored(CONNECTION).await.0.expect("the connection is stored");
    assert_eq!(stored["status"], "active", "{stored}");
    stored["sequence"].as_u64().expect("a sequence")
}

/// Waits for the next token.
async fn newer(fleet: &Fleet, than: u64) -> u64 {
    eventually("the token is refreshed", async || sequence(fleet).await > than).await;
    sequence(fleet).await
}

/// Publishes the due message of the connection, as its schedule would at its time.
async fn due(fleet: &Fleet, sequence: u64) {
    let jetstream = fleet.jetstream("worker").await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Schedule", "@at 2000-01-01T00:00:00Z");
    headers.insert("Nats-Schedule-Target", format!("ms.integration.oauth.{}.refresh.due", Fleet::path(CONNECTION)));
    let subject = format!("ms.integration.oauth.{}.refresh.at", Fleet::path(CONNECTION));
    let body = json!({ "sequence": sequence }).to_string();
    jetstream.publish_with_headers(subject, headers, body.into()).await.expect("sent").await.expect("stored");
}

async fn refreshes(provider: &Provider) -> u64 {
    let received = provider.received().await;
    let refreshes = received.iter().filter(|received| received.grant_type.as_deref() == Some("refresh_token"));
    u64::try_from(refreshes.count()).expect("not that many")
}

/// Total length of all windows between a token request and the stored record, in seconds, and their number.
async fn refresh_window(worker: &Worker) -> (f64, f64) {
    let log = worker.log();
    let url = log.split_whitespace().find(|word| word.ends_with("/metrics")).expect("it says where its metrics are");
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let metrics = http.get(url).send().await.expect("it answers").text().await.expect("text");
    let value = |end: &str| {
        let name = format!("tokenbus_refresh_window_seconds_{end} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("it is measured");
        value.parse::<f64>().expect("a number")
    };
    (value("sum"), value("count"))
}
