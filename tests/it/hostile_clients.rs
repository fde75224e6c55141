//! What clients of the gateway ask for that nobody would who means well.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fleet::{Fleet, INTEGRATION, eventually};
use crate::provider::{Asked, Provider, Said};
use crate::support::tokenbus::ACCOUNT;

#[tokio::test]
async fn e4_a_cursor_of_any_number_shows_nothing_foreign_and_breaks_nothing() {
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
async fn g3_whoever_asks_for_readiness_all_the_time_asks_the_bus_now_and_then() {
    let fleet = Fleet::start("http://127.0.0.1:1").await;
    let _worker = fleet.worker().await;
    fleet.ready().await;
    let client = fleet.nats.connect("worker").await;
    let mut asked = client.subscribe("oauth.edge.ready").await.unwrap();
    client.flush().await.unwrap();
    let (http, began) = (reqwest::Client::builder().no_proxy().build().unwrap(), Instant::now());
    let mut rounds = 0;
    // For longer than an answer is believed.
    while rounds < 8 || began.elapsed() < Duration::from_secs(1) {
        rounds += 1;
        let all = join_all((0..50).map(|_| http.get(fleet.endpoint("readyz")).send())).await;
        assert!(all.into_iter().all(|answer| answer.unwrap().status() == 200));
    }
    let most = 2 + began.elapsed().as_millis() / Duration::from_millis(500).as_millis();
    client.flush().await.unwrap();
    let mut count = 0;
    while let Some(Some(_)) = asked.next().now_or_never() {
        count += 1;
    }
    assert!((1..=most).contains(&count), "{count} questions for {rounds} times 50 requests, at most {most} are enough");
}

#[tokio::test]
async fn g3_calls_that_wait_for_one_account_hold_up_no_other() {
    let script = |number, asked: &Asked| {
        let is_refresh = asked.form().get("grant_type").is_some_and(|grant| grant == "refresh_token");
        Said::tokens(number).after(Duration::from_secs(if is_refresh { 8 } else { 0 }))
    };
    let provider = Provider::start(script).await;
    let (fleet, _worker) = Fleet::configured(&provider.url).await;
    assert_eq!(fleet.arrive(&fleet.login("one").await, "code").await.0, 200);
    // More than all of the places, each for as long as the provider lets wait.
    let client = fleet.nats.connect("admin").await;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let question = json!({ "integration_id": INTEGRATION, "connection_id": "one" }).to_string();
    eventually("what is stored is old enough to be refreshed", async || {
        fleet
            .stored("one")
            .await
            .0
            .is_some_and(|stored| stored["modified"].as_i64().unwrap() + 2 < tokenbus::system::now().as_second())
    })
    .await;
    for _ in 0..1_500 {
        let subject = format!("ms.oauth.{ACCOUNT}.refresh");
        client.publish_with_reply(subject, inbox.clone(), question.clone().into()).await.unwrap();
    }
    let other = client.request(format!("ms.oauth.{}.list", fleet.other_account), "".into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&other.payload).unwrap()["results_total"], 0);
    let mut codes = BTreeMap::new();
    for _ in 0..1_500 {
        let answer = timeout(Duration::from_mins(1), answers.next()).await.expect("each is answered").unwrap();
        let headers = answer.headers.unwrap_or_default();
        let code = headers.get("Nats-Service-Error-Code").map_or("200", |code| code.as_str()).to_owned();
        assert_eq!(code == "429", headers.get("Retry-After").is_some(), "{headers:?}");
        *codes.entry(code).or_insert(0) += 1;
    }
    assert!(codes.get("429").is_some_and(|count| (1..=1_500 - 256).contains(count)), "{codes:?}");
}

#[tokio::test]
async fn f1_an_error_repeats_no_value_however_it_came_there() {
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
