//! The question whether a process on this machine is well.

use std::time::Duration;

use super::ProviderError;
use super::error::Peer;

/// An answer of `/healthz` or `/readyz`.
pub(crate) struct Health {
    pub status: u16,
    pub text: String,
}

/// Asks a process on this machine. Accepts any certificate: it is made for the gateway's public name, and the request holds
/// nothing secret.
pub(crate) async fn own_health(url: &str, timeout: Duration) -> Result<Health, ProviderError> {
    let client = reqwest::Client::builder().no_proxy().timeout(timeout).tls_danger_accept_invalid_certs(true).build();
    let client = client.map_err(|error| ProviderError::Setup(error.into()))?;
    let response = client.get(url).send().await.map_err(|error| ProviderError::from_send(error, Peer::Provider))?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(ProviderError::from_body)?;
    Ok(Health { status, text })
}
