//! The question whether a process on this machine is well.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Certificate;
use url::Url;

use super::ProviderError;
use super::error::Peer;

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
pub(crate) async fn own_health(process: OwnProcess, timeout: Duration) -> Result<Health, ProviderError> {
    let OwnProcess { url, address, ca_pem } = process;
    let mut builder =
        reqwest::Client::builder().no_proxy().timeout(timeout).redirect(reqwest::redirect::Policy::none());
    builder = builder.resolve(url.host_str().unwrap_or_default(), address);
    if let Some(pem) = &ca_pem {
        let certificates = Certificate::from_pem_bundle(pem.as_bytes());
        builder = builder.tls_certs_only(certificates.map_err(|error| ProviderError::Setup(error.into()))?);
    } else if url.scheme() == "http" {
        // An image without authorities must not fail.
        builder = builder.tls_certs_only([]);
    }
    let client = builder.build().map_err(|error| ProviderError::Setup(error.into()))?;
    let response = client.get(url).send().await.map_err(|error| ProviderError::from_send(error, Peer::Provider))?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(ProviderError::from_body)?;
    Ok(Health { status, text })
}
