//! Requests to background tasks that cannot wait for their next run: a new config, a lost queue, a restart of the server, and a
//! failed pull.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::subject::Integration;

/// Most integrations that wait for the resumption of their paused connections. The connections of further integrations
/// resume when their schedule fires, within 15 minutes.
const MAX_NEW_CONFIGS: usize = 1_024;

#[derive(Default)]
pub(crate) struct Wakeups {
    new_configs: Mutex<HashSet<Integration>>,
    new_config: Notify,
    lost_queue: Notify,
    restart: Notify,
    queue_check: Notify,
}

impl Wakeups {
    /// Requests the resumption of paused connections: the integration has a new config.
    pub(crate) fn report_new_config(&self, integration: Integration) {
        let mut waiting = self.new_configs.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_NEW_CONFIGS {
            waiting.insert(integration);
        }
        drop(waiting);
        self.new_config.notify_one();
    }

    /// Requests a repair pass: a queue was lost, perhaps with schedules.
    pub(crate) fn report_lost_queue(&self) {
        self.lost_queue.notify_one();
    }

    /// Requests a repair pass, unless another worker has begun one since: the server was restarted, and may have lost schedules.
    pub(crate) fn report_restart(&self) {
        self.restart.notify_one();
    }

    pub(crate) async fn restart(&self) {
        self.restart.notified().await;
    }

    /// Requests a check of the queues: a pull failed, so a queue may be lost.
    pub(crate) fn request_queue_check(&self) {
        self.queue_check.notify_one();
    }

    pub(crate) async fn queue_check_requested(&self) {
        self.queue_check.notified().await;
    }

    pub(crate) async fn new_config(&self) {
        self.new_config.notified().await;
    }

    pub(crate) async fn lost_queue(&self) {
        self.lost_queue.notified().await;
    }

    #[must_use]
    pub(crate) fn take_new_configs(&self) -> HashSet<Integration> {
        std::mem::take(&mut *self.new_configs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_configs_are_bounded() {
        let wakeups = Wakeups::default();
        let integration = |number: usize| Integration::parse(&format!("app{number}")).unwrap();
        for _ in 0..3 {
            wakeups.report_new_config(integration(0));
        }
        assert_eq!(wakeups.take_new_configs().len(), 1);
        for number in 0..2 * MAX_NEW_CONFIGS {
            wakeups.report_new_config(integration(number));
        }
        assert_eq!(wakeups.take_new_configs().len(), MAX_NEW_CONFIGS);
    }
}
