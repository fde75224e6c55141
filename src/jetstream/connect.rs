//! How to connect: credentials, certificates, and what happens while the server is away.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{ClientError, ConnectErrorKind, ConnectOptions, Event};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::config;

/// How often at most the reason of a failure is looked for.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting does not fit.
    #[error("{0}")]
    Setting(&'static str),
    /// The certificate and key of this process do not go together.
    #[error("`nats.client_cert` and `nats.client_key`: {0}")]
    Pair(rustls::Error),
    /// A file of credentials cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server knows no such user, or not with these credentials.
    #[error("NATS at {0} refuses this user: correct `nats.user` and `nats.password`, `nats.creds` or `nats.nkey`")]
    Unauthorized(String),
    /// The server cannot be reached.
    #[error("cannot connect to NATS at {url}: {source}")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        source: async_nats::ConnectError,
    },
}

impl ConnectError {
    pub(super) fn of(url: &str, source: async_nats::ConnectError) -> Self {
        let url = url.to_owned();
        if source.kind() == ConnectErrorKind::AuthorizationViolation {
            return Self::Unauthorized(url);
        }
        Self::Connect { url, source }
    }
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
    let _ = aws_lc_rs::default_provider().install_default();
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
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_| ConnectError::Setting("`nats.client_key` holds no PEM private key"))?;
            let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<Vec<_>, _>>();
            let chain = chain.ok().filter(|chain| !chain.is_empty());
            let chain = chain.ok_or(ConnectError::Setting("`nats.client_cert` holds no PEM certificate"))?;
            CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(ConnectError::Pair)?;
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

/// Looks for the reason of a failed connection: the client's events name no more than its kind.
pub(super) struct Probe {
    options: ConnectOptions,
    servers: Vec<String>,
    looked: Mutex<Option<Instant>>,
    tasks: TaskTracker,
}

impl Probe {
    pub(super) fn new(options: ConnectOptions, servers: Vec<String>) -> Self {
        Self { options, servers, looked: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// The reason, found by one more try, or else the client's word for it; not more often than once a minute.
    async fn reason(&self, error: &ClientError) -> Option<String> {
        let is_due = |looked: Option<Instant>| looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN);
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_due(*looked) {
                return None;
            }
            *looked = Some(Instant::now());
        }
        let (options, servers) = (self.options.clone(), self.servers.clone());
        // A task of its own, because what the client calls back must be `Sync`, and connecting is not.
        let tried = self.tasks.spawn(async move { options.connect(&servers[..]).await.err().map(|it| it.to_string()) });
        Some(tried.await.ok().flatten().unwrap_or_else(|| error.to_string()))
    }
}

pub(super) async fn log_event(event: &Event, probe: &Probe) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("NATS is away; trying again until it is back"),
        Event::LameDuckMode => info!("the NATS server is about to stop; moving to another one"),
        Event::Draining | Event::Closed => info!("connection to NATS closed"),
        Event::SlowConsumer(id) => warn!("subscription {id} is too slow; messages were dropped"),
        Event::ServerError(error) => error!("NATS: {error}"),
        Event::ClientError(error) => {
            if let Some(reason) = probe.reason(error).await {
                warn!("no connection to NATS: {reason}; trying again");
            } else {
                debug!("no connection to NATS: {error}");
            }
        }
    }
}
