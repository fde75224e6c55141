//! The two queues, which a server that was killed may have lost: made again at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::jetstream::{Nats, NatsError};
use crate::protocol::{commands as queue, quarantine, topology};
use crate::store::StoreError;
use crate::subject::Verb;
use crate::system;
use crate::worker::context::Context;
use crate::worker::prepare::{PrepareError, sizes};
use crate::worker::restart::RESTART_PAUSE;

/// How often the connection is looked at: until a lost queue is there again, callers are turned away.
const LOOK: Duration = Duration::from_millis(100);

/// Sees to the queues on each new connection, and whenever something could not be taken from them, until told to stop.
pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        never = look_after(&context) => match never {},
    }
}

/// Something could not be taken from a queue. Gives the reason back.
pub(in crate::worker) fn doubt(context: &Context, error: NatsError) -> NatsError {
    context.resumed.doubt();
    error
}

async fn look_after(context: &Context) -> Infallible {
    let nats = &context.nats;
    let mut known = nats.connects();
    loop {
        tokio::select! {
            () = another_connection(nats, known) => {}
            () = context.resumed.doubted() => {}
        }
        let is_new = nats.connects() != known;
        known = nats.connects();
        while nats.is_connected() {
            match mend(context).await {
                Ok(()) if is_new => info!("connected again: the queues are there"),
                Ok(()) => {}
                Err(error) => {
                    warn!("the queues are not there: {error}");
                    tokio::time::sleep(RESTART_PAUSE).await;
                    continue;
                }
            }
            break;
        }
    }
}

async fn another_connection(nats: &Nats, known: u64) {
    while nats.connects() == known || !nats.is_connected() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Makes sure that the queues are there. What one held that had to be made again is looked for at once.
async fn mend(context: &Context) -> Result<(), PrepareError> {
    if topology::declare_queues(&context.nats, sizes(&context.config)).await? {
        context.resumed.add_lost();
    }
    Ok(make_ready(&context.nats).await?)
}

/// Makes the consumers of the commands, and takes off the queue what would stop them.
pub(in crate::worker) async fn make_ready(nats: &Nats) -> Result<(), StoreError> {
    for verb in Verb::ALL {
        queue::declare_consumer(nats, verb).await?;
    }
    clear_up(nats).await
}

/// Takes commands off the queue that would end each connection they come to.
pub(in crate::worker) async fn clear_up(nats: &Nats) -> Result<(), StoreError> {
    let found = quarantine::quarantine(nats, system::now()).await?;
    if found > 0 {
        error!("{found} commands had subjects or headers that cannot be read; they were given up");
    }
    Ok(())
}
