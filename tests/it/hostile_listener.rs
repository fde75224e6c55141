//! A second client with the gateways' NATS user, and a reader of the server's trace log.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION};
use crate::provider::{Provider, Scripted};
use crate::support::nats::Nats;

/// Tokens that no random text contains.
fn tokens(number: usize) -> Scripted {
    Scripted::json(
        200,
        &json!({
            "access_token": format!("canary-access-token-{number}"), "refresh_token": format!("canary-refresh-token-{number}"),
            "token_type": "Bearer", "expires_in": 3600, "scope": "read,write",
        }),
    )
}

fn contains(text: &[u8], secret: &str) -> bool {
    text.windows(secret.len()).any(|part| part == secret.as_bytes())
}

#[tokio::test]
async fn h6_no_secret_of_a_gateway_is_heard_by_another_or_traced_by_the_server() {
    let nats = Nats::edited(&[("port: 4222", "port: 4222\ntrace: true")], &[]).await;
    let provider = Provider::start(|number, _| tokens(number)).await;
    let fleet = Fleet::start_on(nats, &provider.url).await;
    let edge = fleet.nats.connect("edge").await;
    let mut heard = edge.subscribe("_INBOX_edge.>").await.expect("a subscription");
    let mut replies = edge.subscribe("oauth.reply.*.*").await.expect("a subscription");
    edge.flush().await.expect("the server answers");
    let (fleet, _worker) = fleet.configure().await;

    let admin = fleet.admin_keys[0].clone();
    let state = fleet.login("one").await;
    let (status, body) = fleet.arrive(&state, "canary-code").await;
    assert_eq!((status.as_u16(), &body["refresh_token"]), (200, &json!("canary-refresh-token-0")), "{body}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (status, body) = fleet.get(&format!("{INTEGRATION}/oauth-refresh-token/one")).await;
    assert_eq!((status.as_u16(), &body["refresh_token"]), (200, &json!("canary-refresh-token-1")), "{body}");
    assert_eq!(fleet.get(&format!("{INTEGRATION}/oauth-token/one")).await.0, 200);
    let made = fleet.request(Method::POST, "hub/api-keys", &admin, &json!({ "name": "new", "role": "admin" })).await;
    let new_key = made.1["key"].as_str().expect("the key is shown once").to_owned();
    fleet.cli(&["config", "--api-key", &admin, "get", INTEGRATION]).await;

    let mut all = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), heard.next()).await {
        all.push(message);
    }
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), replies.next()).await {
        all.push(message);
    }
    assert!(all.len() >= 6, "the second client hears the answers: {}", all.len());
    let trace = fleet.nats.log();
    assert!(contains(&trace, "oauth.edge.token"), "the server traces calls");
    let secrets =
        ["canary-refresh-token-0", "canary-refresh-token-1", "canary-client-secret", "canary-code", &admin, &new_key];
    for secret in secrets {
        assert!(!contains(&trace, secret), "the server's trace log shows {secret}");
        for message in &all {
            let headers = format!("{:?}", message.headers);
            assert!(!contains(&message.payload, secret), "a second client hears {secret} on {}", message.subject);
            assert!(!contains(headers.as_bytes(), secret), "a second client hears {secret} in a header");
        }
    }
    // Tokens on token subjects are in clear by design, so the trace log has them; another gateway has not.
    for message in &all {
        assert!(!contains(&message.payload, "canary-access-token"), "a token of another gateway's call");
    }
}

/// A call as it travelled, from a connection that may receive it.
async fn recorded(calls: &mut async_nats::Subscriber, call: &str) -> async_nats::Message {
    let subject = format!("oauth.edge.{call}");
    loop {
        let message = calls.next().await.expect("calls arrive");
        if message.subject.as_str() == subject {
            return message;
        }
    }
}

