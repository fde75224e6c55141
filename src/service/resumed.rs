//! Integrations whose config came back: their connections go on at once.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::subject::Integration;

/// Those that nobody has looked after yet.
#[derive(Default)]
pub struct Resumed {
    integrations: Mutex<Vec<Integration>>,
    news: Notify,
}

impl Resumed {
    /// Takes one in.
    pub fn add(&self, integration: Integration) {
        self.integrations.lock().unwrap_or_else(PoisonError::into_inner).push(integration);
        self.news.notify_one();
    }

    /// Ends when there is one.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes all of them out.
    #[must_use]
    pub fn take(&self) -> Vec<Integration> {
        std::mem::take(&mut *self.integrations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
