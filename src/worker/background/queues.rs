//! Recreates the two queues `OAUTH_COMMANDS` and `OAUTH_SCHEDULE` after a server has lost them.
//!
//! nats-server 2.15.1 that is killed right after an ack may fail to restore an encrypted work queue ("corrupt state file")
//! and then drops it. Guarantees that both queues and their consumers exist soon after each reconnect; the repair pass then
//! sets lost schedules again. Looks for a restart of the server too. Runs on each new connection and after each failed pull. If
//! it does not run, callers of commands get 503 until a worker restarts.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::jetstream::NatsError;
use crate::protocol::{origin, topology};
use crate::worker::context::Context;
use crate::worker::prepare::{PrepareError, look_for_restart, make_ready, sizes};
use crate::worker::restart::{RESTART_PAUSE, is_logged};

/// Checks the queues on each new connection and after each failed pull, until `stop`.
pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        never = look_after(&context) => match never {},
    }
}

/// Requests a check of the queues after a failed pull. Returns the error unchanged.
pub(in crate::worker) fn check_after(context: &Context, error: NatsError) -> NatsError {
    context.wakeups.request_queue_check();
    error
}

async fn look_after(context: &Context) -> Infallible {
    let nats = &context.nats;
    let (mut known, mut is_loss_logged) = (nats.connection_count(), false);
    loop {
        tokio::select! {
            () = nats.new_connection(known) => {}
            () = context.wakeups.queue_check_requested() => {}
        }
        let is_new = nats.connection_count() != known;
        known = nats.connection_count();
        let mut failures = 0_u32;
        while nats.is_connected() {
            match restore(context, is_new).await {
                Ok(()) if is_new => info!("reconnected; the queues exist"),
                Ok(()) => {}
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if is_logged(failures) {
                        warn!("cannot restore the queues: {error}; trying again");
                    }
                    if !is_loss_logged && matches!(topology::is_new(nats, sizes(&context.config)).await, Ok(true)) {
                        is_loss_logged = true;
                        context.data_is_gone.store(true, Ordering::Relaxed);
                        error!("{}", origin::Lost);
                    }
                    tokio::time::sleep(RESTART_PAUSE).await;
                    continue;
                }
            }
            is_loss_logged = false;
            break;
        }
    }
}

/// Looks for a restart of the server on a new connection, and creates missing queues. After a restart, or if a queue was
/// missing, requests a repair pass for the schedules that are lost.
async fn restore(context: &Context, is_new_connection: bool) -> Result<(), PrepareError> {
    if is_new_connection {
        look_for_restart(context).await?;
    }
    if topology::declare_queues(&context.nats, sizes(&context.config)).await? {
        context.wakeups.report_lost_queue();
    }
    Ok(make_ready(context).await?)
}
