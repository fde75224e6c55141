//! Workers whose clocks differ from the server's.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::fleet::{Fleet, Worker, eventually};
use crate::provider::{Provider, Received, Scripted};

/// Lifetime of the provider's tokens in seconds.
const LIFETIME: i64 = 300;

/// Requests for readiness: each of two workers answers one of them, except in one of 2,000 runs.
const READINESS_REQUESTS: usize = 12;
/// Time from one to the next: longer than the gateway keeps an answer.
const READINESS_PACE: Duration = Duration::from_millis(550);

async fn provider() -> Provider {
    Provider::start(|number, _| {
        let (access, refresh) = (format!("at-{number}"), format!("rt-{number}"));
        let body = json!({ "access_token": access, "refresh_token": refresh, "expires_in": LIFETIME });
        Scripted::json(200, &body)
    })
    .await
}

fn refreshes(provider: &Provider) -> usize {
    provider.received().iter().filter(|received: &&Received| received.form().contains_key("refresh_token")).count()
}

/// Starts a worker whose clock is ahead by that many seconds.
async fn worker_ahead(fleet: &Fleet, seconds: i64) -> Worker {
    let ahead = seconds.to_string();
    let worker = fleet.worker_with(&[("FAIL_CLOCK_AHEAD", &ahead), ("TOKENBUS_HTTP__METRICS_LISTEN", "127.0.0.1:0")]);
    worker.ready().await;
    worker
}

async fn connect(fleet: &Fleet, name: &str) -> Value {
    let state = fleet.login(name).await;
    let (status, connection) = fleet.arrive(&state, "code").await;
    assert_eq!(status, StatusCode::OK, "{connection}");
    connection
}

/// The value of the metric for the clock's lead.
async fn measured(worker: &Worker) -> f64 {
    let log = worker.log();
    let line = log.lines().find(|line| line.contains("metrics on http://")).expect("the worker serves metrics");
    let url = line.rsplit(' ').next().expect("a URL");
    let text = reqwest::get(url).await.expect("metrics").text().await.expect("a whole answer");
    let value = text.lines().find_map(|line| line.strip_prefix("tokenbus_clock_ahead_seconds "));
    value.expect("the clock is measured").parse().expect("a number")
}

#[tokio::test]
async fn h15_a_worker_two_hours_off_takes_no_commands_and_says_why() {
    for (seconds, says) in [(7_200_i32, "ahead of the NATS server's"), (-7_200, "behind the NATS server's")] {
        let provider = provider().await;
        let fleet = Fleet::start(&provider.url).await;
        let mut wrong = worker_ahead(&fleet, seconds.into()).await;
        eventually("the gateway names the reason", async || {
            let answer = reqwest::get(fleet.endpoint("readyz")).await.expect("the gateway answers");
            answer.status() == StatusCode::SERVICE_UNAVAILABLE && answer.text().await.unwrap_or_default().contains(says)
        })
        .await;
        assert!(wrong.log().contains(says) && wrong.log().contains("takes no commands"), "{}", wrong.log());
        let difference = measured(&wrong).await - f64::from(seconds);
        assert!(difference.abs() < 2.0, "{difference}");

        let readiness = async || reqwest::get(fleet.endpoint("readyz")).await.expect("the gateway answers").status();
        let put = async { fleet.put(&fleet.admin_keys[0], &fleet.config()).await.0 };
        let healthy = async {
            let bus = Bus::of(&fleet.nats).await;
            eventually("the command is queued", async || bus.info("OAUTH_COMMANDS").await.state.messages == 1).await;
            assert_eq!(fleet.deliveries("put").await, 0);
            let healthy = fleet.worker().await;
            // From now on also when the worker that is off is asked: the queue group chooses one at random.
            eventually("the gateway is ready", async || readiness().await == StatusCode::OK).await;
            for _ in 0..READINESS_REQUESTS {
                tokio::time::sleep(READINESS_PACE).await;
                assert_eq!(readiness().await, StatusCode::OK);
            }
            healthy
        };
        let (status, _healthy) = tokio::join!(put, healthy);
        assert_eq!(status, StatusCode::OK);
        wrong.kill().await;
    }
}

