//! How to connect: credentials, certificates, and what happens while the server is away.

use std::path::Path;
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
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
    let given = |path: &Path| !path.as_os_str().is_empty();
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
    certificates(options, settings).await
}

/// TLS, as far as settings name something of it. Files are read here first: the client reads them while it connects, and
/// would try for ever with a broken one.
async fn certificates(options: ConnectOptions, settings: &config::Nats) -> Result<ConnectOptions, ConnectError> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    // Named, because a second provider anywhere among the dependencies leaves rustls without a default. Whoever was
    // first has named one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut options = options;
    if given(&settings.ca) {
        let pem = read(&settings.ca).await?;
        let authorities = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        if authorities.map_or(true, |found| found.is_empty()) {
            return Err(ConnectError::Setting("`nats.ca` holds no PEM certificate"));
        }
        // Who names an authority wants to know the server: without this it could say that it speaks no TLS.
        options = options.add_root_certificates(settings.ca.clone()).require_tls(true);
    }
    match (given(&settings.client_cert), given(&settings.client_key)) {
        (false, false) => Ok(options),
        (true, true) => {
            let (cert, key) = (read(&settings.client_cert).await?, read(&settings.client_key).await?);
            if CertificateDer::from_pem_slice(cert.as_bytes()).is_err() {
                return Err(ConnectError::Setting("`nats.client_cert` holds no PEM certificate"));
            }
            if PrivateKeyDer::from_pem_slice(key.as_bytes()).is_err() {
                return Err(ConnectError::Setting("`nats.client_key` holds no PEM private key"));
            }
            let (cert, key) = (settings.client_cert.clone(), settings.client_key.clone());
            Ok(options.add_client_certificate(cert, key).require_tls(true))
        }
        (true, false) | (false, true) => {
            Err(ConnectError::Setting("`nats.client_cert` and `nats.client_key` go together: give both, or neither"))
        }
    }
}

async fn read(path: &Path) -> Result<String, ConnectError> {
    tokio::fs::read_to_string(path).await.map_err(|source| file(path, source))
}

fn file(path: &Path, source: std::io::Error) -> ConnectError {
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
