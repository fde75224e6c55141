//! Why no connection was opened. Nothing of the request was sent then.

use std::error::Error;
use std::io::{self, ErrorKind};

use rustls::CertificateError;

/// What failed, for logs and events. The texts name no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectFailure {
    #[error("the name of the {0} cannot be resolved")]
    Name(Peer),
    #[error("the port of the {0} is closed: connection refused")]
    ClosedPort(Peer),
    #[error("the {0} accepts no connection in time")]
    Timeout(Peer),
    #[error("there is no route to the {0}")]
    NoRoute(Peer),
    #[error("the certificate of the provider {0}")]
    Certificate(&'static str),
    #[error("the TLS handshake with the provider failed")]
    Handshake,
    /// Its answer to CONNECT, such as 407.
    #[error("the proxy refuses the connection; check oauth.proxy with its user and password")]
    RefusedByProxy,
    #[error("the connection to the {0} broke off")]
    Other(Peer),
}

/// The host to which the client opens the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Peer {
    #[error("provider")]
    Provider,
    #[error("proxy")]
    Proxy,
}

impl ConnectFailure {
    /// Judges an error before the connection was open. `peer` is the proxy if the request goes through one.
    pub(in crate::provider) fn of(error: &reqwest::Error, peer: Peer) -> Self {
        if error.is_dns() {
            return Self::Name(peer);
        }
        let cause = io_error(error);
        if let Some(error) = cause.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref()) {
            return Self::of_tls(error);
        }
        let kind = cause.map(io::Error::kind);
        match (kind, peer) {
            (Some(ErrorKind::ConnectionRefused), _) => Self::ClosedPort(peer),
            (Some(ErrorKind::TimedOut), _) => Self::Timeout(peer),
            (Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable), _) => Self::NoRoute(peer),
            _ if error.is_timeout() => Self::Timeout(peer),
            // A tunnel fails without a cause when the proxy answers something else than 200.
            (None, Peer::Proxy) => Self::RefusedByProxy,
            (Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), Peer::Provider) => Self::Handshake,
            _ => Self::Other(peer),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the library adds variants")]
    fn of_tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else { return Self::Handshake };
        Self::Certificate(match error {
            CertificateError::UnknownIssuer => "is of an authority that is not known; check oauth.ca",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "has another name",
            CertificateError::Revoked => "was revoked",
            _ => "is not valid",
        })
    }
}

/// Finds the innermost IO error. Connectors wrap one in another, and `source` skips what is inside.
fn io_error(error: &reqwest::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(mut found) = cause.downcast_ref::<io::Error>() {
            while let Some(inner) = found.get_ref().and_then(|inner| inner.downcast_ref()) {
                found = inner;
            }
            return Some(found);
        }
        source = cause.source();
    }
    None
}
