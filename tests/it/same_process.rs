//! A gateway and a worker in one process: calls and answers that do not pass the bus.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use reqwest::{Method, StatusCode};

use crate::provider::Provider;
use crate::world::{INTEGRATION, World};

/// Longer than a message takes on its way.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn calls_and_answers_of_one_process_do_not_pass_the_bus() {
    let world = World::with_settings(Provider::generous().await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let client = world.tokenbus.nats.connect("worker").await;
    let mut passing = SelectAll::new();
    for subject in ["oauth.edge.*", "oauth.again.*", "oauth.reply.*.*", "oauth.reply.worker.*.*"] {
        passing.push(client.subscribe(subject).await.expect("a subscription"));
    }
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
    // This call shows whether the bus carries calls. What passed earlier arrives first. The gateway repeats recent answers.
    let asked = async {
        loop {
            let ready = world.tokenbus.request(Method::GET, "readyz").send().await.expect("tokenbus answers");
            assert_eq!(ready.status(), StatusCode::OK);
            tokio::time::sleep(PAUSE).await;
        }
    };
    let passed = async {
        let mut subjects = Vec::new();
        while subjects.last().is_none_or(|subject| subject != "oauth.edge.ready") {
            subjects.push(passing.next().await.expect("the connection lasts").subject.to_string());
        }
        subjects
    };
    let passed = tokio::select! {
        passed = tokio::time::timeout(PATIENCE, passed) => passed.expect("the call passes the bus"),
        () = asked => unreachable!("it has no end"),
    };
    assert_eq!(passed, ["oauth.edge.ready"]);
}
