//! Requests to background tasks that cannot wait for their next run: a config that exists again, a lost queue, and a failed
//! pull.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::subject::Integration;

#[derive(Default)]
pub(crate) struct Wakeups {
    returned_configs: Mutex<Vec<Integration>>,
    returned_config: Notify,
    lost_queue: Notify,
    queue_check: Notify,
}

impl Wakeups {
    /// Requests the resumption of paused connections: the integration has a config again.
    pub(crate) fn report_returned_config(&self, integration: Integration) {
        self.returned_configs.lock().unwrap_or_else(PoisonError::into_inner).push(integration);
        self.returned_config.notify_one();
    }

    /// Requests a repair pass: a queue was lost, perhaps with schedules.
    pub(crate) fn report_lost_queue(&self) {
        self.lost_queue.notify_one();
    }

    /// Requests a check of the queues: a pull failed, so a queue may be lost.
    pub(crate) fn request_queue_check(&self) {
        self.queue_check.notify_one();
    }

    pub(crate) async fn queue_check_requested(&self) {
        self.queue_check.notified().await;
    }

    pub(crate) async fn returned_config(&self) {
        self.returned_config.notified().await;
    }

    pub(crate) async fn lost_queue(&self) {
        self.lost_queue.notified().await;
    }

    #[must_use]
    pub(crate) fn take_returned_configs(&self) -> Vec<Integration> {
        std::mem::take(&mut *self.returned_configs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
