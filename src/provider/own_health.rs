//! The question whether a process on this machine is well.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Certificate;
use url::Url;

use super::error::{ConnectFailure, Peer};

#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnHealthError {
    #[error("`http.health_ca` holds no usable certificate")]
    Authorities(#[source] reqwest::Error),
    #[error("the certificate is not accepted; see `http.health_ca` and `http.public_url`")]
    Certificate(#[source] reqwest::Error),
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
}

impl OwnHealthError {
    fn of(error: reqwest::Error) -> Self {
        let is_certificate =
            error.is_connect() && matches!(ConnectFailure::of(&error, Peer::Provider), ConnectFailure::Certificate(_));
        let error = error.without_url();
        if is_certificate { Self::Certificate(error) } else { Self::NoAnswer(error) }
    }
}

/// An answer of `/healthz` or `/readyz`.
pub(crate) struct Health {
    pub status: u16,
    pub text: String,
}

/// A process on this machine.
pub(crate) struct OwnProcess {
    /// With the name in its certificate, if it has one.
    pub url: Url,
    pub address: SocketAddr,
    /// The authorities of its certificate; the system's if there are none.
    pub ca_pem: Option<String>,
}

/// Asks a process on this machine.
pub(crate) async fn own_health(process: OwnProcess, timeout: Duration) -> Result<Health, OwnHealthError> {
    let OwnProcess { url, address, ca_pem } = process;
    let mut builder =
        reqwest::Client::builder().no_proxy().timeout(timeout).redirect(reqwest::redirect::Policy::none());
    builder = builder.resolve(url.host_str().unwrap_or_default(), address);
    if let Some(pem) = &ca_pem {
        let certificates = Certificate::from_pem_bundle(pem.as_bytes());
        builder = builder.tls_certs_only(certificates.map_err(OwnHealthError::Authorities)?);
    } else if url.scheme() == "http" {
        // An image without authorities must not fail.
        builder = builder.tls_certs_only([]);
    }
    let client = builder.build().map_err(OwnHealthError::Authorities)?;
    let response = client.get(url).send().await.map_err(OwnHealthError::of)?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(OwnHealthError::of)?;
    Ok(Health { status, text })
}
