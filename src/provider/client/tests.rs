mod trusted;
mod unsent;
mod withheld;

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::super::guard::GuardError;
use super::response::{MAX_BODY_BYTES, MAX_RETRY_AFTER_SECONDS};
use super::*;
use crate::oauth::Body;
use crate::secret::Secret;

const CANARY: &str = "canary";
const LIMIT: Duration = Duration::from_secs(20);

fn settings(insecure: bool) -> Settings {
    let guard = Guard { allowed_hosts: Vec::new(), allow_insecure_urls: insecure, ..Guard::default() };
    Settings {
        guard,
        connect_timeout: Duration::from_secs(20),
        total_timeout: Duration::from_secs(20),
        ..Settings::default()
    }
}

fn request(url: &str) -> HttpRequest {
    HttpRequest {
        method: Method::Post,
        url: Url::parse(url).unwrap(),
        headers: vec![("authorization".into(), Secret::new(format!("Basic {CANARY}")))],
        body: Some(Body {
            content_type: "application/x-www-form-urlencoded",
            text: Secret::new(format!("code={CANARY}")),
        }),
    }
}

async fn send(settings: &Settings, url: &str) -> Result<ProviderResponse, ProviderError> {
    Client::new(settings).unwrap().send_if(request(url), settings.total_timeout, || true).await
}

/// Returns the error after asserting that its texts contain nothing of the request.
#[track_caller]
fn refused(result: Result<ProviderResponse, ProviderError>) -> ProviderError {
    let error = result.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains(CANARY) && !text.contains("127.0.0.1"), "{text}");
    let mut cause = error.source();
    while let Some(error) = cause {
        assert!(!error.to_string().contains(CANARY), "{error}");
        cause = error.source();
    }
    error
}

async fn answer(request: hyper::Request<Incoming>, port: u16) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let reply = hyper::Response::builder().header("content-type", "text/html");
    let reply = match parts.uri.path() {
        "/redirect" => reply.status(307).header("location", format!("http://127.0.0.1:{port}/html")).body(Bytes::new()),
        "/html" => reply.status(502).header("retry-after", "999999999").body("<html>sorry</html>".into()),
        "/date" => reply.header("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT").body(Bytes::new()),
        "/large" => reply.body(vec![b'x'; 300 * 1024].into()),
        "/full" => reply.body(vec![b'x'; MAX_BODY_BYTES].into()),
        "/echo" => reply.body(format!("{} {:?}", String::from_utf8_lossy(&body), parts.headers).into()),
        _ => std::future::pending().await,
    };
    Ok(reply.unwrap().map(Full::new))
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin, port: u16) {
    let service = service_fn(move |request| answer(request, port));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Starts a server on loopback. It stops when the set is dropped.
async fn serve<F: Future<Output = ()> + Send + 'static>(
    handle: impl Fn(TcpStream, u16) -> F + Send + 'static,
) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(handle(stream, port));
        }
    });
    (port, server)
}

#[tokio::test]
async fn c3_a_response_is_returned_unchanged() {
    let (port, _server) = serve(http).await;
    let settings = settings(true);
    for host in ["127.0.0.1", "localhost"] {
        let answer = send(&settings, &format!("http://{host}:{port}/html")).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (502, &b"<html>sorry</html>"[..]));
        assert_eq!(answer.content_type.as_deref(), Some("text/html"));
        assert_eq!(answer.retry_after, Some(Duration::from_secs(MAX_RETRY_AFTER_SECONDS)));
        assert!(!format!("{answer:?}").contains("sorry"));
    }
    let dated = send(&settings, &format!("http://127.0.0.1:{port}/date")).await.unwrap();
    assert_eq!(dated.retry_after, Some(Duration::ZERO), "that date is past");
    let echo = send(&settings, &format!("http://127.0.0.1:{port}/echo")).await.unwrap();
    let text = String::from_utf8_lossy(&echo.body).into_owned();
    assert!(text.starts_with("code=canary {") && text.contains("Basic canary") && text.contains("tokenbus/"), "{text}");
}

#[tokio::test]
async fn c3_redirects_are_not_followed() {
    let (port, _server) = serve(http).await;
    let answer = send(&settings(true), &format!("http://127.0.0.1:{port}/redirect")).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (307, 0));
}

#[tokio::test]
async fn c3_responses_are_bounded_in_size_and_time() {
    let (port, _server) = serve(http).await;
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}?q={CANARY}");
    assert_eq!(send(&settings(true), &url("full")).await.unwrap().body.len(), MAX_BODY_BYTES);
    let large = refused(send(&settings(true), &url("large")).await);
    assert!(matches!(large, ProviderError::TooLarge { status: 200, retry_after: None }), "{large:?}");
    let short = Settings { total_timeout: Duration::from_millis(300), ..settings(true) };
    let slow = refused(send(&short, &url("never")).await);
    assert!(matches!(slow, ProviderError::Timeout(_)), "{slow:?}");
}

