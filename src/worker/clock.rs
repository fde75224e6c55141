//! Compares this worker's clock with the server's: at its start, and from then on at least once a minute.

use tracing::{error, warn};

use crate::jetstream::NatsError;
use crate::protocol::bus_clock::MAX_DIFFERENCE;
use crate::worker::context::Context;

/// Reads the server's clock, and reports a difference.
pub(super) async fn read(context: &Context) -> Result<(), NatsError> {
    context.clock.read(&context.nats).await?;
    report(context);
    Ok(())
}

/// The same if the last reading is old.
pub(super) async fn keep(context: &Context) -> Result<(), NatsError> {
    if context.clock.keep(&context.nats).await? {
        report(context);
    }
    Ok(())
}

fn report(context: &Context) {
    let ahead = context.clock.ahead();
    context.measures.clock_ahead_seconds.set(ahead.as_secs_f64());
    if let Err(unusable) = context.clock.check() {
        error!("{unusable}");
    } else if ahead.abs() > MAX_DIFFERENCE {
        let seconds = ahead.as_secs_f64();
        warn!("this machine's clock differs from the NATS server's by {seconds:+.0} s; set both by NTP");
    }
}
