//! How to connect: credentials, certificates, and what happens while the server is away.

use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use tracing::{error, info, warn};

use crate::config;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting does not fit.
    #[error("{0}")]
    Setting(&'static str),
    /// A file of credentials cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server cannot be reached, or refuses.
    #[error("cannot connect to NATS at {url}: {source}")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        source: async_nats::ConnectError,
    },
}

pub(super) async fn options(settings: &config::Nats) -> Result<ConnectOptions, ConnectError> {
    let given = |path: &std::path::Path| !path.as_os_str().is_empty();
    let options = ConnectOptions::new();
    let options = match (!settings.user.is_empty(), given(&settings.creds), given(&settings.nkey)) {
        (false, false, false) => options,
        (true, false, false) => options.user_and_password(settings.user.clone(), settings.password.expose().to_owned()),
        (false, true, false) => {
            let text = read(&settings.creds).await?;
            options.credentials(&text).map_err(|source| file(&settings.creds, source))?
        }
        (false, false, true) => options.nkey(read(&settings.nkey).await?.trim().to_owned()),
        _ => return Err(ConnectError::Setting("give one of `nats.user`, `nats.creds`, `nats.nkey`")),
    };
    Ok(if given(&settings.ca) { options.add_root_certificates(settings.ca.clone()) } else { options })
}

async fn read(path: &std::path::Path) -> Result<String, ConnectError> {
    tokio::fs::read_to_string(path).await.map_err(|source| file(path, source))
}

fn file(path: &std::path::Path, source: std::io::Error) -> ConnectError {
    ConnectError::File { path: path.display().to_string(), source }
}

/// A tenth of a second, doubled with each try, up to five seconds.
pub(super) fn reconnect_delay(tries: usize) -> Duration {
    let doublings = u32::try_from(tries.min(6)).unwrap_or(0);
    (Duration::from_millis(100) * 2_u32.pow(doublings)).min(Duration::from_secs(5))
}

pub(super) fn log_event(event: &Event) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("NATS is away; trying again until it is back"),
        Event::LameDuckMode => info!("the NATS server is about to stop; moving to another one"),
        Event::Draining | Event::Closed => info!("connection to NATS closed"),
        Event::SlowConsumer(id) => warn!("subscription {id} is too slow; messages were dropped"),
        Event::ServerError(error) => error!("NATS: {error}"),
        Event::ClientError(error) => warn!("no connection to NATS: {error}; trying again"),
    }
}
