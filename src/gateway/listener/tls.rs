//! The gateway's certificate. Its files are read at start, on SIGHUP, and when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use zeroize::Zeroizing;

/// Interval at which the files are read. A new certificate is in use within this time; a check costs two small reads.
pub(crate) const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// No usable certificate. The texts never contain key material.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("http.tls_cert and http.tls_key go together: give both, or neither for plain HTTP")]
    Half,
    #[error("{setting}: cannot read {path}: {source}")]
    File { setting: &'static str, path: String, source: std::io::Error },
    #[error("http.tls_cert: no PEM certificate in {path}")]
    NoCertificate { path: String, source: Option<pem::Error> },
    #[error("http.tls_key: no PEM private key in {path}")]
    NoKey { path: String, source: pem::Error },
    /// Certificate and key do not belong together, or rustls does not support their kind.
    #[error("http.tls_cert and http.tls_key: {0}")]
    Pair(#[from] rustls::Error),
}

/// The current certificate and its files.
#[derive(Debug)]
pub(crate) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    /// Digest of the files' content at start.
    first: Digest,
    current: ArcSwap<ServerConfig>,
}

type Digest = [u8; 32];

/// The content of the two files.
struct Pair {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Certificates {
    /// Reads both files. Returns `None` if neither is set.
    pub(crate) async fn load(cert: &Path, key: &Path) -> Result<Option<Self>, TlsError> {
        match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => {}
            (true, false) | (false, true) => return Err(TlsError::Half),
        }
        let pair = Pair::read(cert, key).await?;
        let current = ArcSwap::from_pointee(pair.config(cert, key)?);
        Ok(Some(Self { cert: cert.to_owned(), key: key.to_owned(), first: pair.digest(), current }))
    }

    /// The configuration of the next handshake.
    pub(in crate::gateway) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Loads the files again on each `reload` and whenever they have changed. If the new pair cannot be used, logs it once
    /// and keeps the old certificate.
    pub(crate) async fn keep_current(
        &self,
        every: Duration,
        mut reload: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        let mut seen = Some(self.first);
        loop {
            let is_requested = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = reload.changed() => true,
                () = tokio::time::sleep(every) => false,
            };
            let read = Pair::read(&self.cert, &self.key).await;
            let found = read.as_ref().ok().map(Pair::digest);
            if found == seen && !is_requested {
                continue;
            }
            seen = found;
            match read.and_then(|pair| pair.config(&self.cert, &self.key)) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    info!("serving with the certificate of {}", self.cert.display());
                }
                Err(error) => error!("certificate not loaded; keeping the old one: {error}"),
            }
        }
    }
}

impl Pair {
    async fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = async |setting, path: &Path| {
            let bytes = tokio::fs::read(path).await;
            bytes.map_err(|source| TlsError::File { setting, path: path.display().to_string(), source })
        };
        Ok(Self { cert: read("http.tls_cert", cert).await?, key: read("http.tls_key", key).await?.into() })
    }

    fn digest(&self) -> Digest {
        let parts = [&self.cert[..], &self.key[..]].map(Sha256::digest);
        Sha256::digest(parts.concat()).into()
    }

    /// TLS 1.2 and 1.3 (BCP 195), HTTP/2 before HTTP/1.1. No early data, because it can be replayed.
    fn config(&self, cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
        let no_certificate = |source| TlsError::NoCertificate { path: cert.display().to_string(), source };
        let chain = CertificateDer::pem_slice_iter(&self.cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|source| no_certificate(Some(source)))?;
        if chain.is_empty() {
            return Err(no_certificate(None));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| TlsError::NoKey { path: key.display().to_string(), source })?;
        // Set explicitly: rustls has no default if two dependencies bring different providers.
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
pub(in crate::gateway) mod tests;