#[tokio::test]
async fn h6_a_recorded_call_changes_nothing_and_tells_its_sender_nothing() {
    let provider = Provider::start(|number, _| tokens(number)).await;
    let (fleet, _worker) = Fleet::configured(&provider.url).await;
    let _second = fleet.worker().await;
    assert_eq!(fleet.arrive(&fleet.login("one").await, "code").await.0, 200);
    let listener = fleet.nats.connect("worker").await;
    let mut calls = listener.subscribe("oauth.edge.*").await.expect("a subscription");
    listener.flush().await.expect("the server answers");
    let edge = fleet.nats.connect("edge").await;
    let admin = fleet.admin_keys[0].clone();
    let keys = async || {
        let (_, page) = fleet.request(Method::GET, "hub/api-keys", &admin, &json!({})).await;
        page["results_total"].as_u64().expect("a count")
    };
    let repeat = async |message: &async_nats::Message| {
        let mut answers = Vec::new();
        for _ in 0..4 {
            let answer = edge.request(message.subject.clone(), message.payload.clone()).await.expect("an answer");
            answers.extend_from_slice(&answer.payload);
            answers.push(b'\n');
        }
        answers
    };
    let is_sealed = |answers: &[u8]| {
        let mut lines = answers.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.all(|line| serde_json::from_slice::<Value>(line).is_ok_and(|answer| answer.get("sealed").is_some()))
    };

    assert_eq!(fleet.get(&format!("{INTEGRATION}/oauth-token/one")).await.0, 200);
    let answers = repeat(&recorded(&mut calls, "token").await).await;
    assert!(is_sealed(&answers) && !contains(&answers, "canary"));

    let before = keys().await;
    let made = fleet.request(Method::POST, "hub/api-keys", &admin, &json!({ "name": "new" })).await;
    assert_eq!(keys().await, before + 1);
    let call = recorded(&mut calls, "keys-create").await;
    assert!(is_sealed(&repeat(&call).await));
    assert_eq!(keys().await, before + 1);
    let id = made.1["id"].as_str().expect("an id").to_owned();
    let revoked = fleet.request(Method::DELETE, &format!("hub/api-keys/{id}"), &admin, &json!({})).await;
    assert_eq!((revoked.0.as_u16(), keys().await), (200, before));
    assert!(is_sealed(&repeat(&call).await));
    assert_eq!(keys().await, before, "a revoked key is not revived");

    let bus = Bus::of(&fleet.nats).await;
    let started = async || bus.events("login_started").await.len();
    fleet.login("two").await;
    let logins = started().await;
    assert!(is_sealed(&repeat(&recorded(&mut calls, "login").await).await));
    assert_eq!(started().await, logins, "no second login is pending");

    assert_eq!(fleet.arrive(&fleet.login("two").await, "code").await.0, 200);
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/two");
    assert_eq!(fleet.request(Method::DELETE, &path, &admin, &json!({})).await.0, 200);
    let call = recorded(&mut calls, "delete").await;
    assert_eq!(fleet.arrive(&fleet.login("two").await, "code").await.0, 200);
    assert!(is_sealed(&repeat(&call).await));
    fleet.idle().await;
    assert_eq!(fleet.stored("two").await.0.expect("the newer connection is there")["status"], "active");

    // A worker refuses what is too old.
    tokio::time::sleep(Duration::from_secs(31)).await;
    let answers = repeat(&call).await;
    assert!(contains(&answers, "out_of_time"), "{}", String::from_utf8_lossy(&answers));
}

#[tokio::test]
async fn h6_a_recorded_call_changes_nothing_after_a_restart_of_the_server() {
    let provider = Provider::start(|number, _| tokens(number)).await;
    let (mut fleet, _worker) = Fleet::configured(&provider.url).await;
    for name in ["one", "two"] {
        assert_eq!(fleet.arrive(&fleet.login(name).await, "code").await.0, 200);
    }
    // A young connection is not refreshed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let listener = fleet.nats.connect("worker").await;
    let mut calls = listener.subscribe("oauth.edge.*").await.expect("a subscription");
    listener.flush().await.expect("the server answers");
    let edge = fleet.nats.connect("edge").await;
    let admin = fleet.admin_keys[0].clone();
    assert_eq!(fleet.get(&format!("{INTEGRATION}/oauth-refresh-token/one")).await.0, 200);
    let refresh = recorded(&mut calls, "refresh").await;
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/two");
    assert_eq!(fleet.request(Method::DELETE, &path, &admin, &json!({})).await.0, 200);
    let delete = recorded(&mut calls, "delete").await;
    assert_eq!(fleet.arrive(&fleet.login("two").await, "code").await.0, 200);
    fleet.idle().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let requests = provider.received().len();

    fleet.nats.kill().await;
    fleet.nats.restart_once_killed().await;
    fleet.ready().await;
    for message in [refresh, delete] {
        drop(edge.request(message.subject, message.payload).await.expect("an answer"));
    }
    fleet.idle().await;
    assert_eq!(provider.received().len(), requests, "a recorded refresh or deletion reaches no provider");
    assert_eq!(fleet.stored("two").await.0.expect("the newer connection is there")["status"], "active");
}
