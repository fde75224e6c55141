//! Watches how full the streams are. Guarantees that no token is requested while `OAUTH` or `oauth_connections` is above 95 %
//! of its `max_bytes`, that `/readyz` is not ready then, nor while `OAUTH_COMMANDS` or `oauth_states` is that full, and that a
//! stream above 80 % is in the log and in the metrics.
//!
//! Runs every 2 s for these four, and every 30 s for all. If it does not run, a full stream refuses records, and the tokens
//! that were requested for them are lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::jetstream::NatsError;
use crate::protocol::topology::{self, StreamUse};
use crate::store::StoreError;
use crate::worker::context::Context;
use crate::worker::restart::run_until_stopped;

const INTERVAL: Duration = Duration::from_secs(2);
/// Checks of the four streams per check of all.
const CHECKS_PER_REPORT: u32 = 15;
/// Share of `max_bytes` above which a stream counts as full.
const FULL: f64 = 0.95;

pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    run_until_stopped(&stop, "check the room in the streams", || watch(&context)).await;
}

async fn watch(context: &Context) -> StoreError {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut checks, mut reported) = (0_u32, BTreeSet::new());
    loop {
        ticks.tick().await;
        if let Err(error) = look(context).await {
            return error.into();
        }
        if checks.is_multiple_of(CHECKS_PER_REPORT)
            && let Err(error) = report(context, &mut reported).await
        {
            return error;
        }
        checks = checks.wrapping_add(1);
    }
}

/// Looks which of the needed streams are full. Also runs before a worker takes its first command.
pub(in crate::worker) async fn look(context: &Context) -> Result<(), NatsError> {
    let used = topology::used(&context.nats, &topology::needed()).await?;
    let full = used.into_iter().filter(|found| found.share > FULL).map(|found| found.stream);
    context.room.set_full(full.collect());
    Ok(())
}

/// Logs each stream once when it is nearly full.
async fn report(context: &Context, reported: &mut BTreeSet<String>) -> Result<(), StoreError> {
    let used = topology::used(&context.nats, &topology::limited()).await?;
    let nearly: Vec<StreamUse> = used.into_iter().filter(StreamUse::is_nearly_full).collect();
    context.measures.streams_nearly_full.set(i64::try_from(nearly.len()).unwrap_or(i64::MAX));
    reported.retain(|name| nearly.iter().any(|found| found.stream == *name));
    for StreamUse { stream, share } in nearly {
        if reported.insert(stream.clone()) {
            warn!(
                "stream {stream} uses {:.0} % of its `max_bytes`: raise the setting, then run `tokenbus setup`",
                share * 100.0
            );
        }
    }
    Ok(())
}
