//! Constant moderate load of all kinds for a long time: nothing may grow.
//!
//! Tenants use the same names again and again, so records, entries and schedules stay as many as they are. Access tokens live for
//! a short time, so that schedules refresh them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::answers::Kind;
use crate::check::{check, check_configs};
use crate::configs::change_configs;
use crate::deployment::{Deployment, INTEGRATION};
use crate::driver::{Driver, Question};
use crate::pace::every;
use crate::provider_log::ProviderLog;
use crate::run::{configure, number};
use crate::samples::Samples;
use crate::support::tokenbus::ACCOUNT;
use crate::tenant::{Load, Tenant, state_of};

const LOAD: Load =
    Load { names: 30, change: Duration::from_secs(1), read: Duration::from_millis(250), list: Duration::from_secs(3) };
/// Lifetime of access tokens in seconds. Each is refreshed at half of it.
const LIFETIME: u32 = 150;
/// Requests at once. Without a limit, a machine that is busy with other work for a while has more and more of them.
const AT_ONCE: usize = 16;
const SAMPLE_PACE: Duration = Duration::from_secs(10);
const BUS_READ_PACE: Duration = Duration::from_millis(250);
/// Time from one denied login, one malformed callback and one abandoned login to the next.
const REFUSAL_PACE: Duration = Duration::from_secs(2);
/// Time from one new API key to the next.
const KEY_PACE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_grows_under_constant_load() {
    let Some(seconds) = number("SOAK_SECONDS") else {
        println!("skipped: runs for SOAK_SECONDS, which is not set");
        return;
    };
    let (provider_log, provider) = ProviderLog::open_with(LIFETIME).await;
    let mut deployment = Deployment::start_profiled(Arc::clone(&provider_log)).await;
    let driver = Driver::at_most(AT_ONCE, deployment.gateway_urls.clone());
    let config = deployment.config(&provider.url);
    let keys = configure(&driver, &deployment, &config).await;
    let tenants: Vec<Tenant> =
        keys.iter().enumerate().map(|(number, key)| Tenant::with(&driver, number, key.clone(), LOAD)).collect();
    let node = deployment.nats.connect("demo").await;
    let pushes = node.subscribe(format!("ms.integration.oauth.{ACCOUNT}.>")).await.expect("subscribed");

    let end = Instant::now() + Duration::from_secs(seconds);
    let other = Other { driver: &driver, key: &keys[0], node: &node, number: AtomicUsize::new(0) };
    let (samples, configs, received, _, ()) = tokio::join!(
        sample(&deployment, &driver, end),
        change_configs(&driver, &keys[0], &config, end),
        count(pushes, end),
        join_all(tenants.iter().map(|tenant| tenant.work(end))),
        other.work(end),
    );

    driver.ledger().answers.end();
    for name in deployment.ended() {
        driver.ledger().fault(format!("{name} has ended by itself"));
    }
    let stored = check(&driver, &deployment, &tenants, &provider_log).await;
    check_configs(&driver, &stored, &configs).await;
    provider_log.print();
    driver.ledger().answers.print();
    println!("pushes to one subscriber: {received}, dead letters: {}", stored.dead);
    let grown = samples.grown();
    let mut faults = std::mem::take(&mut driver.ledger().faults);
    faults.extend(grown.into_iter().map(|name| format!("{name}: grows")));
    faults.extend(provider_log.repeats().faults);
    let answers = std::mem::take(&mut driver.ledger().answers);
    // A busy machine may be late for some.
    if answers.failed() > answers.count() / 20 {
        faults.extend(answers.failures());
    }
    assert!(received > 0, "no push has reached the subscriber");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

async fn sample(deployment: &Deployment, driver: &Driver, end: Instant) -> Samples {
    let system = deployment.nats.connect("system").await;
    let jetstream = deployment.jetstream().await;
    let (begin, samples) = (Instant::now(), Mutex::new(Samples::default()));
    every(SAMPLE_PACE, end, async || {
        let (mut samples, requests) = (samples.lock().await, driver.ledger().answers.count());
        for (name, pid) in deployment.pids() {
            samples.add_process(&name, pid);
        }
        samples.add_server(&system).await;
        samples.add_heap(&deployment.nats.profile_url().expect("the server offers profiles")).await;
        samples.add_streams(&jetstream, requests).await;
        samples.print_newest(begin.elapsed(), requests);
    })
    .await;
    samples.into_inner()
}

async fn count(mut pushes: Subscriber, end: Instant) -> usize {
    let mut number = 0;
    while let Ok(Some(_)) = timeout_at(end, pushes.next()).await {
        number += 1;
    }
    number
}

/// What tenants do not do while things break.
struct Other<'a> {
    driver: &'a Driver,
    key: &'a str,
    node: &'a Client,
    number: AtomicUsize,
}

impl Other<'_> {
    async fn work(&self, end: Instant) {
        let is_free = || !self.driver.is_busy();
        tokio::join!(
            every(BUS_READ_PACE, end, async || if is_free() {
                self.read_on_the_bus().await;
            }),
            every(REFUSAL_PACE, end, async || if is_free() {
                self.be_refused().await;
            }),
            every(KEY_PACE, end, async || if is_free() {
                self.make_and_revoke_a_key().await;
            }),
        );
    }

    fn number(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    async fn read_on_the_bus(&self) {
        let name = format!("c{}", self.number() % LOAD.names);
        let question = json!({ "integration_id": INTEGRATION, "connection_id": name });
        let begin = Instant::now();
        let answer = self.node.request(format!("ms.oauth.{ACCOUNT}.token"), question.to_string().into()).await;
        let code = answer.map_or_else(
            |error| error.to_string(),
            |answer| {
                let headers = answer.headers.unwrap_or_default();
                headers.get("Nats-Service-Error-Code").map_or("200", async_nats::HeaderValue::as_str).to_owned()
            },
        );
        self.driver.ledger().answers.note(Kind::BusRead, &code, begin.elapsed());
    }

    /// A login that the provider refuses, a malformed callback, and in turn a login that is never completed.
    async fn be_refused(&self) {
        let number = self.number();
        let name = format!("denied{}", number % LOAD.names);
        let login = self.driver.get(Kind::Login, &format!("{INTEGRATION}/oauth-login/{name}"), self.key).await;
        let state = state_of(&login).unwrap_or_default();
        if number.is_multiple_of(3) {
            return;
        }
        let denied = format!("oauth-callback?error=access_denied&state={state}");
        self.driver.get(Kind::Denied, &denied, self.key).await;
        let malformed = if number % 3 == 1 { "oauth-callback?code=x&state=unknown" } else { "oauth-callback?code=x" };
        self.driver.get(Kind::Malformed, malformed, self.key).await;
    }

    async fn make_and_revoke_a_key(&self) {
        let body = json!({ "name": "soak", "role": "member" });
        // Paths of requests are below `/hub/integrations/`.
        let ask = async |kind, method, path: &str, body: Option<&Value>| {
            self.driver.ask(&Question { kind, method, path, key: self.key, body }).await
        };
        let made = ask(Kind::ApiKeyPost, Method::POST, "../api-keys", Some(&body)).await.body;
        let (Some(id), Some(key)) = (made["id"].as_str(), made["key"].as_str()) else { return };
        self.driver.get(Kind::List, &format!("{INTEGRATION}/oauth-connections?limit=10"), key).await;
        ask(Kind::ApiKeyList, Method::GET, "../api-keys?limit=10", None).await;
        ask(Kind::ApiKeyDeletion, Method::DELETE, &format!("../api-keys/{id}"), None).await;
    }
}
