//! Reads: whoever is handed an access token leaves an event, of his own or in a sum.

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::auth::VerifiedCaller;
use crate::config::ReadEvents;
use crate::event::{Event, EventKind, Tally};
use crate::jetstream::NatsError;
use crate::protocol::events::publish_event;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system;
use crate::worker::context::Context;

/// Events on their way at once.
const AT_ONCE: usize = 32;

/// Counts every access token in an answer that is about to go out. What has to have its own event has it before.
pub(super) async fn count(context: &Context, caller: &VerifiedCaller, answer: &Value) -> Result<(), StoreError> {
    let handed_out = match answer.get("results") {
        Some(results) => results.as_array().into_iter().flatten().filter_map(|entry| read(caller, entry)).collect(),
        None => Vec::from_iter(read(caller, answer)),
    };
    let at_once: Vec<Tally> = match context.config.events.reads {
        ReadEvents::All => handed_out,
        ReadEvents::Summary => handed_out.into_iter().filter_map(|read| context.reads.add(read)).collect(),
    };
    let mut told =
        stream::iter(at_once).map(|read| async move { publish_read(context, &read).await }).buffered(AT_ONCE);
    while let Some(told) = told.next().await {
        told?;
    }
    Ok(())
}

fn read(caller: &VerifiedCaller, connection: &Value) -> Option<Tally> {
    connection.get("access_token")?;
    let key = ConnectionKey::parse_subject(connection.get("subject")?.as_str()?).ok()?;
    let sequence = connection.get("sequence").and_then(Value::as_u64).unwrap_or_default();
    Some(Tally { key, actor: caller.actor.clone(), count: 1, sequence })
}

/// Writes the sums down again and again until told to stop.
pub(super) async fn run(context: &Context, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(context.config.events.reads_interval) => flush(context).await,
        }
    }
}

/// Writes the sums down. Those that cannot be written now go on.
pub(super) async fn flush(context: &Context) {
    let sums = stream::iter(context.reads.take());
    let told = sums.map(|sum| async move { (publish_read(context, &sum).await, sum) });
    let mut told = std::pin::pin!(told.buffer_unordered(AT_ONCE));
    while let Some((told, sum)) = told.next().await {
        let Err(error) = told else { continue };
        let lost = context.reads.add(sum).map_or(0, |sum| sum.count);
        warn!(lost, "an event about reads is not stored: {error}");
    }
}

async fn publish_read(context: &Context, read: &Tally) -> Result<(), NatsError> {
    let Tally { key, actor, count, sequence } = read;
    let mut event = Event::about_connection(key, EventKind::Read, actor, system::now());
    (event.count, event.sequence) = (Some(*count), Some(*sequence));
    publish_event(&context.nats, &event, None).await
}
