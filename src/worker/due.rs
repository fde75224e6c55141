//! Refreshes that are due become commands; connections that lost their schedule get one again.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{AGAIN, PULL, Service, settle};
use crate::command::Work;
use crate::nats::outgoing::Outgoing;
use crate::nats::schedule::{self, Due};
use crate::nats::{NatsError, bucket, command as queue};
use crate::store::StoreError;
use crate::subject::{CONNECTIONS, CommandSubject, ConnectionKey, Verb};

/// Due refreshes taken at once.
const BATCH: usize = 64;
/// Pause of the repair pass between two connections.
const PACE: Duration = Duration::from_millis(2);

/// Turns due refreshes into commands until told to stop.
pub(super) async fn run(service: Arc<Service>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            ended = take_all(&service) => ended,
        };
        warn!("cannot take due refreshes: {ended}; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn take_all(service: &Service) -> NatsError {
    let consumer = match schedule::consumer(&service.store.nats).await {
        Ok(consumer) => consumer,
        Err(error) => return error,
    };
    loop {
        if let Err(error) = take(service, &consumer).await {
            return error;
        }
    }
}

async fn take(service: &Service, consumer: &PullConsumer) -> Result<(), NatsError> {
    let mut batch = queue::pull(consumer, BATCH, PULL).await?;
    while let Some(message) = batch.next().await {
        let message = message.map_err(|_| NatsError::Away("the pull ended early"))?;
        let kind = match enqueue(service, &message).await {
            // Queued, or queued already: that refresh will do.
            Ok(()) | Err(StoreError::Nats(NatsError::Occupied)) => AckKind::Ack,
            Err(StoreError::Unreadable(what)) => {
                warn!("a due refresh cannot be read: {what}");
                AckKind::Term
            }
            Err(error) => {
                warn!("a due refresh could not be queued: {error}");
                AckKind::Nak(Some(AGAIN))
            }
        };
        queue::confirm(&service.store.nats, &message, kind).await?;
    }
    Ok(())
}

async fn enqueue(service: &Service, message: &Message) -> Result<(), StoreError> {
    let unreadable = || StoreError::Unreadable(message.subject.to_string());
    let key = ConnectionKey::parse_due(&message.subject).map_err(|_| unreadable())?;
    let due: Due = serde_json::from_slice(&message.payload).map_err(|_| unreadable())?;
    let subject = CommandSubject::connection(&key, Verb::Refresh);
    let work = Work::Refresh { actor: None, sequence: due.sequence };
    let command = Outgoing::seal(&subject, work, |order| service.store.keyring.seal_own_order(order));
    let command = command.map_err(|source| StoreError::Seal { what: subject.subject(), source })?;
    command.publish(&service.store.nats, None).await?;
    Ok(())
}

/// Finds connections without a schedule now and then, in case one was lost.
pub(super) async fn repair(service: Arc<Service>, stop: CancellationToken) {
    let every = service.config.refresh.repair_interval;
    // Workers that started together do not look together.
    let mut pause = every.mul_f64(crate::system::random_share());
    while tokio::time::timeout(pause, stop.cancelled()).await.is_err() {
        match repair_once(&service).await {
            Ok(0) => {}
            Ok(found) => info!("{found} connections had lost their schedule"),
            Err(error) => warn!("repair pass ended early: {error}"),
        }
        pause = every;
    }
}

async fn repair_once(service: &Service) -> Result<usize, StoreError> {
    let nats = &service.store.nats;
    let (keys, scheduled) = (bucket::keys(nats, CONNECTIONS, ">").await?, schedule::subjects(nats).await?);
    let mut repaired = 0;
    for key in keys.iter().filter_map(|key| ConnectionKey::parse_kv_key(key).ok()) {
        if scheduled.contains(&key.schedule_at()) || scheduled.contains(&key.schedule_due()) {
            continue;
        }
        tokio::time::sleep(PACE).await;
        let Some(connection) = service.store.connection(&key).await? else { continue };
        if connection.refresh_at(crate::system::now(), 0.0).is_some() {
            settle::plan(service, &key, &connection).await?;
            repaired += 1;
        }
    }
    Ok(repaired)
}
