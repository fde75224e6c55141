//! Restarts one after another while tenants work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::check::{check, refresh_all};
use crate::deployment::Deployment;
use crate::driver::Driver;
use crate::provider_log::ProviderLog;
use crate::run::configure;
use crate::tenant::Tenant;

/// Tenants begin no more requests after each of these times, and continue if the restarts do.
const STRETCH: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_gateways_workers_and_servers_fails_no_request_but_refreshes_in_a_hold() {
    let (provider_log, provider) = ProviderLog::open().await;
    let mut deployment = Deployment::start_cluster(Arc::clone(&provider_log)).await;
    let driver = Driver::new(deployment.gateway_urls.clone());
    let keys = configure(&driver, &deployment, &deployment.config(&provider.url)).await;
    let tenants: Vec<Tenant> =
        keys.iter().enumerate().map(|(number, key)| Tenant::new(&driver, number, key.clone())).collect();
    deployment.idle().await;

    let are_over = AtomicBool::new(false);
    let work = async {
        while !are_over.load(Ordering::Relaxed) {
            let end = Instant::now() + STRETCH;
            join_all(tenants.iter().map(|tenant| tenant.work(end))).await;
        }
    };
    let restarts = async {
        deployment.restart_processes(async || driver.is_ready().await).await;
        let of_processes = std::mem::take(&mut driver.ledger().answers);
        deployment.restart_servers().await;
        are_over.store(true, Ordering::Relaxed);
        of_processes
    };
    let ((), of_processes) = tokio::join!(work, restarts);
    let of_servers = std::mem::take(&mut driver.ledger().answers);
    for (whose, answers) in [("gateways and workers", &of_processes), ("servers", &of_servers)] {
        println!("\nrestart of {whose}");
        answers.print();
    }

    check(&driver, &deployment, &tenants, &provider_log).await;
    refresh_all(&driver, &tenants, &provider_log).await;
    let mut faults = std::mem::take(&mut driver.ledger().faults);
    faults.extend(provider_log.repeats().faults);
    faults.extend(of_processes.failures());
    // The delivery of a refresh may end with its server. The next worker cannot know that no refresh token was sent.
    faults.extend(of_servers.failures().into_iter().filter(|failure| !failure.starts_with("refresh: 503,")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
