use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const PATIENCE: Duration = Duration::from_mins(1);

/// Certificate and key files for a test to change.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Writes a new pair of files, and returns the certificate, which is its own authority.
    pub(crate) fn renew(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        self.write("cert", &cert.pem());
        self.write("key", &key.serialize_pem());
        cert.der().clone()
    }

    pub(crate) async fn load(&self) -> Certificates {
        Certificates::load(&self.path("cert"), &self.path("key")).await.unwrap().expect("both are named")
    }
}

/// Connects to a server that uses these certificates, and reads its greeting.
async fn handshake(
    certificates: &Certificates,
    trusted: &CertificateDer<'static>,
    alpn: &[&[u8]],
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(certificates.current());
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            let _ = stream.write_all(b"hello").await;
        }
    };
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector(trusted, alpn, version).connect(name(), stream).await?;
        stream.read_exact(&mut [0; 5]).await?;
        Ok(stream)
    };
    tokio::join!(server, client).1
}

/// Connects with TLS 1.3.
pub(crate) async fn connect(address: std::net::SocketAddr, trusted: &CertificateDer<'static>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    connector(trusted, &[b"http/1.1"], &rustls::version::TLS13).connect(name(), stream).await.unwrap()
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

fn connector(
    trusted: &CertificateDer<'static>,
    alpn: &[&[u8]],
    version: &'static rustls::SupportedProtocolVersion,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn tls_of_both_versions_with_http2_first() {
    let files = Files::new();
    let cert = files.renew();
    let certificates = files.load().await;
    for version in rustls::ALL_VERSIONS {
        for (offered, chosen) in
            [(&[&b"http/1.1"[..], b"h2"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
        {
            let stream = handshake(&certificates, &cert, offered, version).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{version:?}");
        }
        assert!(handshake(&certificates, &cert, &[b"spdy/3"], version).await.is_err());
    }
}

#[tokio::test]
async fn errors_name_the_setting() {
    let files = Files::new();
    files.renew();
    let other = Files::new();
    other.renew();
    let (cert, key) = (files.path("cert"), files.path("key"));
    let (nothing, empty, missing) = (PathBuf::new(), files.write("empty", ""), files.path("missing"));
    assert!(Certificates::load(&nothing, &nothing).await.unwrap().is_none());
    for (cert, key, expected) in [
        (&cert, &nothing, "http.tls_cert and http.tls_key go together"),
        (&nothing, &key, "http.tls_cert and http.tls_key go together"),
        (&missing, &key, "http.tls_cert: cannot read "),
        (&cert, &missing, "http.tls_key: cannot read "),
        (&empty, &key, "http.tls_cert: no PEM certificate in "),
        (&key, &key, "http.tls_cert: no PEM certificate in "),
        (&cert, &cert, "http.tls_key: no PEM private key in "),
        (&cert, &other.path("key"), "http.tls_cert and http.tls_key: "),
    ] {
        let error = Certificates::load(cert, key).await.unwrap_err().to_string();
        assert!(error.starts_with(expected) && !error.contains("PRIVATE"), "{error}");
    }
}

#[tokio::test]
async fn new_files_are_loaded_and_broken_ones_are_not() {
    let files = Files::new();
    let first = files.renew();
    let certificates = files.load().await;
    let (ask, reload) = watch::channel(0);
    let stop = CancellationToken::new();
    let keeping = certificates.keep_current(Duration::from_millis(20), reload, stop.clone());
    let test = async {
        let served = async |cert: &CertificateDer<'static>| {
            handshake(&certificates, cert, &[], &rustls::version::TLS13).await.is_ok()
        };
        assert!(served(&first).await);
        // Without a signal. The files are replaced one after the other.
        let second = files.renew();
        while !served(&second).await {}
        assert!(!served(&first).await);
        let before = certificates.current();
        files.write("key", "broken");
        ask.send_modify(|times| *times += 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(Arc::ptr_eq(&before, &certificates.current()), "the old pair is kept");
        files.renew();
        while Arc::ptr_eq(&before, &certificates.current()) {
            tokio::task::yield_now().await;
        }
        // On a signal, even if nothing changed.
        let before = certificates.current();
        ask.send_modify(|times| *times += 1);
        while Arc::ptr_eq(&before, &certificates.current()) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(keeping, test) };
    tokio::time::timeout(PATIENCE, both).await.expect("the files are read again");
}
