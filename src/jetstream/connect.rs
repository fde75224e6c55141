//! Connection options: credentials, certificates, reconnects, and a log line for each event of the connection.

mod credentials;
mod transport;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{AuthError, Client, ClientError, ConnectErrorKind, ConnectOptions, Event};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

pub(super) use self::credentials::{Credentials, jwt_and_seed};
pub(super) use self::transport::{Transport, transport};
use crate::config;

/// Shortest time between two probes. A probe is a login at a server that may be struggling, and its log line repeats.
const PROBE_INTERVAL: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Setting(&'static str),
    #[error("`{setting}` holds no PEM {wanted}: {source}")]
    Pem { setting: &'static str, wanted: &'static str, source: pem::Error },
    #[error("`nats.client_cert` and `nats.client_key` do not match: {0}")]
    Pair(#[source] rustls::Error),
    #[error("`nats.url` holds no server address ({url}): {source}")]
    Address { url: String, source: std::io::Error },
    #[error("`nats.creds` or `nats.nkey` holds no usable seed: {0}")]
    Seed(#[from] nkeys::error::Error),
    #[error("{path} holds no user JWT with its seed, as `nats.creds` needs")]
    NoJwt { path: String },
    #[error("cannot read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("NATS at {url} refuses this user: correct `nats.user` and `nats.password`, `nats.creds` or `nats.nkey`")]
    Unauthorized { url: String, source: async_nats::ConnectError },
    #[error("NATS at {url} refuses this user, because the JWT in {path} has expired: renew the file")]
    Expired { url: String, path: String },
    #[error(
        "`nats.url` has the server {server}, which is not on loopback, without TLS: write `tls://`, set `nats.ca`, or set \
         `nats.allow_plaintext` if the network is private"
    )]
    Plaintext { server: String },
    #[error("cannot connect to NATS at {url}: {source}")]
    Connect { url: String, source: async_nats::ConnectError },
}

impl ConnectError {
    pub(super) fn of(url: &str, credentials: Option<&Credentials>, source: async_nats::ConnectError) -> Self {
        let url = url.to_owned();
        if source.kind() != ConnectErrorKind::AuthorizationViolation {
            return Self::Connect { url, source };
        }
        match credentials.and_then(Credentials::expired) {
            Some(path) => Self::Expired { url, path: path.display().to_string() },
            None => Self::Unauthorized { url, source },
        }
    }
}

/// Returns the addresses of the servers.
pub(super) fn servers(settings: &config::Nats) -> Result<Vec<String>, ConnectError> {
    let servers: Vec<String> = settings.url.split(',').map(|server| server.trim().to_owned()).collect();
    // The client library ignores a user and password in the URL without an error.
    if servers.iter().any(|server| server.contains('@')) {
        return Err(ConnectError::Setting(
            "nats.url must not hold a user or password; set `nats.user` and `nats.password`",
        ));
    }
    Ok(servers)
}

pub(super) async fn options(settings: &config::Nats, servers: &[String]) -> Result<ConnectOptions, ConnectError> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    let options = ConnectOptions::new();
    let options = match (!settings.user.is_empty(), given(&settings.creds), given(&settings.nkey)) {
        (false, false, false) => options,
        (true, false, false) => options.user_and_password(settings.user.clone(), settings.password.expose().to_owned()),
        (false, true, false) | (false, false, true) => from_file(settings)?,
        _ => return Err(ConnectError::Setting("set only one of `nats.user`, `nats.creds`, `nats.nkey`")),
    };
    let options = certificates(options, settings).await?;
    Ok(match transport(settings, servers)? {
        Transport::Tls => options.require_tls(true),
        Transport::Listed => options.ignore_discovered_servers(),
        Transport::Any => options,
    })
}

/// Reads the credentials at each connection. They must be usable now: later errors are retried.
fn from_file(settings: &config::Nats) -> Result<ConnectOptions, ConnectError> {
    let Some(credentials) = Credentials::of(settings) else { return Ok(ConnectOptions::new()) };
    credentials.answer(&[])?;
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        std::future::ready(credentials.answer(&nonce).map_err(AuthError::new))
    }))
}

