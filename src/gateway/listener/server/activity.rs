//! Finds connections on which no request runs, and heads that arrive too slowly.

use std::sync::Arc;
use std::time::Duration;

use hyper::Version;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::listener::limits::Limits;

/// The requests that run on one connection.
#[derive(Debug)]
pub(super) struct Activity(watch::Sender<ActivityState>);

#[derive(Debug, Clone, Copy)]
struct ActivityState {
    running: usize,
    /// The time at which `running` last changed.
    since: Instant,
    /// The time of the first byte of a head whose end has not arrived. Means nothing with HTTP/2.
    head: Option<Instant>,
    /// HTTP version of the first request, once there was one.
    version: Option<Version>,
}

/// A running request. Ends when dropped.
pub(super) struct Running(Arc<Activity>);

/// The reason to close a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// No request ran for too long.
    Idle,
    /// A head took too long to arrive.
    SlowHead,
}

impl Activity {
    pub(super) fn new() -> Self {
        let state = ActivityState { running: 0, since: Instant::now(), head: None, version: None };
        Self(watch::Sender::new(state))
    }

    pub(super) fn begin(this: &Arc<Self>, version: Version) -> Running {
        this.0.send_modify(|state| {
            *state =
                ActivityState { running: state.running + 1, since: Instant::now(), version: Some(version), ..*state };
        });
        Running(Arc::clone(this))
    }

    /// Notes whether a part of a head has arrived.
    pub(super) fn set_is_in_head(&self, is_in_head: bool) {
        self.0.send_if_modified(|state| {
            let is_new = state.head.is_some() != is_in_head;
            if is_new {
                state.head = is_in_head.then(Instant::now);
            }
            is_new
        });
    }

    /// Returns once the connection has been silent for as long as the limits allow: [`Limits::header_timeout`] from its `began`
    /// to the first request, and from the first byte of a later head; otherwise [`Limits::idle_timeout`], or
    /// [`Limits::header_timeout`] while one of `pressures` is true.
    pub(super) async fn silent(
        &self,
        began: Instant,
        limits: &Limits,
        pressures: [watch::Receiver<bool>; 2],
    ) -> Silence {
        let (mut states, [mut of_all, mut of_network]) = (self.0.subscribe(), pressures);
        loop {
            let ActivityState { running, since, head, version } = *states.borrow_and_update();
            let is_under_pressure = *of_all.borrow_and_update() | *of_network.borrow_and_update();
            let idle =
                if is_under_pressure { limits.idle_timeout.min(limits.header_timeout) } else { limits.idle_timeout };
            let (deadline, reason) = match (version, head) {
                (None, _) => (began + limits.header_timeout, Silence::SlowHead),
                (Some(Version::HTTP_2), _) | (_, None) => (since + idle, Silence::Idle),
                (_, Some(head)) => (head.max(since) + limits.header_timeout, Silence::SlowHead),
            };
            tokio::select! {
                () = tokio::time::sleep_until(deadline), if running == 0 => return reason,
                Ok(()) = states.changed() => {}
                Ok(()) = of_all.changed() => {}
                Ok(()) = of_network.changed() => {}
            }
        }
    }

    /// Returns once the first request has begun, and after that time at the latest.
    pub(super) async fn begun_within(&self, time: Duration) {
        let mut states = self.0.subscribe();
        // An elapsed time is no error: the connection is then silent.
        let _ = tokio::time::timeout(time, states.wait_for(|state| state.version.is_some())).await;
    }

    /// Returns once no request has run for that time, from now on.
    pub(super) async fn idle_for(&self, time: Duration) {
        let (mut states, now) = (self.0.subscribe(), Instant::now());
        loop {
            let ActivityState { running, since, .. } = *states.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(since.max(now) + time), if running == 0 => return,
                Ok(()) = states.changed() => {}
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| {
            *state = ActivityState { running: state.running.saturating_sub(1), since: Instant::now(), ..*state };
        });
    }
}
