//! A subscription that misses nothing while [`renewal`](super::renewal) replaces the connection: the second connection subscribes
//! before the first one ends.

use std::sync::Arc;

use async_nats::{Message, SubscribeError, Subscriber};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tracing::warn;

use super::client::Nats;
use super::requests::{InUse, RequestConnection};

/// Receives some messages twice during a renewal.
pub(crate) struct KeptSubscription {
    nats: Nats,
    subject: String,
    main: Subscriber,
    second: Option<Subscriber>,
    /// The second connection during a renewal.
    renewals: watch::Receiver<Option<Arc<RequestConnection>>>,
    /// The connection that must not end. Dropped once the other one has subscribed.
    in_use: InUse,
}

impl Nats {
    /// # Errors
    /// If the connection is closed.
    pub(crate) async fn subscribe_kept(&self, subject: String) -> Result<KeptSubscription, SubscribeError> {
        let (in_use, mut renewals) = (self.in_use(), self.renewal.second());
        let main = self.client().subscribe(subject.clone()).await?;
        // A renewal may have begun already.
        renewals.mark_changed();
        Ok(KeptSubscription { nats: self.clone(), subject, main, second: None, renewals, in_use })
    }
}

impl KeptSubscription {
    /// Returns the next message, or nothing if the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                message = self.main.next() => return message,
                message = next_of(&mut self.second) => match message {
                    Some(message) => return Some(message),
                    // The second connection has ended.
                    None => self.second = None,
                },
                Ok(()) = self.renewals.changed() => self.move_on().await,
            }
        }
    }

    async fn move_on(&mut self) {
        let second = self.renewals.borrow_and_update().clone();
        if let Some(second) = second {
            match second.client.subscribe(self.subject.clone()).await {
                Ok(subscriber) => self.second = Some(subscriber),
                Err(error) => warn!("answers may be lost while the NATS credentials are renewed: {error}"),
            }
        }
        self.in_use = self.nats.in_use();
    }
}

async fn next_of(subscriber: &mut Option<Subscriber>) -> Option<Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}
