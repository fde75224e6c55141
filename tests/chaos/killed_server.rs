//! How long callbacks take while a server of a cluster of three is killed, or stopped by an operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::answers::Kind;
use crate::deployment::{Deployment, INTEGRATION};
use crate::driver::Driver;
use crate::pace::every;
use crate::provider_log::ProviderLog;
use crate::run::configure;
use crate::support::nats::Nats;
use crate::support::wait::eventually;
use crate::tenant::state_of;

/// Time from one callback to the next.
const PACE: Duration = Duration::from_millis(250);
/// Time with callbacks before each measurement, and during it: longer than the longest wait for an election, 9 s.
const WINDOW: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No server ends.
    None,
    /// SIGKILL.
    Kill,
    /// SIGTERM: leaders hand over.
    Stop,
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_succeed_while_a_server_of_three_is_killed() {
    let (provider_log, provider) = ProviderLog::open().await;
    let mut deployment = Deployment::start_cluster(Arc::clone(&provider_log)).await;
    let driver = Driver::new(deployment.gateway_urls.clone());
    let keys = configure(&driver, &deployment, &deployment.config(&provider.url)).await;
    let names = AtomicUsize::new(0);
    let callbacks = async || {
        every(PACE, Instant::now() + WINDOW, async || {
            let name = format!("k{}", names.fetch_add(1, Ordering::Relaxed));
            let login = driver.get(Kind::Login, &format!("{INTEGRATION}/oauth-login/{name}"), &keys[0]).await;
            let Some(state) = state_of(&login) else { return };
            driver.get(Kind::Callback, &format!("oauth-callback?code=code-t0-{name}-0&state={state}"), &keys[0]).await;
        })
        .await;
    };
    for (leads, how) in [
        (None, End::None),
        (Some("OAUTH"), End::Kill),
        (Some("OAUTH_COMMANDS"), End::Kill),
        (None, End::Kill),
        (Some("OAUTH"), End::Stop),
        (None, End::None),
    ] {
        deployment.idle().await;
        let victim = match leads {
            Some(stream) => deployment.leader_of(stream).await.expect("the stream has a leader"),
            None => meta_leader(&deployment.nats).await,
        };
        drop(std::mem::take(&mut driver.ledger().answers));
        let end = async {
            match how {
                End::None => {}
                End::Kill => deployment.nats.kill_node(victim).await,
                End::Stop => deployment.nats.signal_node(victim, "TERM"),
            }
        };
        tokio::join!(callbacks(), end);
        let answers = std::mem::take(&mut driver.ledger().answers);
        let (leader, failures) = (leads.unwrap_or("the cluster"), answers.failures());
        println!(
            "{how:?} the leader of {leader}: longest login {:.1} s, longest callback {:.1} s, {} callbacks, {failures:?}",
            answers.longest_answer(Kind::Login).as_secs_f64(),
            answers.longest_answer(Kind::Callback).as_secs_f64(),
            answers.successes(Kind::Callback),
        );
        if how != End::None {
            deployment.nats.start_node(victim).await;
            eventually("the gateways are ready", async || driver.is_ready().await).await;
        }
    }
    let faults = provider_log.repeats().faults;
    assert!(faults.is_empty(), "{faults:?}");
}

/// The number of the server that leads the cluster: it assigns streams to servers.
async fn meta_leader(nats: &Nats) -> usize {
    let system = nats.connect("system").await;
    let answer = system.request("$SYS.REQ.SERVER.PING.JSZ", "".into()).await.expect("a server answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    let leader = answer["data"]["meta_cluster"]["leader"].as_str().expect("the cluster has a leader");
    leader.rsplit('-').next().and_then(|number| number.parse::<usize>().ok()).expect("a number") - 1
}