#[tokio::test]
async fn b3_a_request_whose_response_breaks_off_may_have_arrived() {
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "hello\r\n\r\n"] {
        let (port, _server) = serve(move |mut stream: TcpStream, _| async move {
            let mut buffer = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
        })
        .await;
        let error = refused(send(&settings(true), &format!("http://127.0.0.1:{port}/?q={CANARY}")).await);
        assert!(matches!(error, ProviderError::Protocol(_)), "{bytes} {error:?}");
    }
}

#[tokio::test]
async fn b3_a_request_without_a_connection_was_not_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = refused(send(&settings(true), &format!("http://127.0.0.1:{closed}/?q={CANARY}")).await);
    assert!(matches!(error, ProviderError::Connect { .. }), "{error:?}");
    // A listener that never speaks TLS.
    let (port, _server) = serve(|stream, _| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let short = Settings { connect_timeout: Duration::from_millis(300), ..settings(true) };
    let error = refused(send(&short, &format!("https://localhost:{port}/")).await);
    assert!(matches!(error, ProviderError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn c2_a_name_with_a_private_address_is_refused_before_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (url, expected) in [
        (format!("https://localhost:{port}/?q={CANARY}"), GuardError::Address),
        (format!("https://127.0.0.1:{port}/"), GuardError::Address),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), GuardError::Address),
        (format!("http://localhost:{port}/"), GuardError::Scheme),
    ] {
        let error = refused(send(&settings(false), &url).await);
        assert!(matches!(error, ProviderError::Refused(found) if found == expected), "{url} {error:?}");
    }
    assert!(listener.accept().now_or_never().is_none(), "a client connected");
}

#[tokio::test]
async fn c3_a_slow_response_is_cut_off() {
    let (port, _server) = serve(|mut stream: TcpStream, _| async move {
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n").await;
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let short = Settings { total_timeout: Duration::from_millis(300), ..settings(true) };
    let error = refused(send(&short, &format!("http://127.0.0.1:{port}/?q={CANARY}")).await);
    assert!(matches!(error, ProviderError::Timeout(_)), "{error:?}");
}

/// Returns a resolver that returns these addresses one after the other, and its count of look-ups.
fn changing(addresses: &'static [&'static str]) -> (Lookup, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        let address = addresses[number.min(addresses.len() - 1)];
        async move { Ok(vec![SocketAddr::new(address.parse().unwrap(), 0)]) }.boxed()
    });
    (lookup, asked)
}

#[tokio::test]
async fn c2_the_client_connects_to_the_checked_address() {
    let (port, _server) = serve(http).await;
    let guard =
        Guard { allowed_hosts: vec!["rebind.example".to_owned()], allow_insecure_urls: true, ..Guard::default() };
    let (ca, acceptor) = authority(&["rebind.example"], 2100);
    let (tls_port, _tls_server) = serve_tls(acceptor).await;
    let settings = Settings { guard, extra_ca_pem: Some(ca), ..settings(true) };
    for later in ["169.254.169.254", "64:ff9b::a00:1", "::ffff:169.254.169.254", "2002:a00:1::", "0.0.0.0"] {
        let (lookup, asked) = changing(Box::leak(vec!["127.0.0.1", later].into_boxed_slice()));
        let client = Client::with_lookup(&settings, lookup).unwrap();
        let url = format!("https://rebind.example:{tls_port}/echo?q={CANARY}");
        assert_eq!(client.send_if(request(&url), LIMIT, || true).await.unwrap().status, 200);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "one look-up for one connection");
        // Another port needs another connection, and so another look-up and another check.
        let url = format!("https://rebind.example:{port}/echo?q={CANARY}");
        let error = refused(client.send_if(request(&url), LIMIT, || true).await);
        assert!(matches!(error, ProviderError::Refused(GuardError::Address)), "{later} {error:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{later}");
    }
}

#[tokio::test]
async fn c2_of_several_addresses_only_public_ones_are_tried() {
    let (port, server) = serve(http).await;
    let lookup: Lookup = Arc::new(|_| {
        let addresses = ["127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1"];
        async move { Ok(addresses.map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).to_vec()) }.boxed()
    });
    let client = Client::with_lookup(&settings(false), lookup).unwrap();
    let error =
        refused(client.send_if(request(&format!("https://acme.example:{port}/?q={CANARY}")), LIMIT, || true).await);
    assert!(matches!(error, ProviderError::Refused(GuardError::Address)), "{error:?}");
    drop(server);
}

