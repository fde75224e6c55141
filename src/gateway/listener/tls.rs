//! The gateway's certificate: read at start, and again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use zeroize::Zeroizing;

/// How often files are looked at: a look costs two small reads.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// Why there is no certificate to serve with. Nothing of the key is in the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// One of the two settings without the other.
    #[error("http.tls_cert and http.tls_key go together: give both, or neither for plain HTTP")]
    Half,
    /// A file cannot be read.
    #[error("{setting}: cannot read {path}: {source}")]
    File {
        /// Which setting names it.
        setting: &'static str,
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No certificate in the file.
    #[error("http.tls_cert: no PEM certificate in {0}")]
    NoCertificate(String),
    /// No private key in the file.
    #[error("http.tls_key: no PEM private key in {0}")]
    NoKey(String),
    /// They do not go together, or are of a kind that cannot be used.
    #[error("http.tls_cert and http.tls_key: {0}")]
    Pair(rustls::Error),
}

/// The certificate in force, and where it comes from.
#[derive(Debug)]
pub(crate) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    /// Digest of what the files held at the beginning.
    first: Digest,
    current: ArcSwap<ServerConfig>,
}

type Digest = [u8; 32];

/// What the two files hold.
struct Pair {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Certificates {
    /// Reads both files; `None` when neither is named.
    ///
    /// # Errors
    /// [`TlsError`].
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

    /// What the next handshake is made with.
    pub(in crate::gateway) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Takes new files into force, when asked to and whenever a look finds them changed. A pair that cannot be used is
    /// logged once, and the old one stays.
    pub(crate) async fn keep_current(
        &self,
        every: Duration,
        mut reload: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        let mut seen = Some(self.first);
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = reload.changed() => true,
                () = tokio::time::sleep(every) => false,
            };
            let read = Pair::read(&self.cert, &self.key).await;
            let found = read.as_ref().ok().map(Pair::digest);
            if found == seen && !asked {
                continue;
            }
            seen = found;
            match read.and_then(|pair| pair.config(&self.cert, &self.key)) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    info!("serving with the certificate of {}", self.cert.display());
                }
                Err(error) => error!("the certificate in force stays: {error}"),
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

    /// TLS 1.2 and 1.3 (BCP 195), HTTP/2 before HTTP/1.1, no early data: that can be replayed.
    fn config(&self, cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
        let no_certificate = || TlsError::NoCertificate(cert.display().to_string());
        let chain = CertificateDer::pem_slice_iter(&self.cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(no_certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::NoKey(key.display().to_string()))?;
        // Named, because a second provider anywhere among the dependencies leaves rustls without a default.
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
pub(in crate::gateway) mod tests;