#[tokio::test]
async fn h15_expiries_are_counted_from_the_buss_time() {
    for seconds in [240, -240] {
        let provider = provider().await;
        let fleet = Fleet::start(&provider.url).await;
        let worker = worker_ahead(&fleet, seconds).await;
        assert!(worker.log().contains(&format!("differs from the NATS server's by {seconds:+} s")), "{}", worker.log());
        assert_eq!(fleet.put(&fleet.admin_keys[0], &fleet.config()).await.0, StatusCode::OK);

        let expiry: Timestamp = connect(&fleet, "one").await["expiry"].as_str().unwrap().parse().unwrap();
        let left = expiry.duration_since(tokenbus::internals::system::now());
        let expected = SignedDuration::from_secs(LIFETIME);
        assert!((left - expected).abs() < SignedDuration::from_secs(30), "{seconds}: {left}");

        let bus = Bus::of(&fleet.nats).await;
        bus.age("one", fleet.setting("TOKENBUS_SECRETS__KEYS_FILE").as_ref()).await;
        bus.due("one").await;
        eventually("the token is refreshed", async || refreshes(&provider) == 1).await;
        fleet.idle().await;
        assert_eq!(refreshes(&provider), 1);
    }
}

#[tokio::test]
async fn h15_a_worker_six_minutes_behind_beside_another_causes_one_refresh_each() {
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let provider = provider().await;
    let (fleet, _healthy) = Fleet::configured(&provider.url).await;
    let _behind = worker_ahead(&fleet, -360).await;
    let bus = Bus::of(&fleet.nats).await;
    for name in NAMES {
        connect(&fleet, name).await;
        bus.age(name, fleet.setting("TOKENBUS_SECRETS__KEYS_FILE").as_ref()).await;
    }
    // A login's own schedule may follow its answer, and would replace this one.
    fleet.idle().await;
    for name in NAMES {
        bus.due(name).await;
    }
    eventually("each is refreshed", async || refreshes(&provider) >= NAMES.len()).await;
    // A schedule in the past fires within a quarter of a second, so in this time the old code refreshed many times.
    let began = Instant::now();
    eventually("some seconds pass", async || began.elapsed() > Duration::from_secs(5)).await;
    assert_eq!(refreshes(&provider), NAMES.len());
}

#[tokio::test]
async fn o7_a_worker_six_minutes_behind_alone_requests_no_tokens() {
    let provider = provider().await;
    let (fleet, mut healthy) = Fleet::configured(&provider.url).await;
    connect(&fleet, "one").await;
    let bus = Bus::of(&fleet.nats).await;
    fleet.idle().await;
    healthy.kill().await;
    let late = worker_ahead(&fleet, -360).await;
    bus.due("one").await;
    let says = "behind the NATS server's, so the worker takes no commands";
    eventually("the worker says why", async || late.log().contains(says)).await;
    let began = Instant::now();
    eventually("some seconds pass", async || began.elapsed() > Duration::from_secs(5)).await;
    assert_eq!(refreshes(&provider), 0);
}

#[tokio::test]
async fn o7_a_clock_that_jumps_for_a_moment_changes_no_expiry() {
    let provider = provider().await;
    let fleet = Fleet::start(&provider.url).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("ahead");
    let shift = |seconds: i64| std::fs::write(&file, seconds.to_string()).expect("it is written");
    shift(0);
    let worker = fleet.worker_with(&[("FAIL_CLOCK_FILE", file.to_str().expect("a path of plain letters"))]);
    worker.ready().await;
    assert_eq!(fleet.put(&fleet.admin_keys[0], &fleet.config()).await.0, StatusCode::OK);
    let state = fleet.login("one").await;
    shift(7_200);
    let arriving = fleet.arrive(&state, "code");
    let jumping = async {
        // Before the worker takes no commands any more, or after.
        eventually("the code is sent, or the worker waits", async || {
            !provider.received().is_empty() || worker.log().contains("takes no commands")
        })
        .await;
        shift(0);
    };
    let ((status, connection), ()) = tokio::join!(arriving, jumping);
    assert_eq!(status, StatusCode::OK, "{connection}");
    let expiry: Timestamp = connection["expiry"].as_str().expect("an expiry").parse().expect("a time");
    let left = expiry.duration_since(tokenbus::internals::system::now());
    assert!((left - SignedDuration::from_secs(LIFETIME)).abs() < SignedDuration::from_secs(30), "{left}");
}