/// Sets up TLS from the settings that name certificates. Reads the files first: the client reads them only while it
/// connects, and would try without end with a broken one.
async fn certificates(options: ConnectOptions, settings: &config::Nats) -> Result<ConnectOptions, ConnectError> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    // Without this call rustls has no default as soon as any dependency adds a second provider. An error means that the
    // process already has a default.
    let _ = aws_lc_rs::default_provider().install_default();
    let mut options = options;
    if given(&settings.ca) {
        certificate_chain("nats.ca", &read(&settings.ca).await?)?;
        // A configured authority means that the server must prove its identity. By default the client accepts a server
        // that offers no TLS.
        options = options.add_root_certificates(settings.ca.clone()).require_tls(true);
    }
    match (given(&settings.client_cert), given(&settings.client_key)) {
        (false, false) => Ok(options),
        (true, true) => {
            let (cert, key) = (read(&settings.client_cert).await?, read(&settings.client_key).await?);
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|source| ConnectError::Pem {
                setting: "nats.client_key",
                wanted: "private key",
                source,
            })?;
            let chain = certificate_chain("nats.client_cert", &cert)?;
            CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(ConnectError::Pair)?;
            let (cert, key) = (settings.client_cert.clone(), settings.client_key.clone());
            Ok(options.add_client_certificate(cert, key).require_tls(true))
        }
        (true, false) | (false, true) => {
            Err(ConnectError::Setting("`nats.client_cert` and `nats.client_key` go together: set both, or neither"))
        }
    }
}

/// Reads one or more certificates.
pub(super) fn certificate_chain(
    setting: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if chain.is_empty() => Err(pem::Error::NoItemsFound),
        chain => chain,
    }
    .map_err(|source| ConnectError::Pem { setting, wanted: "certificate", source })
}

pub(super) async fn read(path: &Path) -> Result<String, ConnectError> {
    tokio::fs::read_to_string(path).await.map_err(|source| file(path, source))
}

fn file(path: &Path, source: std::io::Error) -> ConnectError {
    ConnectError::File { path: path.display().to_string(), source }
}

/// Delay before the next try to connect: a tenth of a second, doubled with each try, up to five seconds. Long enough not
/// to burden a server that starts, short enough that its return is noticed soon.
pub(super) fn reconnect_delay(tries: usize) -> Duration {
    let doublings = u32::try_from(tries.min(6)).unwrap_or(0);
    (Duration::from_millis(100) * 2_u32.pow(doublings)).min(Duration::from_secs(5))
}

/// Finds the reason of a failed connection by connecting once more. async-nats 0.51 drops the cause while it reconnects:
/// its events carry the error's kind as text ("IO error") and nothing else.
pub(super) struct Probe {
    options: ConnectOptions,
    servers: Vec<String>,
    credentials: Option<Credentials>,
    last: Mutex<Option<Instant>>,
    tasks: TaskTracker,
}

impl Probe {
    pub(super) fn new(options: ConnectOptions, servers: Vec<String>, credentials: Option<Credentials>) -> Self {
        Self { options, servers, credentials, last: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Opens a connection of its own, which logs nothing.
    pub(super) async fn connect(&self) -> Result<Client, ConnectError> {
        let connected = self.options.clone().connect(&self.servers[..]).await;
        connected.map_err(|source| ConnectError::of(&self.servers.join(","), self.credentials.as_ref(), source))
    }

    /// Returns the reason, or the event's text if the probe connects. Returns nothing if the last probe was less than
    /// [`PROBE_INTERVAL`] ago.
    async fn reason(&self, error: &ClientError) -> Option<String> {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < PROBE_INTERVAL) {
                return None;
            }
            *last = Some(Instant::now());
        }
        let (options, servers) = (self.options.clone(), self.servers.clone());
        // In a task, because an event callback must be `Sync`, and the future of `connect` is not.
        let probe = self.tasks.spawn(async move { options.connect(&servers[..]).await.err() });
        let found = probe.await.ok().flatten();
        Some(match found.map(|found| ConnectError::of(&self.servers.join(","), self.credentials.as_ref(), found)) {
            None => error.to_string(),
            Some(ConnectError::Connect { source, .. }) => source.to_string(),
            Some(refused) => refused.to_string(),
        })
    }
}

pub(super) async fn log_event(event: &Event, probe: &Probe) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("disconnected from NATS; trying again until it is back"),
        Event::LameDuckMode => info!("the NATS server is shutting down; moving to another one"),
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
