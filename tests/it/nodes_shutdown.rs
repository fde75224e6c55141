//! The calls of nodes during a worker's shutdown.

use std::time::Duration;

use async_nats::client::Request;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::fleet::{Fleet, INTEGRATION, eventually};
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::ACCOUNT;

#[tokio::test]
async fn g2_a_worker_answers_running_calls_and_publishes_its_read_counts_before_it_ends() {
    let slow = |number, received: &crate::provider::Received| {
        let is_refresh = received.body.contains("refresh_token");
        Scripted::tokens(number).after(Duration::from_millis(if is_refresh { 1_500 } else { 0 }))
    };
    let provider = Provider::start(slow).await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    let state = fleet.login("one").await;
    assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
    for _ in 0..2 {
        assert_eq!(fleet.get(&format!("{INTEGRATION}/oauth-token/one")).await.0, StatusCode::OK);
    }

    let node = fleet.nats.connect("demo").await;
    let question = json!({ "integration_id": INTEGRATION, "connection_id": "one", "min_valid": 7_200 });
    // Until the record is old enough to be refreshed, calls are answered with it.
    let call = async {
        for received in 1.. {
            let payload = question.to_string().into();
            let request = Request::new().payload(payload).timeout(Some(Duration::from_mins(1)));
            let answer = node.send_request(format!("ms.oauth.{ACCOUNT}.token"), request).await.expect("an answer");
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            if answer["access_token"] == "at-1" {
                return received;
            }
        }
        unreachable!("it asks for ever")
    };
    let stop = async {
        eventually("the provider receives the request", async || provider.received().len() == 2).await;
        worker.signal("TERM");
    };
    let (received, ()) = tokio::join!(call, stop);
    assert!(worker.ended().await.success());

    let events = fleet.events().await;
    let reads: Vec<_> = events.iter().filter(|event| event["event"] == "read").collect();
    let by = |start: &str| {
        let found = reads.iter().filter(|event| event["actor"].as_str().unwrap().starts_with(start));
        found.map(|event| event["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((by("key:"), by("node:")), (2, received), "{reads:?}");
    let gone = fleet.nats.connect("operator").await.request("$SRV.PING.tokenbus", "".into()).await;
    assert!(gone.is_err(), "no worker serves calls any more");
}
