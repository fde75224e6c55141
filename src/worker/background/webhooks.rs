//! Sends events to webhooks.
//!
//! Guarantees that each chosen event is sent at least once. For each receiver, one durable consumer of all workers holds
//! an event until the receiver answers 2xx, or until a dead letter replaces it after `MAX_WEBHOOK_DELIVERIES`. Pulls
//! continuously. If it does not run, events wait in `OAUTH_EVENTS` for the stream's maximum age.

use std::sync::Arc;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{AckKind, Message};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::jetstream::{NatsError, header};
use crate::outcome::{MAX_WEBHOOK_DELIVERIES, backoff_webhook};
use crate::protocol::commands as queue;
use crate::system;
use crate::webhook::Receiver;
use crate::worker::consumer::{PULL_EXPIRES, Puller};
use crate::worker::context::Context;
use crate::worker::restart::run_until_stopped;

/// Events that one process sends to one receiver in parallel.
const CONCURRENCY: usize = 16;

pub(in crate::worker) async fn run(context: Arc<Context>, receiver: Arc<Receiver>, stop: CancellationToken) {
    let puller = Puller::new(CONCURRENCY);
    run_until_stopped(&stop, "take events for the webhook", || take_all(&context, &receiver, &puller)).await;
    if !puller.drain(context.config.worker.drain).await {
        warn!("stopped while webhooks were being sent; they are sent again");
    }
}

async fn take_all(context: &Arc<Context>, receiver: &Arc<Receiver>, puller: &Puller) -> NatsError {
    let nats = &context.nats;
    let consumer = match queue::webhook_consumer(nats, receiver, context.config.events.max_age).await {
        Ok(consumer) => consumer,
        Err(error) => return error,
    };
    let handle = |message, _| {
        let (context, receiver) = (Arc::clone(context), Arc::clone(receiver));
        async move { deliver(&context, &receiver, &message).await }
    };
    loop {
        if let Err(error) =
            puller.pull(async |limit| queue::pull(nats, &consumer, limit, PULL_EXPIRES).await, handle).await
        {
            return error;
        }
    }
}

async fn deliver(context: &Context, receiver: &Receiver, message: &Message) {
    let nats = &context.nats;
    let id = message.headers.as_ref().map_or("", |headers| header(headers, NATS_MESSAGE_ID.as_ref()));
    let body = String::from_utf8_lossy(&message.payload);
    let delivered = message.info().map_or(1, |info| info.delivered);
    let reason = match context.provider.send_for_status(receiver.webhook.request(id, context.clock.now(), &body)).await
    {
        Ok(200..300) => {
            context.measures.webhooks_sent.inc();
            debug!(subject = %message.subject, "webhook delivered");
            return confirm(context, message, AckKind::Ack).await;
        }
        Ok(status) => format!("the receiver answered {status}"),
        Err(error) => format!("cannot reach the receiver: {error}"),
    };
    context.measures.webhooks_failed.inc();
    if delivered < MAX_WEBHOOK_DELIVERIES {
        let wait = backoff_webhook(delivered, system::random_share());
        warn!(subject = %message.subject, delivered, "webhook: {reason}; trying again in {wait:?}");
        return confirm(context, message, AckKind::Nak(Some(wait))).await;
    }
    warn!(subject = %message.subject, delivered, "webhook: {reason}; given up");
    match queue::dead_letter(nats, message, None, &format!("webhook: {reason}"), context.clock.now()).await {
        Ok(()) => confirm(context, message, AckKind::Term).await,
        Err(error) => warn!("cannot store a dead letter: {error}; the event is delivered again"),
    }
}

async fn confirm(context: &Context, message: &Message, kind: AckKind) {
    if let Err(error) = queue::confirm(&context.nats, message, kind).await {
        warn!("ack not confirmed: {error}; the receiver may get the event twice");
    }
}
