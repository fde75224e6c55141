//! The run: tenants work during the faults, then everything recovers and is checked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tokenbus::internals::config::env;
use tokio::time::{Instant, sleep_until};

use crate::answers::Kind;
use crate::check::{check, check_configs, refresh_all};
use crate::configs::change_configs;
use crate::deployment::{Deployment, INTEGRATION};
use crate::driver::{Driver, Question};
use crate::faults::{Step, print, schedule};
use crate::provider::Provider;
use crate::provider_log::ProviderLog;
use crate::support::wait::eventually;
use crate::tenant::Tenant;

pub(crate) fn number(name: &str) -> Option<u64> {
    env(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_one_server() {
    let (provider_log, provider) = ProviderLog::open().await;
    let deployment = Deployment::start(Arc::clone(&provider_log)).await;
    Box::pin(run(deployment, &provider_log, &provider)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_three_servers() {
    let (provider_log, provider) = ProviderLog::open().await;
    let deployment = Deployment::start_cluster(Arc::clone(&provider_log)).await;
    Box::pin(run(deployment, &provider_log, &provider)).await;
}

async fn run(mut deployment: Deployment, provider_log: &ProviderLog, provider: &Provider) {
    let length = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(480)) / 2;
    let seed = number("CHAOS_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("CHAOS_SEED={seed}");
    let driver = Driver::new(deployment.gateway_urls.clone());
    let config = deployment.config(&provider.url);
    let keys = configure(&driver, &deployment, &config).await;
    let tenants: Vec<Tenant> =
        keys.iter().enumerate().map(|(number, key)| Tenant::new(&driver, number, key.clone())).collect();
    let steps = schedule(seed, deployment.sizes(), length);
    let (begin, end) = (Instant::now(), Instant::now() + length);
    let (_, configs, ()) = tokio::join!(
        join_all(tenants.iter().map(|tenant| tenant.work(end))),
        change_configs(&driver, &keys[0], &config, end),
        break_things(&mut deployment, &steps, begin),
    );

    println!("{} s: the faults are over", begin.elapsed().as_secs());
    driver.ledger().answers.end();
    for name in deployment.ended() {
        driver.ledger().fault(format!("{name} has ended by itself"));
    }
    deployment.store.set_up().await;
    eventually("the gateways are ready again", async || driver.is_ready().await).await;
    check(&driver, &deployment, &tenants, provider_log).await;
    println!("{} s: everything is compared", begin.elapsed().as_secs());
    deployment.store.rotate().await;
    refresh_all(&driver, &tenants, provider_log).await;
    println!("{} s: everything is refreshed", begin.elapsed().as_secs());
    let stored = check(&driver, &deployment, &tenants, provider_log).await;
    check_configs(&driver, &stored, &configs).await;
    report(&driver, provider_log, &steps);
    println!("dead letters: {}", stored.dead);
    let (servers, faults) = (deployment.sizes().servers, steps.len() / 2);
    let requests = driver.ledger().answers.summary();
    println!("chaos: seed {seed}, servers: {servers}, {} s, {faults} faults, {requests}", length.as_secs());
    let faults = std::mem::take(&mut driver.ledger().faults);
    assert!(faults.is_empty(), "CHAOS_SEED={seed}:\n{}", faults.join("\n"));
}

/// Stores the tenants' config, and returns an API key of each tenant.
pub(crate) async fn configure(driver: &Driver, deployment: &Deployment, config: &Value) -> Vec<String> {
    eventually("the gateways are ready", async || driver.is_ready().await).await;
    let mut keys = Vec::new();
    for account in &deployment.accounts {
        keys.push(deployment.nats.api_key(account, "admin").await);
    }
    let path = format!("{INTEGRATION}/oauth-config");
    let put = Question { kind: Kind::ConfigPut, method: Method::PUT, path: &path, key: &keys[0], body: Some(config) };
    assert_eq!(driver.ask(&put).await.status, Some(200), "the config is stored");
    keys
}

/// Begins and ends the faults at their times.
async fn break_things(deployment: &mut Deployment, steps: &[Step], begin: Instant) {
    for step in steps {
        sleep_until(begin + step.at).await;
        println!("{:>6.1} s {} {:?}", step.at.as_secs_f64(), if step.is_begin { "begin" } else { "end  " }, step.fault);
        deployment.apply(step).await;
    }
}

fn report(driver: &Driver, provider_log: &ProviderLog, steps: &[Step]) {
    print(steps);
    provider_log.print();
    let repeats = provider_log.repeats();
    println!("refresh tokens sent again after an answer without tokens: {}", repeats.after_failure);
    println!("refresh tokens sent again after the hold: {}", repeats.after_hold.len());
    let mut ledger = driver.ledger();
    ledger.answers.print();
    for kind in [Kind::Login, Kind::Callback, Kind::Refresh, Kind::Deletion, Kind::Read, Kind::List, Kind::ConfigPut] {
        if ledger.answers.successes(kind) == 0 {
            ledger.fault(format!("no {kind:?} succeeded"));
        }
    }
    for fault in repeats.faults {
        ledger.fault(fault);
    }
}
