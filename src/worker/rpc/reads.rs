//! Reads in the audit log: each access token that a call returns is an event, or is counted in one.
//!
//! With `events.reads = "all"` the event is stored before the token is sent; if it cannot be stored, the call fails. With
//! `"summary"`, a killed worker loses the sums of its last interval. At most 10,000 sums are in memory; a read beyond that
//! is stored as its own event.

use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::auth::VerifiedCaller;
use crate::command::Origin;
use crate::config::ReadEvents;
use crate::event::{Event, EventKind, Tally};
use crate::jetstream::NatsError;
use crate::protocol::events::publish_event;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::worker::context::Context;

/// Events to publish in parallel.
const PUBLISH_CONCURRENCY: usize = 32;

/// Counts the access tokens in an answer before it goes out, and stores the events that must not be summed up.
pub(super) async fn count(context: &Context, caller: &VerifiedCaller, answer: &Value) -> Result<(), StoreError> {
    let returned = match answer.get("results") {
        Some(results) => results.as_array().into_iter().flatten().filter_map(|entry| tally(caller, entry)).collect(),
        None => Vec::from_iter(tally(caller, answer)),
    };
    let not_summed: Vec<Tally> = match context.config.events.reads {
        ReadEvents::All => returned,
        ReadEvents::Summary => returned.into_iter().filter_map(|read| context.reads.add(read)).collect(),
    };
    if not_summed.is_empty() {
        return Ok(());
    }
    let origin = &caller.origin.for_events(context.config.events.client_address);
    let mut published = stream::iter(not_summed)
        .map(|read| async move { publish_read(context, &read, origin).await })
        .buffered(PUBLISH_CONCURRENCY);
    while let Some(result) = published.next().await {
        result?;
    }
    Ok(())
}

/// Counts one read if the connection shows an access token.
fn tally(caller: &VerifiedCaller, connection: &Value) -> Option<Tally> {
    connection.get("access_token")?;
    let key = ConnectionKey::parse_subject(connection.get("subject")?.as_str()?).ok()?;
    let sequence = connection.get("sequence").and_then(Value::as_u64).unwrap_or_default();
    Some(Tally { key, actor: caller.actor.clone(), count: 1, sequence })
}

/// Stores the sums at each interval until `stop`.
pub(super) async fn run(context: &Context, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(context.config.events.reads_interval) => flush(context).await,
        }
    }
}

/// Stores the sums. A sum that cannot be stored is kept for the next interval.
pub(super) async fn flush(context: &Context) {
    flush_refusals(context).await;
    let sums = stream::iter(context.reads.take());
    let published = sums.map(|sum| async move { (publish_read(context, &sum, &Origin::default()).await, sum) });
    let mut published = std::pin::pin!(published.buffer_unordered(PUBLISH_CONCURRENCY));
    while let Some((result, sum)) = published.next().await {
        let Err(error) = result else { continue };
        let lost = context.reads.add(sum).map_or(0, |sum| sum.count);
        warn!(lost, "cannot store an event about reads: {error}; reads not in `lost` are stored at the next interval");
    }
}

/// Stores the sums of refused requests.
async fn flush_refusals(context: &Context) {
    for (refusal, sum) in context.auth.refusals().take() {
        let mut event = Event::about_refusals(&refusal, sum.count, context.clock.now());
        event.client_address = sum.last_address.filter(|_| context.config.events.client_address);
        let published = match &refusal.account {
            Some(account) => context.publish_event(account, &event, None).await,
            None => publish_event(&context.nats, &event, None).await,
        };
        if let Err(error) = published {
            warn!("cannot store an event about refused requests: {error}; it is stored at the next interval");
            context.auth.refusals().add(refusal, sum);
        }
    }
}

async fn publish_read(context: &Context, read: &Tally, origin: &Origin) -> Result<(), NatsError> {
    let Tally { key, actor, count, sequence } = read;
    let mut event = Event::about_connection(key, EventKind::Read, actor, context.clock.now());
    (event.count, event.sequence) = (Some(*count), Some(*sequence));
    context.publish_event(&key.account, &event.from(origin), None).await
}
