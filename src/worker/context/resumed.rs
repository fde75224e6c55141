//! What cannot wait for the next repair pass: integrations whose config came back, and a queue that was lost.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::subject::Integration;

/// What nobody has looked after yet.
#[derive(Default)]
pub(crate) struct Resumed {
    integrations: Mutex<Vec<Integration>>,
    news: Notify,
    lost: Notify,
    doubt: Notify,
}

impl Resumed {
    /// An integration's config came back.
    pub(crate) fn add(&self, integration: Integration) {
        self.integrations.lock().unwrap_or_else(PoisonError::into_inner).push(integration);
        self.news.notify_one();
    }

    /// A queue was lost, and schedules with it.
    pub(crate) fn add_lost(&self) {
        self.lost.notify_one();
    }

    /// Something could not be taken from a queue: it may be lost.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Ends when a queue may be lost.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Ends when a config came back.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Ends when a queue was lost.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Takes all integrations out.
    #[must_use]
    pub(crate) fn take(&self) -> Vec<Integration> {
        std::mem::take(&mut *self.integrations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
