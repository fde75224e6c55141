//! The main job, from the config to the token on its subject.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::ask::ask;
use crate::fleet::eventually;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::world::{INTEGRATION, World};

#[tokio::test]
async fn a_callback_publishes_the_token_on_its_subject() {
    let world = World::with(Provider::generous().await).await;
    let tenant = world.tokenbus.nats.connect("demo").await;
    let mut tokens = tenant.subscribe(format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.*")).await.unwrap();
    Nats::flush(&tenant).await;

    let (status, connection) = world.connect("workspace1").await;
    assert_eq!(status, StatusCode::OK, "{connection}");
    let subject = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.workspace1");
    assert_eq!(connection["subject"], subject);
    assert_eq!((&connection["access_token"], &connection["refresh_token"]), (&"at-0".into(), &"rt-0".into()));

    let pushed = tokens.next().await.unwrap();
    let body: Value = serde_json::from_slice(&pushed.payload).unwrap();
    assert_eq!(body["access_token"], "at-0");
    assert!(body.get("refresh_token").is_none(), "{body}");
    let sequence = pushed.headers.as_ref().unwrap().get("Nats-Sequence").unwrap().as_str().to_owned();
    assert_eq!(connection["sequence"].to_string(), sequence);

    let (status, read) = world.read("workspace1").await;
    assert_eq!((status, &read), (StatusCode::OK, &connection));
}

#[tokio::test]
async fn the_workers_log_has_the_trace_id_of_the_request() {
    let world = World::with(Provider::generous().await).await;
    let login = world.login("workspace1").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let callback = world.callback(&[("code", "canary-code"), ("state", &login.state)]);
    let path = format!("hub/integrations/oauth-callback?{}", callback.query().unwrap());
    let answer = ask(world.tokenbus.request(Method::GET, &path).header("traceparent", trace)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(!answer.header("x-request-id").is_empty());
    let is_done = |line: &str| line.contains("exchange") && line.contains("done");
    eventually("the worker logs it", async || world.tokenbus.log().lines().any(is_done)).await;
    let log = world.tokenbus.log();
    let line = log.lines().find(|line| is_done(line)).expect("the worker logs it");
    assert!(line.contains(trace), "{line}");
    assert!(!log.contains("canary-code") && !log.contains(&login.state), "no secret in the log");
}
