//! Workers that are stopped for seconds at each step of a refresh, at a provider that ends a grant when one of its refresh
//! tokens comes twice.
//!
//! `STOPPED_WORKERS=all` runs the whole table, one duration after the other (about 15 minutes). Otherwise a few stops run,
//! at the steps where a worker that wakes could do the most harm.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokenbus::internals::config::env;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::fleet::{Fleet, Worker, eventually};
use crate::provider::{Provider, Received, Scripted};
use crate::refresh_crash::{applied, connected, due};
use crate::support::child::signal;
use crate::support::wait::PATIENCE;

const NAME: &str = "workspace1";
/// Stands for the time between a worker's request and its answer, where no failpoint is.
const IN_FLIGHT: &str = "in flight";
/// Steps before the refresh token leaves.
const BEFORE: [&str; 1] = ["refresh_1_permit_taken"];
/// Steps with the new tokens.
const AFTER: [&str; 10] = [
    IN_FLIGHT,
    "refresh_2_token_sent",
    "refresh_3_record_written",
    "apply_1_kv_written",
    "apply_2_answered",
    "apply_3_event_published",
    "apply_4_refresh_scheduled",
    "refresh_4_record_applied",
    "delivery_1_answered",
    "delivery_2_acked",
];
/// Steps after the provider was unavailable.
const POSTPONED: [&str; 4] = [
    "postpone_1_time_chosen",
    "postpone_2_event_published",
    "postpone_3_failure_stored",
    "postpone_4_refresh_scheduled",
];
/// Seconds of a stop, in the whole table.
const SECONDS: [u64; 4] = [4, 8, 14, 60];

/// What the provider knows of its only grant.
#[derive(Default)]
struct Grant {
    spent: HashSet<String>,
    is_dead: bool,
}

struct Stop {
    step: &'static str,
    seconds: u64,
    provider: Provider,
    grant: Arc<Mutex<Grant>>,
    fleet: Fleet,
    /// The worker that is stopped.
    first: Worker,
    second: Worker,
    /// Keeps the pushes' subscription.
    _pushes: async_nats::Subscriber,
}

/// The provider. Sends SIGSTOP to the process `victim`, if there is one, while that process waits for an answer. Is
/// unavailable at the first refresh if `fails` is true.
async fn provider(grant: &Arc<Mutex<Grant>>, victim: &Arc<AtomicU32>, fails: bool) -> Provider {
    let (grant, victim, fails) = (Arc::clone(grant), Arc::clone(victim), Mutex::new(fails));
    Provider::start(move |number, received| {
        let Some(token) = received.form().remove("refresh_token") else { return Scripted::tokens(number) };
        let pid = victim.swap(0, Ordering::SeqCst);
        if pid > 0 {
            signal(pid, "STOP");
        }
        if std::mem::take(&mut *fails.lock().unwrap()) {
            return Scripted::json(503, &json!({ "error": "temporarily_unavailable" }));
        }
        let mut grant = grant.lock().unwrap();
        grant.is_dead |= !grant.spent.insert(token);
        if grant.is_dead { Scripted::json(400, &json!({ "error": "invalid_grant" })) } else { Scripted::tokens(number) }
    })
    .await
}

impl Stop {
    /// Stops a worker at that step for so many seconds while another worker runs, and continues it.
    async fn made(step: &'static str, seconds: u64) -> Self {
        let (grant, victim) = (Arc::default(), Arc::new(AtomicU32::new(0)));
        let provider = provider(&grant, &victim, POSTPONED.contains(&step)).await;
        let (mut fleet, pushes) = connected(&provider).await;
        // The hold of a refresh with a stored failure lasts at least as long as this.
        fleet.settings.insert("TOKENBUS_REFRESH__MIN_INTERVAL".to_owned(), "1m".to_owned());
        let first = fleet.worker_stopping_at(step).await;
        if step == IN_FLIGHT {
            victim.store(first.pid(), Ordering::SeqCst);
        }
        due(&fleet).await;
        first.stopped().await;
        let until = Instant::now() + Duration::from_secs(seconds);
        let second = fleet.worker().await;
        sleep_until(until).await;
        first.signal("CONT");
        Self { step, seconds, provider, grant, fleet, first, second, _pushes: pushes }
    }

    fn requests(&self) -> usize {
        let is_refresh = |received: &&Received| received.form().contains_key("refresh_token");
        self.provider.received().iter().filter(is_refresh).count()
    }

    fn log(&self) -> String {
        format!("{} for {} s\n{}\n{}", self.step, self.seconds, self.first.log(), self.second.log())
    }

    async fn events(&self, name: &str) -> usize {
        self.fleet.events().await.iter().filter(|event| event["event"] == name).count()
    }

    /// Waits until the connection has new tokens, which the same grant issued, and one event of them.
    async fn survives(&self) {
        let is_over = async || {
            let ended = self.events("refreshed").await + self.events("needs_reauthorization").await;
            ended > 0 || self.grant.lock().unwrap().is_dead
        };
        let end = timeout(PATIENCE, async {
            while !is_over().await {
                sleep(Duration::from_millis(20)).await;
            }
        });
        end.await.unwrap_or_else(|_| panic!("no refresh ends: {}", self.log()));
        self.fleet.idle().await;
        assert!(!self.grant.lock().unwrap().is_dead, "the refresh token came twice: {}", self.log());
        let events = (self.events("refreshed").await, self.events("needs_reauthorization").await);
        assert_eq!(events, (1, 0), "{}", self.log());
        applied(&self.fleet).await;
        let stored = self.fleet.stored(NAME).await.0.expect("the connection is stored");
        assert_eq!(stored["status"], "active", "{}", self.log());
        let newest = self.fleet.record(&Fleet::path(NAME)).await.0;
        assert_eq!(stored["sequence"].as_u64(), newest, "KV is as new as the record: {}", self.log());
    }

    /// Waits until the worker that woke has finished, and checks that the other one's hold is as it was.
    async fn leaves_the_hold(&self, requests: usize) {
        let has_ended =
            || ["another worker has the command", "done", "put back"].iter().any(|end| self.first.log().contains(end));
        eventually("the worker that woke has finished", async || has_ended()).await;
        let stored = self.fleet.stored(NAME).await.0.expect("the connection is stored");
        assert_eq!(stored["refresh_failure"]["reason"], "refresh_interrupted", "{stored} {}", self.log());
        assert_eq!(self.requests(), requests, "{}", self.log());
    }
}

#[tokio::test]
async fn h3_no_grant_dies_after_a_worker_was_stopped_during_a_refresh() {
    if env("STOPPED_WORKERS").is_some_and(|which| which == "all") {
        for seconds in SECONDS {
            let steps = BEFORE.into_iter().chain(AFTER).chain(POSTPONED);
            join_all(steps.map(async |step| Stop::made(step, seconds).await.survives().await)).await;
            println!("stopped for {seconds} s at each step: the grant lives");
        }
        return;
    }
    let survivors = [(IN_FLIGHT, 14), (IN_FLIGHT, 60), ("refresh_2_token_sent", 14)];
    let held = [(BEFORE[0], 14, 0), (POSTPONED[1], 14, 1)];
    tokio::join!(
        join_all(survivors.map(async |(step, seconds)| Stop::made(step, seconds).await.survives().await)),
        join_all(held.map(async |(step, seconds, requests)| {
            Stop::made(step, seconds).await.leaves_the_hold(requests).await;
        })),
    );
}