#[tokio::test]
async fn c2_the_configured_proxy_may_have_a_private_address_and_is_asked_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Url::parse(&format!("http://proxy.corp.example:{}", listener.local_addr().unwrap().port())).unwrap();
    let settings = Settings { proxy: Some(proxy), ..settings(false) };
    let (lookup, asked) = changing(&["127.0.0.1"]);
    let client = Client::with_lookup(&settings, lookup).unwrap();
    let proxied = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = [0; 1024];
        let length = tokio::io::AsyncReadExt::read(&mut stream, &mut received).await.unwrap();
        String::from_utf8_lossy(&received[..length]).into_owned()
    };
    let mut sending =
        std::pin::pin!(client.send_if(request(&format!("https://acme.example/?q={CANARY}")), LIMIT, || true));
    let received = tokio::select! {
        received = proxied => received,
        early = &mut sending => panic!("did not connect to the proxy: {early:?}"),
    };
    assert!(received.starts_with("CONNECT acme.example:443 HTTP/1.1\r\n") && !received.contains(CANARY), "{received}");
    refused(sending.await);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "only the proxy's name is resolved here");
    // The guard refuses these URLs before any connection to the proxy.
    for url in ["https://127.0.0.1/", "https://169.254.169.254/", "http://acme.example/"] {
        assert!(matches!(client.send_if(request(url), LIMIT, || true).await, Err(ProviderError::Refused(_))), "{url}");
    }
}

#[tokio::test]
async fn o9_hosts_of_no_proxy_are_reached_without_the_proxy_and_checked() {
    let proxy = Some(Url::parse("http://127.0.0.1:9").unwrap());
    let no_proxy = ["acme.example", ".internal"].map(str::to_owned).to_vec();
    let settings = Settings { proxy, no_proxy, ..settings(false) };
    for (url, is_direct) in [
        ("https://acme.example/", true),
        ("https://a.acme.example/", true),
        ("https://a.internal/", true),
        ("https://other.example/", false),
    ] {
        let (lookup, asked) = changing(&["10.0.0.1"]);
        let client = Client::with_lookup(&settings, lookup).unwrap();
        let error = refused(client.send_if(request(url), LIMIT, || true).await);
        let is_refused = matches!(error, ProviderError::Refused(GuardError::Address));
        assert_eq!((is_refused, asked.load(Ordering::SeqCst) > 0), (is_direct, is_direct), "{url}: {error:?}");
    }
}

/// Returns a new authority's certificate, and TLS settings of a server with these names, valid until that year.
fn authority(names: &[&str], until: i32) -> (String, TlsAcceptor) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2000, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(until, 1, 1);
    let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    (ca, TlsAcceptor::from(Arc::new(config)))
}

async fn serve_tls(acceptor: TlsAcceptor) -> (u16, JoinSet<()>) {
    serve(move |stream, port| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                http(stream, port).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn c1_https_is_verified_against_known_authorities() {
    let with = |pem: Option<&str>| Settings { extra_ca_pem: pem.map(str::to_owned), ..settings(true) };
    let (other, _) = authority(&["localhost"], 2100);
    for (names, until, trusted, expected) in [
        (&["localhost"][..], 2100, true, true),
        (&["localhost"], 2100, false, false),
        (&["localhost"], 2001, true, false),
        (&["other.example"], 2100, true, false),
        (&["*.localhost"], 2100, true, false),
        (&[], 2100, true, false),
    ] {
        let (ca, acceptor) = authority(names, until);
        let (port, _server) = serve_tls(acceptor).await;
        let url = format!("https://localhost:{port}/echo");
        let answer = send(&with(trusted.then_some(&ca)), &url).await;
        if expected {
            assert_eq!(answer.unwrap().status, 200);
            // Another name of the same host; another authority.
            for (pem, url) in [(&ca, format!("https://127.0.0.1:{port}/echo")), (&other, url)] {
                let error = refused(send(&with(Some(pem)), &url).await);
                assert!(matches!(error, ProviderError::Connect { .. }), "{url} {error:?}");
            }
        } else {
            let error = refused(answer);
            assert!(matches!(error, ProviderError::Connect { .. }), "{names:?} until {until}: {error:?}");
        }
    }
}

#[test]
fn c1_unusable_settings_make_no_client() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = Client::new(&Settings { extra_ca_pem: Some(broken.to_owned()), ..Settings::default() }).unwrap_err();
    assert!(matches!(error, ProviderError::Setup(_)), "{error:?}");
}
