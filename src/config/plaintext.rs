//! Listeners without TLS.

use std::net::SocketAddr;

use super::Http;

/// A listener would serve other machines without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaintextError {
    /// The gateway has no certificate.
    #[error(
        "`http.listen` is {0}, which is not loopback, without TLS: set `http.tls_cert` and `http.tls_key`, or set \
         `http.allow_plaintext` if a proxy with TLS or a private network protects the gateway"
    )]
    Gateway(SocketAddr),
    /// Metrics are always served without TLS.
    #[error(
        "`http.metrics_listen` is {0}, which is not loopback, and has no TLS: use a loopback address, or set \
         `http.allow_plaintext` if the network is private"
    )]
    Metrics(SocketAddr),
}

impl Http {
    /// Checks the listeners of a process with or without a gateway.
    ///
    /// # Errors
    /// If one of them would serve other machines without TLS, and `http.allow_plaintext` is not set.
    pub fn check_plaintext(&self, has_gateway: bool) -> Result<(), PlaintextError> {
        let is_exposed = |address: &SocketAddr| !self.allow_plaintext && !address.ip().to_canonical().is_loopback();
        let has_tls = !self.tls_cert.as_os_str().is_empty();
        if has_gateway && !has_tls && is_exposed(&self.listen) {
            return Err(PlaintextError::Gateway(self.listen));
        }
        match self.metrics_listen.filter(is_exposed) {
            Some(address) => Err(PlaintextError::Metrics(address)),
            None => Ok(()),
        }
    }
}
