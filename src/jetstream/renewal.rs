//! Moves a process to renewed NATS credentials while it works.
//!
//! A user's JWT ends, and the server then closes the connection in the middle of requests. [`Nats::renew`] reconnects earlier, at a
//! moment without running requests if there is one:
//!
//! 1. A connection of its own shows that the server accepts the credentials. If it does not, nothing else happens.
//! 2. New requests wait, and running ones get [`GRACE`] to be answered.
//! 3. The receivers take what the server has sent them, and reconnect; the client reconnects; the requests continue.

use std::time::Duration;

use async_nats::connection::State;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{info, warn};

use super::Nats;
use super::connect::{ConnectError, Credentials, reconnect_delay};
use crate::config;

/// Longest wait for running requests. Most are answered within milliseconds; calls that wait for a provider are not waited for.
const GRACE: Duration = Duration::from_millis(500);
/// Longest time for which new requests wait for the connection. After that they fail as without a connection.
const RECONNECT_TIME: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// The state of a process's renewals.
#[derive(Default)]
pub(super) struct Renewal {
    /// True while the connection is being replaced.
    is_running: watch::Sender<bool>,
    requests: TaskTracker,
    /// Number of renewals, for the receivers.
    count: watch::Sender<u64>,
}

impl Renewal {
    /// Waits until no renewal runs. A request is running until the returned token is dropped.
    pub(super) async fn request(&self) -> TaskTrackerToken {
        loop {
            let token = self.requests.token();
            if !self.is_running() {
                return token;
            }
            drop(token);
            // An error cannot happen: the sender is in `self`.
            let _ = self.is_running.subscribe().wait_for(|is_running| !is_running).await;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        *self.is_running.borrow()
    }

    /// Changes when receivers must reconnect.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Delay before a try to connect. The first try of a renewal has none.
    pub(super) fn delay(&self, tries: usize) -> Duration {
        if tries <= 1 && self.is_running() { Duration::ZERO } else { reconnect_delay(tries) }
    }
}

impl Nats {
    /// Reconnects with the credentials that are in the files now.
    ///
    /// # Errors
    /// If the server does not accept them. The connection then stays as it is.
    async fn renew(&self) -> Result<(), ConnectError> {
        self.probe.connect().await?;
        let renewal = &self.renewal;
        renewal.is_running.send_replace(true);
        renewal.requests.close();
        // Requests that take longer lose their answer, as with any other lost connection.
        let _ = timeout(GRACE, renewal.requests.wait()).await;
        renewal.requests.reopen();
        renewal.count.send_modify(|count| *count += 1);
        let before = self.connection_count();
        let reconnected = async {
            self.client().force_reconnect().await?;
            while self.connection_count() == before || self.client().connection_state() != State::Connected {
                sleep(LOOK).await;
            }
            Ok::<_, async_nats::client::ReconnectError>(())
        };
        if !matches!(timeout(RECONNECT_TIME, reconnected).await, Ok(Ok(()))) {
            warn!("no connection with the renewed credentials yet; trying again");
        }
        renewal.is_running.send_replace(false);
        Ok(())
    }
}

/// Looks at the credentials' file on SIGHUP. If it has changed, moves the process to the new credentials. Returns at `stop`.
pub(crate) async fn keep_credentials_current(
    nats: Nats,
    settings: config::Nats,
    mut reload: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let Some(credentials) = Credentials::of(&settings) else { return stop.cancelled().await };
    let mut used = credentials.read().ok();
    while let Some(Ok(())) = stop.run_until_cancelled(reload.changed()).await {
        let found = credentials.answer(&[]).and_then(|_| credentials.read());
        match found {
            Ok(found) if used.as_ref() == Some(&found) => {}
            Ok(found) => match nats.renew().await {
                Ok(()) => {
                    used = Some(found);
                    info!("connected to NATS with the renewed credentials");
                }
                Err(error) => warn!("the connection to NATS keeps the old credentials: {error}"),
            },
            Err(error) => warn!("the next connection to NATS will fail: {error}"),
        }
    }
    stop.cancelled().await;
}
