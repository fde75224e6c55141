//! Moves a process to renewed NATS credentials while it works.
//!
//! A user's JWT ends, and the server then closes the connection in the middle of requests. [`Nats::renew`] reconnects earlier:
//!
//! 1. A second connection shows that the server accepts the credentials. If it does not, nothing else happens.
//! 2. New requests use the second connection. Receivers take what the server has sent them, and reconnect.
//! 3. Once the running requests have their answers, the first connection reconnects.
//! 4. New requests use the first connection again. The second one closes once its requests have their answers.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Nats;
use super::connect::{ConnectError, Credentials, reconnect_delay};
use super::requests::RequestConnection;
use crate::config;

const LOOK: Duration = Duration::from_millis(5);

/// The state of a process's renewals.
#[derive(Default)]
pub(super) struct Renewal {
    /// The connection for new requests while the first one is being replaced.
    second: watch::Sender<Option<Arc<RequestConnection>>>,
    /// Number of renewals, for the receivers.
    count: watch::Sender<u64>,
}

impl Renewal {
    pub(super) fn second(&self) -> watch::Receiver<Option<Arc<RequestConnection>>> {
        self.second.subscribe()
    }

    /// Changes when receivers must reconnect.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Delay before a try to connect. The first try of a renewal has none.
    pub(super) fn delay(&self, tries: usize) -> Duration {
        if tries <= 1 && self.second.borrow().is_some() { Duration::ZERO } else { reconnect_delay(tries) }
    }
}

impl Nats {
    /// Returns the connection for new requests.
    pub(super) fn current(&self) -> Arc<RequestConnection> {
        self.renewal.second.borrow().clone().unwrap_or_else(|| Arc::clone(&self.main))
    }

    /// Reconnects with the credentials that are in the files now.
    ///
    /// # Errors
    /// If the server does not accept them. The connection then stays as it is.
    async fn renew(&self) -> Result<(), ConnectError> {
        let second = Arc::new(RequestConnection::new(self.probe.connect().await?));
        self.renewal.count.send_modify(|count| *count += 1);
        self.renewal.second.send_replace(Some(Arc::clone(&second)));
        self.main.finish().await;
        self.reconnect().await;
        info!("connected to NATS with the renewed credentials");
        self.renewal.second.send_replace(None);
        second.finish().await;
        // An error means that the connection is closed already.
        let _ = second.client.drain().await;
        Ok(())
    }

    async fn reconnect(&self) {
        let before = self.connection_count();
        // Reconnecting drops what is not sent yet. An error means that the client is closed: the process is stopping.
        let (Ok(()), Ok(())) = (self.client().flush().await, self.client().force_reconnect().await) else { return };
        while self.connection_count() == before || self.client().connection_state() != State::Connected {
            sleep(LOOK).await;
        }
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
            Ok(found) => match stop.run_until_cancelled(nats.renew()).await {
                Some(Ok(())) => used = Some(found),
                Some(Err(error)) => warn!("the connection to NATS keeps the old credentials: {error}"),
                None => {}
            },
            Err(error) => warn!("the next connection to NATS will fail: {error}"),
        }
    }
    stop.cancelled().await;
}
