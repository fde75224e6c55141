//! Periodic checks of a worker: reloads the keyring, compares the clock with the server's, looks whether `max_payload` has
//! changed, moves the high-water marks, and answers which keys this worker has.
//!
//! Guarantees that a changed keyring file is in use within 5 s or at SIGHUP, and that a start has few entries to read. Runs
//! every 5 s (keyring) and 30 s (marks). If it does not run, the worker keeps its old keys, and the next start is
//! slower.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::jetstream::NatsError;
use crate::protocol::high_water;
use crate::store::{StoreError, WorkerKeys, json};
use crate::subject::WORKER_KEYS;
use crate::worker::clock;
use crate::worker::context::Context;
use crate::worker::prepare::check_max_payload;
use crate::worker::restart::run_until_stopped;

/// Interval of checks of the keyring's file.
const KEYRING_CHECK: Duration = Duration::from_secs(5);
/// Keyring checks per check of high-water marks.
const CHECKS_PER_CLEANUP: u32 = 6;

pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    run_until_stopped(&stop, "check the keyring", || run_checks(&context)).await;
}

async fn run_checks(context: &Context) -> StoreError {
    let (nats, keyring) = (&context.nats, &context.store.keyring);
    let mut hangups = context.hangups.clone();
    let mut questions = match nats.client().subscribe(WORKER_KEYS).await {
        Ok(questions) => questions,
        Err(error) => return NatsError::not_sent_because("a subscription was refused")(error).into(),
    };
    let mut ticks = tokio::time::interval(KEYRING_CHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut checks, mut max_payload) = (0_u32, nats.max_payload());
    loop {
        tokio::select! {
            Ok(()) = hangups.changed() => reload(context, Trigger::Signal).await,
            _ = ticks.tick() => {
                checks = checks.wrapping_add(1);
                if let Err(error) = clock::keep(context).await {
                    debug!("cannot read the server's clock: {error}");
                }
                // The server says it at each connection.
                if nats.max_payload() != max_payload {
                    max_payload = nats.max_payload();
                    check_max_payload(nats);
                }
                if keyring.is_file() {
                    reload(context, Trigger::Timer).await;
                }
                if checks.is_multiple_of(CHECKS_PER_CLEANUP) {
                    clean_up(context).await;
                }
            }
            question = questions.next() => {
                let Some(question) = question else { return NatsError::away("a subscription ended").into() };
                let keys = WorkerKeys { worker: name(), keys: keyring.key_ids() };
                let (Some(reply), Ok(body)) = (question.reply, json(&keys)) else { continue };
                if let Err(error) = nats.send(reply.to_string(), async_nats::HeaderMap::new(), body).await {
                    warn!("answer not sent: {error}");
                }
            }
        }
    }
}

async fn clean_up(context: &Context) {
    if let Err(error) = high_water::refresh_marks(&context.nats).await {
        warn!("cannot move the high-water marks: {error}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    Signal,
    Timer,
}

async fn reload(context: &Context, trigger: Trigger) {
    match context.store.reload_keys().await {
        Ok(Some(sealing)) => info!(sealing, keys = ?context.store.keyring.key_ids(), "keyring reloaded"),
        Ok(None) if trigger == Trigger::Signal => {
            info!(sealing = ?context.store.keyring.key_ids().first(), "keyring unchanged");
        }
        Ok(None) => {}
        // Other tasks log that NATS is unavailable, so the timer does not repeat it every 5 s.
        Err(StoreError::Nats(error)) if error.is_unavailable() && trigger == Trigger::Timer => {}
        Err(error) => error!("cannot reload the keyring: {error}; the old one stays in use"),
    }
}

/// Name of this process for people: process id and host.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}@{}", std::process::id(), host.trim())
}
