//! TLS and a proxy before a provider, of which one fails while the front is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::provider::Provider;

/// What fails while the front is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// The server closes the connection before the handshake.
    Handshake,
    /// The server's certificate has expired.
    Certificate,
    /// The proxy asks for a password.
    Proxy,
}

pub(super) struct Front {
    pub(super) url: String,
    /// Empty unless it is what fails.
    pub(super) proxy: String,
    /// Certificate of the authority.
    pub(super) ca: String,
    is_open: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Front {
    pub(super) async fn of(provider: &Provider, trouble: Trouble, name: &str) -> Self {
        let mut tasks = JoinSet::new();
        let is_open = Arc::new(AtomicBool::new(false));
        let target = provider.url.trim_start_matches("http://").to_owned();
        let authority = Authority::new();
        let [valid, expired] = [2100, 2001].map(|until| authority.certify(name, until));
        let shared = Arc::clone(&is_open);
        let tls = listen(&mut tasks, move |stream| {
            let is_closed = !shared.load(Ordering::SeqCst);
            let is_cut = is_closed && trouble == Trouble::Handshake;
            let is_expired = is_closed && trouble == Trouble::Certificate;
            let acceptor = if is_expired { expired.clone() } else { valid.clone() };
            let target = target.clone();
            async move {
                if !is_cut && let Ok(client) = acceptor.accept(stream).await {
                    pass(client, &target).await;
                }
            }
        })
        .await;
        let (shared, target) = (Arc::clone(&is_open), format!("127.0.0.1:{tls}"));
        let proxy = listen(&mut tasks, move |stream| tunnel(stream, Arc::clone(&shared), target.clone())).await;
        let proxy = if trouble == Trouble::Proxy { format!("http://127.0.0.1:{proxy}") } else { String::new() };
        Self { url: format!("https://{name}:{tls}"), proxy, ca: authority.pem, is_open, _tasks: tasks }
    }

    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }
}

/// Serves each connection. Returns the port.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream));
        }
    });
    port
}

async fn pass(mut client: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, target: &str) {
    let mut server = TcpStream::connect(target).await.expect("the other end is there");
    // Either end may close at any time.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// Answers CONNECT.
async fn tunnel(mut client: TcpStream, is_open: Arc<AtomicBool>, target: String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    assert!(head.starts_with(b"CONNECT "), "{}", String::from_utf8_lossy(&head));
    let is_open = is_open.load(Ordering::SeqCst);
    let answer = if is_open { "200 OK" } else { "407 Proxy Authentication Required" };
    let _ = client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await;
    if is_open {
        pass(client, &target).await;
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of that name until that year.
    fn certify(&self, name: &str, until: i32) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        leaf.not_before = rcgen::date_time_ymd(2000, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(until, 1, 1);
        let leaf = leaf.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key);
        TlsAcceptor::from(Arc::new(config.expect("the key fits")))
    }
}
