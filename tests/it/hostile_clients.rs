//! Malicious requests of the gateway's clients.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;

use crate::fleet::{Fleet, INTEGRATION};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;

#[tokio::test]
async fn e4_an_arbitrary_cursor_shows_nothing_foreign_and_causes_no_error() {
    let provider = Provider::generous().await;
    let (fleet, worker) = Fleet::configured(&provider.url).await;
    assert_eq!(fleet.arrive(&fleet.login("one").await, "code").await.0, 200);
    for number in ["0", "1", "9223372036854775807", "18446744073709551614", "18446744073709551615"] {
        let cursor = BASE64_URL_SAFE_NO_PAD.encode(number);
        for path in ["oauth-connections".to_owned(), format!("{INTEGRATION}/oauth-connections")] {
            let path = format!("{path}?cursor={cursor}");
            let (status, body) = fleet.get(&path).await;
            assert_eq!((status.as_u16(), &body["results_total"]), (200, &1.into()), "{number}: {body}");
            let (status, body) = fleet.get_as(&fleet.admin_keys[1], &path).await;
            assert_eq!((status.as_u16(), &body["results_total"]), (200, &0.into()), "{number}: {body}");
        }
    }
    for text in ["18446744073709551616", "-1", "", "1 ", "\u{ff11}"] {
        let cursor = BASE64_URL_SAFE_NO_PAD.encode(text);
        assert_eq!(fleet.get(&format!("oauth-connections?cursor={cursor}")).await.0, 400, "{text}");
    }
    assert!(!worker.log().contains("panicked"), "{}", worker.log());
}

#[tokio::test]
async fn g3_frequent_readiness_requests_rarely_reach_the_bus() {
    let fleet = Fleet::start("http://127.0.0.1:1").await;
    let _worker = fleet.worker().await;
    fleet.ready().await;
    let client = fleet.nats.connect("worker").await;
    let mut received = client.subscribe("oauth.edge.ready").await.unwrap();
    client.flush().await.unwrap();
    let (http, began) = (reqwest::Client::builder().no_proxy().build().unwrap(), Instant::now());
    let mut rounds = 0;
    // For longer than an answer is cached.
    while rounds < 8 || began.elapsed() < Duration::from_secs(1) {
        rounds += 1;
        let all = join_all((0..50).map(|_| http.get(fleet.endpoint("readyz")).send())).await;
        assert!(all.into_iter().all(|answer| answer.unwrap().status() == 200));
    }
    let most = 2 + began.elapsed().as_millis() / Duration::from_millis(500).as_millis();
    client.flush().await.unwrap();
    let mut count = 0;
    while let Some(Some(_)) = received.next().now_or_never() {
        count += 1;
    }
    assert!((1..=most).contains(&count), "{count} questions for {rounds} times 50 requests, at most {most} are enough");
}

#[tokio::test]
async fn f1_an_error_never_repeats_a_value_of_the_request() {
    let fleet = Fleet::start("http://127.0.0.1:1").await;
    let _worker = fleet.worker().await;
    fleet.ready().await;
    let (client, operator) = (fleet.nats.connect("admin").await, fleet.nats.connect("operator").await);
    let long = "canary-name".repeat(80_000);
    for (question, expected) in [
        (json!({ "integration_id": INTEGRATION, "connection_id": "one", "min_valid": "canary-token" }), "expected u32"),
        (json!({ "integration_id": INTEGRATION, "connection_id": { "canary-token": 1 } }), "expected a string"),
        (json!({ "integration_id": INTEGRATION, "connection_id": "canary-token, expected x" }), "letters"),
        (json!({ "integration_id": INTEGRATION, "refresh_token": 4_815_162_342_u64 }), "expected a string"),
        (json!({ &*long: 1 }), "a question has at most"),
        (json!({ &long[..60_000]: 1 }), "unknown field"),
    ] {
        let subject = format!("ms.oauth.{ACCOUNT}.token");
        let answer = client.request(subject, question.to_string().into()).await.expect("it is answered");
        let error = answer.headers.expect("headers").get("Nats-Service-Error").expect("an error").to_string();
        assert!(error.contains(expected) && error.len() < 2_000, "{error}");
        assert!(!error.contains("canary-token") && !error.contains("4815162342"), "{error}");
    }
    let statistics = operator.request("$SRV.STATS.tokenbus", "".into()).await.expect("statistics");
    let statistics = String::from_utf8_lossy(&statistics.payload).into_owned();
    assert!(statistics.contains("last_error") && !statistics.contains("canary-token"), "{statistics}");
}
