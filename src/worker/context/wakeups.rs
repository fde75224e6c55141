//! Requests to background tasks that cannot wait for their next run: a config that exists again, a lost queue, and a failed
//! pull.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::subject::Integration;

/// Most integrations that wait for the resumption of their paused connections. The connections of further integrations
/// resume when their schedule fires, within 15 minutes.
const MAX_RETURNED_CONFIGS: usize = 1_024;

#[derive(Default)]
pub(crate) struct Wakeups {
    returned_configs: Mutex<HashSet<Integration>>,
    returned_config: Notify,
    lost_queue: Notify,
    queue_check: Notify,
}

impl Wakeups {
    /// Requests the resumption of paused connections: the integration has a config again.
    pub(crate) fn report_returned_config(&self, integration: Integration) {
        let mut waiting = self.returned_configs.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_RETURNED_CONFIGS {
            waiting.insert(integration);
        }
        drop(waiting);
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
    pub(crate) fn take_returned_configs(&self) -> HashSet<Integration> {
        std::mem::take(&mut *self.returned_configs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returned_configs_are_bounded() {
        let wakeups = Wakeups::default();
        let integration = |number: usize| Integration::parse(&format!("app{number}")).unwrap();
        for _ in 0..3 {
            wakeups.report_returned_config(integration(0));
        }
        assert_eq!(wakeups.take_returned_configs().len(), 1);
        for number in 0..2 * MAX_RETURNED_CONFIGS {
            wakeups.report_returned_config(integration(number));
        }
        assert_eq!(wakeups.take_returned_configs().len(), MAX_RETURNED_CONFIGS);
    }
}
