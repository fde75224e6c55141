//! Too many calls of one account's nodes: other accounts are still served.

use std::time::Duration;

use async_nats::client::Request;
use futures_util::future::join_all;
use serde_json::json;

use crate::ask::new_account;
use crate::bus::Bus;
use crate::fleet::{INTEGRATION, eventually};
use crate::provider::{Provider, Scripted};
use crate::refresh_crash::connected;
use crate::support::tokenbus::ACCOUNT;

/// More calls than may wait for one refresh (256).
const CALLS: usize = 800;
/// Time from one call to the next. Faster, a worker on a busy machine has too many calls and refuses them before one waits. All
/// calls are made while the refresh runs.
const PACE: Duration = Duration::from_millis(5);

#[tokio::test]
async fn g3_an_account_that_floods_workers_delays_no_other() {
    let provider = Provider::start(|number, received| {
        let is_refresh = received.form().contains_key("refresh_token");
        Scripted::tokens(number).after(Duration::from_secs(if is_refresh { 6 } else { 0 }))
    })
    .await;
    let (fleet, _pushes) = connected(&provider).await;
    let _worker = fleet.worker().await;
    fleet.ready().await;
    let (node, admin) = (fleet.nats.connect("demo").await, fleet.nats.connect("admin").await);
    let question = json!({ "integration_id": INTEGRATION, "connection_id": "workspace1" }).to_string();
    let request = || Request::new().payload(question.clone().into()).timeout(Some(Duration::from_mins(1)));
    let flood = join_all((0..CALLS).map(async |number| {
        tokio::time::sleep(PACE * u32::try_from(number).expect("a small number")).await;
        node.send_request(format!("ms.oauth.{ACCOUNT}.refresh"), request()).await
    }));
    let other = async {
        eventually("the refresh is running", async || provider.received().len() == 2).await;
        let list = Request::new().payload("{}".into()).timeout(Some(Duration::from_mins(1)));
        admin.send_request(format!("ms.oauth.{}.list", new_account()), list).await.expect("an answer");
    };
    let other = async {
        other.await;
        let commands = Bus::of(&fleet.nats).await.info("OAUTH_COMMANDS").await.state.messages;
        assert_eq!(commands, 1, "the refresh still runs: the other account did not wait for it");
    };
    let (answers, ()) = tokio::join!(flood, other);
    let codes = answers.into_iter().map(|answer| {
        let headers = answer.expect("an answer").headers.unwrap_or_default();
        headers.get("Nats-Service-Error-Code").map_or(String::new(), ToString::to_string)
    });
    let (refreshed, refused): (Vec<_>, Vec<_>) = codes.partition(String::is_empty);
    // On a busy machine some calls fail because the bus is slow with so many reads at once.
    let is_told = |code: &String| ["429", "503"].contains(&code.as_str());
    assert!(refreshed.len() >= 200 && refused.iter().all(is_told), "{} {refused:?}", refreshed.len());
    assert!(refused.iter().any(|code| code == "429"), "{refused:?}");
    assert_eq!(provider.received().len(), 2);
}
