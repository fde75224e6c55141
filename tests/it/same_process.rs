//! A gateway and a worker in one process: calls and answers that do not pass the bus.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};

use crate::provider::Provider;
use crate::world::{INTEGRATION, World};

/// Longer than a message takes on its way.
const QUIET: Duration = Duration::from_millis(500);

#[tokio::test]
async fn calls_and_answers_of_one_process_do_not_pass_the_bus() {
    let world = World::with_settings(Provider::generous().await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let client = world.tokenbus.nats.connect("worker").await;
    let mut passing = client.subscribe("oauth.>").await.expect("a subscription");
    client.flush().await.expect("the server answers");
    let (status, body) = world.connect("one").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(world.read("one").await.0, StatusCode::OK);
    for path in ["oauth-refresh-token/one", "oauth-login/two", "oauth-connections"] {
        let (status, body) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
    }
    let (status, body) = world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/one")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    while let Ok(Some(message)) = tokio::time::timeout(QUIET, passing.next()).await {
        let subject = message.subject.as_str();
        assert!(
            !["oauth.edge.", "oauth.again.", "oauth.reply."].iter().any(|start| subject.starts_with(start)),
            "on the bus: {subject}"
        );
    }
    // The answer shows whether the bus carries calls.
    let ready = world.tokenbus.request(Method::GET, "readyz").send().await.expect("tokenbus answers");
    assert_eq!(ready.status(), StatusCode::OK);
    let asked = tokio::time::timeout(QUIET, passing.next()).await.expect("a call").expect("the connection lasts");
    assert_eq!(asked.subject.as_str(), "oauth.edge.ready");
}
