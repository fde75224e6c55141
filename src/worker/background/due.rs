//! Turns due schedules into `refresh` and `revoke` commands, in the order in which they became due.
//!
//! Guarantees that a due refresh stays in the schedule's queue until its command is on the work queue. Pulls continuously;
//! a due message arrives within a pull. If no worker runs this task, due refreshes wait in `OAUTH_SCHEDULE`, and tokens
//! expire until a reader asks for them.

use std::sync::Arc;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::command::{Origin, Work};
use crate::event::SCHEDULE_ACTOR;
use crate::jetstream::{NatsError, age};
use crate::protocol::commands as queue;
use crate::protocol::outgoing::{Draft, Outgoing};
use crate::protocol::schedule::{self, Due, DueRevocation};
use crate::store::StoreError;
use crate::subject::{CommandSubject, ConnectionKey};
use crate::worker::background::queues;
use crate::worker::consumer::PULL_EXPIRES;
use crate::worker::context::Context;
use crate::worker::restart::{RESTART_PAUSE, run_until_stopped};

/// Due refreshes per pull.
const BATCH: usize = 256;
/// Commands to publish in parallel. Publishing starts in the order of arrival.
const PARALLEL: usize = 32;

pub(in crate::worker) async fn run(context: Arc<Context>, stop: CancellationToken) {
    run_until_stopped(&stop, "take due refreshes", || take_all(&context)).await;
}

async fn take_all(context: &Context) -> NatsError {
    let consumer = match schedule::consumer(&context.nats).await {
        Ok(consumer) => consumer,
        Err(error) => return queues::check_after(context, error),
    };
    loop {
        context.clock.usable().await;
        if let Err(error) = take(context, &consumer).await {
            return queues::check_after(context, error);
        }
    }
}

async fn take(context: &Context, consumer: &PullConsumer) -> Result<(), NatsError> {
    let mut chunks = queue::pull(&context.nats, consumer, BATCH, PULL_EXPIRES).await?.ready_chunks(PARALLEL);
    while let Some(chunk) = chunks.next().await {
        let mut enqueued = Vec::new();
        for message in chunk {
            enqueued.push(enqueue_and_ack(context, message?));
        }
        for done in join_all(enqueued).await {
            done?;
        }
    }
    Ok(())
}

async fn enqueue_and_ack(context: &Context, message: Message) -> Result<(), NatsError> {
    let kind = match enqueue(context, &message).await {
        Ok(()) => AckKind::Ack,
        // Another refresh is queued. If a caller started it, it may end without setting a schedule, so this one returns.
        Err(StoreError::Nats(NatsError::Occupied)) => AckKind::Nak(Some(RESTART_PAUSE)),
        Err(error @ StoreError::Unreadable { .. }) => {
            warn!("dropped an unreadable due refresh: {error}");
            AckKind::Term
        }
        Err(error) => {
            warn!("cannot queue a due refresh: {error}; trying again");
            AckKind::Nak(Some(RESTART_PAUSE))
        }
    };
    queue::confirm(&context.nats, &message, kind).await
}

async fn enqueue(context: &Context, message: &Message) -> Result<(), StoreError> {
    let subject = message.subject.as_str();
    let key = ConnectionKey::parse_due(subject).map_err(StoreError::unreadable(subject))?;
    let work = if let Ok(DueRevocation { login_id, .. }) = serde_json::from_slice(&message.payload) {
        Work::Revoke { actor: SCHEDULE_ACTOR.to_owned(), login_id, keep_grant: false, even_if_shared: false }
    } else {
        let due: Due = serde_json::from_slice(&message.payload).map_err(StoreError::unreadable(subject))?;
        Work::Refresh { actor: None, sequence: due.sequence, slot_reserved: due.slot_reserved }
    };
    let subject = CommandSubject::connection(&key, work.verb());
    let origin = Origin::default();
    let draft = Draft { subject: &subject, origin, work, time: context.clock.now(), message_id: None, first: None };
    let command = Outgoing::seal(draft, |order| context.store.keyring.seal_own_order(order));
    let command = command.map_err(StoreError::seal(subject.subject()))?;
    command.publish(&context.nats, None).await?;
    // The server publishes a schedule's message when it is due.
    context.measures.schedule_lag_seconds.observe(age(message, context.clock.now()).as_secs_f64().max(0.0));
    Ok(())
}
