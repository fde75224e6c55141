//! Asks a process on this machine whether it is alive or ready: at its own address, over HTTP/1.1. The certificate of the process
//! must have the name by which others reach it.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

type Cause = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnHealthError {
    #[error("`http.health_ca` holds no usable certificate")]
    Authorities(#[source] Cause),
    #[error("the certificate is not accepted; see `http.health_ca` and `http.public_url`")]
    Certificate(#[source] io::Error),
    #[error("no answer")]
    NoAnswer(#[source] Cause),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl OwnHealthError {
    fn no_answer(error: impl Into<Cause>) -> Self {
        Self::NoAnswer(error.into())
    }

    fn authorities(error: impl Into<Cause>) -> Self {
        Self::Authorities(error.into())
    }

    fn handshake(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let is_certificate = matches!(inner, Some(rustls::Error::InvalidCertificate(_)));
        if is_certificate { Self::Certificate(error) } else { Self::no_answer(error) }
    }
}

/// An answer of `/healthz` or `/readyz`.
pub(crate) struct Health {
    pub status: u16,
    pub text: String,
}

/// A process on this machine.
pub(crate) struct OwnProcess {
    pub address: SocketAddr,
    pub path: &'static str,
    /// `None` for HTTP without TLS.
    pub tls: Option<OwnTls>,
}

pub(crate) struct OwnTls {
    /// A name or address that the certificate must have.
    pub name: ServerName<'static>,
    /// The authorities of the certificate; the system's if there are none.
    pub ca_pem: Option<String>,
}

/// Asks a process on this machine.
pub(crate) async fn own_health(process: OwnProcess, timeout: Duration) -> Result<Health, OwnHealthError> {
    let asked = tokio::time::timeout(timeout, ask(process)).await;
    asked.unwrap_or(Err(OwnHealthError::Timeout(timeout)))
}

async fn ask(process: OwnProcess) -> Result<Health, OwnHealthError> {
    let OwnProcess { address, path, tls } = process;
    let config = tls.as_ref().map(|tls| config(tls.ca_pem.as_deref())).transpose()?;
    let stream = TcpStream::connect(address).await.map_err(OwnHealthError::no_answer)?;
    match tls.zip(config) {
        None => get(stream, address, path).await,
        Some((OwnTls { name, .. }, config)) => {
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            get(stream.map_err(OwnHealthError::handshake)?, address, path).await
        }
    }
}

fn config(ca_pem: Option<&str>) -> Result<ClientConfig, OwnHealthError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(OwnHealthError::authorities)?).map_err(OwnHealthError::authorities)?;
        }
        if roots.is_empty() {
            return Err(OwnHealthError::authorities("it has no PEM certificate"));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(OwnHealthError::no_answer)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn get<S>(stream: S, address: SocketAddr, path: &str) -> Result<Health, OwnHealthError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(OwnHealthError::no_answer)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(OwnHealthError::no_answer)?;
    let answered = async move {
        let response = sender.send_request(request).await.map_err(OwnHealthError::no_answer)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(OwnHealthError::NoAnswer)?.to_bytes();
        Ok(Health { status, text: String::from_utf8_lossy(&body).into_owned() })
    };
    // The request's own error says more than the connection's.
    let (health, _) = tokio::join!(answered, connection);
    health
}
