//! Connects to a server with the logins and TLS modes that the client library supports, with headers or without.

use std::io;
use std::sync::Arc;

use async_nats::{ConnectInfo, Protocol, ServerAddr, ServerInfo};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::Framed;
use tokio_util::either::Either;

use super::wire::{Op, Wire};
use crate::config;
use crate::jetstream::connect::{ConnectError, certificate_chain, jwt_and_seed, read};

pub(super) type Connection = Framed<Either<TcpStream, TlsStream<TcpStream>>, Wire>;

/// Why a connection ended, or could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Settings(#[from] ConnectError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the server's name is no host name: {0}")]
    Name(#[from] rustls_pki_types::InvalidDnsNameError),
    #[error("`nats.creds` or `nats.nkey` holds no usable seed: {0}")]
    Seed(#[from] nkeys::error::Error),
    #[error("`nats.creds` holds no user JWT with its seed")]
    Creds,
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server does not answer")]
    Silent,
}

/// The declarations of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modes {
    pub(super) tls_required: bool,
    /// Without it the server strips the headers from what it delivers, and cannot report missing responders either.
    pub(super) headers: bool,
}

/// Connects and logs in.
pub(super) async fn connect(
    settings: &config::Nats,
    name: &str,
    server: &ServerAddr,
    modes: Modes,
) -> Result<(ServerInfo, Connection), ReceiveError> {
    let stream = TcpStream::connect((server.host(), server.port())).await?;
    stream.set_nodelay(true)?;
    let mut plain = Framed::new(stream, Wire::default());
    let Op::Info(info) = next(&mut plain).await? else { return Err(ReceiveError::Closed) };
    // The server sends nothing between INFO and CONNECT, so no bytes are lost here.
    let stream = plain.into_inner();
    let stream = if modes.tls_required || info.tls_required {
        let host = ServerName::try_from(server.host().to_owned())?;
        Either::Right(TlsConnector::from(Arc::new(tls(settings).await?)).connect(host, stream).await?)
    } else {
        Either::Left(stream)
    };
    let mut connection = Framed::new(stream, Wire::default());
    let login = serde_json::to_string(&login(settings, name, &info.nonce, modes).await?).map_err(io::Error::from)?;
    connection.send(format!("CONNECT {login}\r\nPING\r\n").as_bytes()).await?;
    match next(&mut connection).await? {
        Op::Pong => Ok((*info, connection)),
        Op::Error(text) => Err(ReceiveError::Refused(text)),
        Op::Info(_) | Op::Message(_) | Op::Ping => Err(ReceiveError::Closed),
    }
}

pub(super) async fn next<S>(connection: &mut Framed<S, Wire>) -> Result<Op, ReceiveError>
where
    S: tokio::io::AsyncRead + Unpin,
{
    Ok(connection.next().await.ok_or(ReceiveError::Closed)??)
}

async fn login(settings: &config::Nats, name: &str, nonce: &str, modes: Modes) -> Result<ConnectInfo, ReceiveError> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut login = ConnectInfo {
        verbose: false,
        pedantic: false,
        user_jwt: None,
        nkey: None,
        signature: None,
        name: Some(name.to_owned()),
        echo: true,
        lang: "rust".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: Protocol::Dynamic,
        tls_required: modes.tls_required,
        user: given(&settings.user),
        pass: given(settings.password.expose()),
        auth_token: None,
        headers: modes.headers,
        no_responders: modes.headers,
    };
    if !settings.creds.as_os_str().is_empty() {
        let text = read(&settings.creds).await?;
        let (jwt, seed) = jwt_and_seed(&text).ok_or(ReceiveError::Creds)?;
        login.user_jwt = Some(jwt.to_owned());
        login.signature = Some(sign(&nkeys::KeyPair::from_seed(seed)?, nonce)?);
    } else if !settings.nkey.as_os_str().is_empty() {
        let key = nkeys::KeyPair::from_seed(read(&settings.nkey).await?.trim())?;
        login.signature = Some(sign(&key, nonce)?);
        login.nkey = Some(key.public_key());
    }
    Ok(login)
}

fn sign(key: &nkeys::KeyPair, nonce: &str) -> Result<String, ReceiveError> {
    Ok(BASE64_URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes())?))
}

/// Trusts the authority of the settings, or those of the system if none is set.
async fn tls(settings: &config::Nats) -> Result<ClientConfig, ReceiveError> {
    let mut roots = RootCertStore::empty();
    if settings.ca.as_os_str().is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in certificate_chain("nats.ca", &read(&settings.ca).await?)? {
            roots.add(certificate)?;
        }
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    if settings.client_cert.as_os_str().is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = certificate_chain("nats.client_cert", &read(&settings.client_cert).await?)?;
    let key = PrivateKeyDer::from_pem_slice(read(&settings.client_key).await?.as_bytes());
    let key = key.map_err(|source| ConnectError::Pem { setting: "nats.client_key", wanted: "private key", source })?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}
