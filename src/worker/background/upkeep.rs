//! What a worker looks after beside its commands: the keyring, which may change while it runs, the marks that make the
//! next start quick, and commands on the queue that no worker can read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::jetstream::NatsError;
use crate::protocol::high_water;
use crate::store::{StoreError, WorkerKeys, json};
use crate::subject::WORKER_KEYS;
use crate::worker::background::queues;
use crate::worker::context::Context;
use crate::worker::restart::run_until_stopped;

/// How often the keyring's file is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Looks between two at the marks and at the queue.
const LOOKS_PER_MARK: u32 = 6;

/// Looks after them until told to stop.
pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    run_until_stopped(&stop, "look after the keyring", || look_after(&context)).await;
}

async fn look_after(context: &Context) -> StoreError {
    let (nats, keyring) = (&context.nats, &context.store.keyring);
    let mut hangups = context.hangups.clone();
    let mut questions = match nats.client().subscribe(WORKER_KEYS).await {
        Ok(questions) => questions,
        Err(error) => return NatsError::not_sent_because("a subscription was refused")(error).into(),
    };
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            Ok(()) = hangups.changed() => reload(context, true).await,
            _ = ticks.tick() => {
                looks = looks.wrapping_add(1);
                if keyring.is_file() {
                    reload(context, false).await;
                }
                if looks.is_multiple_of(LOOKS_PER_MARK) {
                    keep_clear(context).await;
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

async fn keep_clear(context: &Context) {
    if let Err(error) = high_water::refresh_marks(&context.nats).await {
        warn!("the marks could not be looked at: {error}");
    }
    if let Err(error) = queues::clear_up(&context.nats).await {
        warn!("the queue could not be looked at: {error}");
    }
}

async fn reload(context: &Context, was_asked: bool) {
    match context.store.reload_keys().await {
        Ok(Some(sealing)) => info!(sealing, keys = ?context.store.keyring.key_ids(), "keyring taken up"),
        Ok(None) if was_asked => info!(sealing = ?context.store.keyring.key_ids().first(), "keyring as before"),
        Ok(None) => {}
        // Nothing to say about the keyring; whoever waits for the bus says so.
        Err(StoreError::Nats(error)) if error.is_unavailable() && !was_asked => {}
        Err(error) => error!("keyring not taken up, going on with the one from before: {error}"),
    }
}

/// How people find this process.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}@{}", std::process::id(), host.trim())
}
