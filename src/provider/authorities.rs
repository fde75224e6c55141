//! The authorities that sign providers' certificates: those of the system, and those of `oauth.ca`, which is read at start,
//! on SIGHUP, and when it changes.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Client;
use crate::telemetry::describe_error;

/// Interval at which the file is read. A new authority is trusted within this time; a check costs a small read.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Files and certificates of the system that the log names, if they cannot be read.
const MOST_NAMED: usize = 3;

/// Authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthoritiesError {
    #[error("oauth.ca: cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("oauth.ca: {} has no PEM certificate", path.display())]
    Empty { path: PathBuf },
    #[error(
        "oauth.ca: {} names {named} certificates, of which {found} can be read: each must begin and end with a line of its own, \
         `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`",
        path.display()
    )]
    Unread { path: PathBuf, named: usize, found: usize },
    #[error("oauth.ca: certificate {number} in {} is broken: remove it, or replace it by a copy that is whole", path.display())]
    Broken { path: PathBuf, number: usize, source: Box<dyn Error + Send + Sync> },
    #[error("this system has no certificate authorities: install its package `ca-certificates`, or set `oauth.ca`")]
    NoneOnSystem,
}

/// The content of `oauth.ca`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorities(Option<String>);

impl Authorities {
    /// Reads the file, if one is set, and checks that some authority is known.
    pub(crate) async fn load(ca: &Path) -> Result<Self, AuthoritiesError> {
        let authorities = Self::read(ca).await?;
        let system = rustls_native_certs::load_native_certs();
        for error in system.errors.iter().take(MOST_NAMED) {
            warn!("authorities of this system cannot be read: {}", describe_error(error));
        }
        if let Some(more) = system.errors.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            warn!("{more} more files or certificates of this system's authorities cannot be read");
        }
        if authorities.0.is_none() && system.certs.is_empty() {
            return Err(AuthoritiesError::NoneOnSystem);
        }
        Ok(authorities)
    }

    async fn read(ca: &Path) -> Result<Self, AuthoritiesError> {
        if ca.as_os_str().is_empty() {
            return Ok(Self(None));
        }
        let path = || ca.to_owned();
        let pem = tokio::fs::read(ca).await.map_err(|source| AuthoritiesError::File { path: path(), source })?;
        // Comments may be in any encoding.
        let pem = String::from_utf8_lossy(&pem).into_owned();
        let mut found = 0;
        for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem.as_bytes())) {
            let broken = |source| AuthoritiesError::Broken { path: path(), number, source };
            let certificate = certificate.map_err(|error| broken(error.into()))?;
            RootCertStore::empty().add(certificate).map_err(|error| broken(error.into()))?;
            found = number;
        }
        let named = certificates_named(&pem);
        if named > found {
            return Err(AuthoritiesError::Unread { path: path(), named, found });
        }
        if found == 0 { Err(AuthoritiesError::Empty { path: path() }) } else { Ok(Self(Some(pem))) }
    }

    pub(crate) fn pem(&self) -> Option<String> {
        self.0.clone()
    }

    /// Loads the authorities again on each `reload`, those of the system too, and whenever the file has changed. If they cannot be
    /// used, logs it once and keeps the old ones.
    pub(crate) async fn keep_current(
        client: Client,
        ca: PathBuf,
        mut reload: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        let mut seen = Self::read(&ca).await.ok();
        loop {
            let is_requested = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = reload.changed() => true,
                () = tokio::time::sleep(CHECK_INTERVAL) => false,
            };
            let read = Self::read(&ca).await;
            if read.as_ref().ok() == seen.as_ref() && !is_requested {
                continue;
            }
            seen = read.as_ref().ok().cloned();
            let loaded = match read {
                Ok(authorities) => client.trust(authorities.pem()).map_err(Box::<dyn Error + Send + Sync>::from),
                Err(error) => Err(error.into()),
            };
            match loaded {
                Ok(()) => info!("loaded the authorities of providers again"),
                Err(error) => {
                    let reason = describe_error(error.as_ref());
                    error!("authorities of providers not loaded; keeping the old ones: {reason}");
                }
            }
        }
    }
}

/// Returns how many certificates begin in the text, outside of comments. The parser skips those that do not begin on a line of their
/// own, and those in a form of OpenSSL's own.
fn certificates_named(pem: &str) -> usize {
    let begins = |line: &str| {
        ["CERTIFICATE", "TRUSTED CERTIFICATE"]
            .map(|label| format!("-----BEGIN {label}-----"))
            .map(|begin| line.matches(&begin).count())
    };
    pem.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(begins).sum()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate() -> String {
        CertificateParams::new(Vec::new()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[tokio::test]
    async fn o10_a_file_that_cannot_be_used_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let good = certificate();
        let other = |lines: &str| format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n");
        for (text, expected) in [
            (String::new(), "has no PEM certificate"),
            ("no PEM at all".to_owned(), "has no PEM certificate"),
            (format!("{good}{}{good}", other("AAAA")), "certificate 2 in"),
            (format!("{good}{good}{}", other("!")), "certificate 3 in"),
            (good.trim_end().trim_end_matches('-').to_owned(), "certificate 1 in"),
            (format!("{}{good}", good.trim_end()), "names 2 certificates"),
            (good.replace('\n', " "), "certificate 1 in"),
            (good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), "names 1 certificates"),
        ] {
            std::fs::write(&file, &text).unwrap();
            let error = Authorities::load(&file).await.unwrap_err().to_string();
            assert!(error.contains(expected) && error.starts_with("oauth.ca: "), "{error}: {text}");
        }
        std::fs::write(&file, format!("# Ours\n{good}\n# -----BEGIN CERTIFICATE-----\n{good}")).unwrap();
        assert!(Authorities::load(&file).await.unwrap().pem().is_some());
        std::fs::write(&file, [b"# Autorit\xe9\n", good.as_bytes()].concat()).unwrap();
        assert!(Authorities::load(&file).await.unwrap().pem().is_some());
        let error = Authorities::load(&folder.path().join("nothing")).await.unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
