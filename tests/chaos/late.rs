//! A delivery that reaches its worker only after another worker has had the command.

use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, sleep_until};

use crate::answers::Kind;
use crate::configs::CHANGING;
use crate::deployment::Deployment;
use crate::driver::{Driver, Question};
use crate::faults::{Fault, Step};
use crate::links::Cut;
use crate::provider_log::ProviderLog;
use crate::support::wait::eventually;

/// Longer than a pull and the wait for its end, and shorter than the time after which a silent peer counts as dead.
const SILENCE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn h3_a_delivery_that_arrives_after_the_end_of_its_pull_is_left_to_the_next_one() {
    let (provider_log, provider) = ProviderLog::open().await;
    let mut deployment = Deployment::start(provider_log).await;
    let driver = Driver::new(deployment.gateway_urls.clone());
    eventually("the gateways are ready", async || driver.is_ready().await).await;
    let key = deployment.nats.api_key(&deployment.accounts[0], "admin").await;
    let config = deployment.config(&provider.url);
    let put = async |name: &str| {
        let mut body = config.clone();
        body["integration_id"] = CHANGING.into();
        body["name"] = name.into();
        let path = format!("{CHANGING}/oauth-config");
        let put = Question { kind: Kind::ConfigPut, method: Method::PUT, path: &path, key: &key, body: Some(&body) };
        assert_eq!(driver.ask(&put).await.status, Some(200), "{name}");
    };
    let step = |fault, is_begin| Step { at: Duration::ZERO, fault, is_begin };

    deployment.apply(&step(Fault::KillWorker(1), true)).await;
    put("before").await;
    deployment.idle().await;
    // The first worker has asked for commands, and gets this one late.
    deployment.apply(&step(Fault::Cut(0, Cut::Silent), true)).await;
    let end = Instant::now() + SILENCE;
    let start = step(Fault::KillWorker(1), false);
    tokio::join!(put("late"), deployment.apply(&start));
    put("newer").await;
    sleep_until(end).await;
    deployment.apply(&step(Fault::KillWorker(1), true)).await;
    deployment.apply(&step(Fault::Cut(0, Cut::Silent), false)).await;
    put("newest").await;
    put("after it").await;
    deployment.idle().await;
    let log = deployment.log_of(0);
    assert!(!log.contains("record not confirmed"), "the first worker works on the late delivery: {log}");
}
