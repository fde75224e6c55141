//! Finds connections on which no request runs.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::gateway::listener::limits::Limits;

/// The requests that run on one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<ActivityState>);

#[derive(Debug, Clone, Copy)]
struct ActivityState {
    running: usize,
    /// The time at which `running` last changed.
    since: Instant,
}

/// A running request. Ends when dropped.
pub(super) struct Running(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ActivityState { running: 0, since: Instant::now() }))
    }

    fn state(&self) -> ActivityState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_running(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = ActivityState { running: change(state.running), since: Instant::now() };
    }

    pub(super) fn begin(this: &Arc<Self>) -> Running {
        this.set_running(|running| running + 1);
        Running(Arc::clone(this))
    }

    /// Returns once no request has run for as long as the limits allow: [`Limits::header_timeout`] until a request begins or
    /// ends after this call, then [`Limits::idle_timeout`].
    pub(super) async fn idle(&self, limits: &Limits) {
        let began = self.state().since;
        loop {
            let ActivityState { running, since } = self.state();
            let longest = if since == began { limits.header_timeout } else { limits.idle_timeout };
            let deadline = if running > 0 { Instant::now() + longest } else { since + longest };
            if running == 0 && deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set_running(|running| running.saturating_sub(1));
    }
}
