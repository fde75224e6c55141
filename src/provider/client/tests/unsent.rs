//! Failures before anything was sent.

use std::io;

use tokio::io::AsyncReadExt as _;

use super::super::super::error::ConnectFailure;
use super::*;

/// Returns the failure after asserting that nothing was sent.
#[track_caller]
fn failure(result: Result<ProviderResponse, ProviderError>) -> ConnectFailure {
    let error = refused(result);
    assert!(error.is_unsent(), "{error:?}");
    let ProviderError::Connect { failure, .. } = error else { panic!("{error:?}") };
    failure
}

/// Starts a server that reads something, answers with that text and closes. Without a text it closes at once.
async fn answers(text: &'static str) -> (u16, JoinSet<()>) {
    serve(move |mut stream, _| async move {
        if !text.is_empty() {
            let mut received = [0; 4096];
            let _ = stream.read(&mut received).await;
            let _ = stream.write_all(text.as_bytes()).await;
        }
    })
    .await
}

/// Takes a port that refuses connections.
fn closed_port() -> (tokio::net::TcpSocket, u16) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn o8_a_failed_connection_says_why() {
    let (_socket, closed) = closed_port();
    let (reset, _server) = answers("").await;
    let (plain, _server) = answers("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    for (url, expected) in [
        (format!("http://127.0.0.1:{closed}/"), ConnectFailure::ClosedPort(Peer::Provider)),
        (format!("https://127.0.0.1:{reset}/"), ConnectFailure::Handshake),
        (format!("https://127.0.0.1:{plain}/"), ConnectFailure::Handshake),
    ] {
        assert_eq!(failure(send(&settings(true), &url).await), expected, "{url}");
    }
    let unknown: Lookup = Arc::new(|_| async { Err(io::Error::other("no such name")) }.boxed());
    let client = Client::with_lookup(&settings(false), unknown).unwrap();
    let found = client.send_if(request("https://acme.example/"), LIMIT, || true).await;
    assert_eq!(failure(found), ConnectFailure::Name(Peer::Provider));
}

#[tokio::test]
async fn o8_a_refused_certificate_says_why() {
    for (names, until, trusted, expected) in [
        (&["localhost"][..], 2100, false, "authority"),
        (&["localhost"], 2001, true, "expired"),
        (&["other.example"], 2100, true, "another name"),
    ] {
        let (ca, acceptor) = authority(names, until);
        let (port, _server) = serve_tls(acceptor).await;
        let settings = Settings { extra_ca_pem: trusted.then_some(ca), ..settings(true) };
        let found = failure(send(&settings, &format!("https://localhost:{port}/")).await);
        assert!(matches!(found, ConnectFailure::Certificate(text) if text.contains(expected)), "{found}");
    }
}

#[tokio::test]
async fn o8_a_proxy_that_refuses_is_named() {
    let (_socket, closed) = closed_port();
    let (refusing, _server) = answers("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let (forbidding, _server) = answers("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    for (port, expected) in [
        (closed, ConnectFailure::ClosedPort(Peer::Proxy)),
        (refusing, ConnectFailure::RefusedByProxy),
        (forbidding, ConnectFailure::RefusedByProxy),
    ] {
        let proxy = Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let settings = Settings { proxy: Some(proxy), ..settings(false) };
        let found = send(&settings, "https://acme.example/").await;
        assert_eq!(failure(found), expected, "{port}");
    }
}

#[tokio::test]
async fn o9_hosts_and_networks_of_no_proxy_are_reached_without_the_proxy() {
    let ((_socket, closed), (_of_proxy, proxy)) = (closed_port(), closed_port());
    let proxy = Url::parse(&format!("http://127.0.0.1:{proxy}")).unwrap();
    let no_proxy = ["localhost", "127.0.0.0/24"].map(str::to_owned).to_vec();
    let settings = Settings { proxy: Some(proxy), no_proxy, ..settings(true) };
    for (host, peer) in [
        ("localhost", Peer::Provider),
        ("127.0.0.1", Peer::Provider),
        ("127.0.1.1", Peer::Proxy),
        ("[::1]", Peer::Proxy),
    ] {
        let found = failure(send(&settings, &format!("http://{host}:{closed}/")).await);
        assert_eq!(found, ConnectFailure::ClosedPort(peer), "{host}");
    }
}

#[tokio::test]
async fn o8_a_connection_is_used_again_for_less_than_five_seconds() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    let (port, _server) = serve(move |stream, port| {
        counter.fetch_add(1, Ordering::SeqCst);
        http(stream, port)
    })
    .await;
    let client = Client::new(&settings(true)).unwrap();
    for (pause, connections) in [(0, 1), (4, 1), (6, 2)] {
        // Only the client's own clock moves.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(pause)).await;
        tokio::time::resume();
        let url = format!("http://127.0.0.1:{port}/html");
        client.send_if(request(&url), LIMIT, || true).await.unwrap();
        assert_eq!(accepted.load(Ordering::SeqCst), connections, "after {pause} s");
    }
}
