//! Connections that are closed, and requests that are rejected, because of a limit.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

const PUT: &str = "PUT /hub/integrations/slack/oauth-config HTTP/1.1\r\nhost: x\r\nx-api-key: tb_1_2\r\n";
/// Rejected after the credential is counted, before a call.
const QUICK: &str = "/hub/integrations/oauth-config?limit=0";

/// A callback that is rejected as early.
const STATELESS: &str = "/hub/integrations/oauth-callback";

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

/// Repeats a request until it is limited, which happens soon at one request a second.
async fn until_limited(running: &Running, path: &str, headers: &str) -> String {
    for _ in 0..1000 {
        let answer = ask(running, "GET", path, headers).await;
        if answer.starts_with("HTTP/1.1 429 ") {
            return answer;
        }
    }
    panic!("{path} is never limited with {headers}");
}

#[tokio::test]
async fn b7_big_heads_are_refused() {
    let running = start(Limits::default()).await;
    let big = format!("x-big: {}\r\n", "a".repeat(65 * 1024));
    expect(&ask(&running, "GET", "/healthz", &big).await, 431, &["headers are larger", "no-store"]);
    let long = format!("/healthz?{}", "a".repeat(56 * 1024));
    expect(&ask(&running, "GET", &long, "").await, 414, &["the URI is longer", "no-store"]);
    // The HTTP library refuses a head far above the limits, or with more than 100 lines, and closes the connection: the first one,
    // one that follows an answer, and one that arrives with the request before it.
    let many = "x: y\r\n".repeat(100);
    for (bytes, status, text) in [
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)), 414, "the URI is longer than 57344"),
        (format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(200_000)), 431, "larger than 65536 bytes; delete cookies"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431, "more than 100 header lines"),
    ] {
        let refused = [text, "no-store", "connection: close", "application/json", "x-request-id: "];
        let first = tokio::time::timeout(PATIENCE, raw(&running, bytes.as_bytes())).await.expect("it is cut");
        expect(&first, status, &refused);

        let mut stream = TcpStream::connect(running.address).await.unwrap();
        kept::alive(&mut stream, kept::ALIVE).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut second = String::new();
        stream.read_to_string(&mut second).await.unwrap();
        expect(&second, status, &refused);

        let both = [kept::ALIVE, bytes.as_bytes()].concat();
        let both = tokio::time::timeout(PATIENCE, raw(&running, &both)).await.expect("it is cut");
        expect(&both, 200, &[]);
        let (_, second) = both.split_once(r#"alive"}"#).expect("an answer of /healthz");
        expect(second, status, &refused);
    }
}

#[tokio::test]
async fn b7_big_bodies_are_refused_and_the_answer_arrives() {
    let running = start(Limits::default()).await;
    // Declared and never sent; declared and sent; sent in chunks; just above the limit and far above it.
    let declared = format!("{PUT}content-length: {}\r\n\r\n", MAX_DRAINED_BYTES + 1);
    expect(&raw(&running, declared.as_bytes()).await, 413, &["larger than 65536"]);
    for length in [65_537, MAX_DRAINED_BYTES / 2] {
        let whole = format!("{PUT}connection: close\r\ncontent-length: {length}\r\n\r\n{}", "a".repeat(length));
        expect(&raw(&running, whole.as_bytes()).await, 413, &["larger than 65536"]);
        let chunk = format!("{length:x}\r\n{}\r\n0\r\n\r\n", "a".repeat(length));
        let chunked = format!("{PUT}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        expect(&raw(&running, chunked.as_bytes()).await, 413, &["larger than 65536"]);
        assert_eq!(http2_put(&running, length).await, (StatusCode::PAYLOAD_TOO_LARGE, length));
    }
}

/// Returns the answer to a PUT over HTTP/2, and the number of bytes of the body that were read. Some clients see no answer
/// before they have sent the whole body.
async fn http2_put(running: &Running, length: usize) -> (StatusCode, usize) {
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let whole = bytes::Bytes::from(vec![b'a'; length]);
    let parts: Vec<bytes::Bytes> = whole.chunks(16 * 1024).map(bytes::Bytes::copy_from_slice).collect();
    let parts = futures_util::stream::iter(parts).map(move |part| {
        counter.fetch_add(part.len(), Ordering::SeqCst);
        Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(part))
    });
    let body = http_body_util::StreamBody::new(parts);
    let request = Request::put("http://x/hub/integrations/slack/oauth-config").header("x-api-key", "tb_1_2");
    let answer = async move { sender.send_request(request.body(body).unwrap()).await.unwrap().status() };
    let (status, _) = tokio::join!(answer, connection);
    (status, taken.load(Ordering::SeqCst))
}

#[tokio::test]
async fn g3_slow_clients_are_cut() {
    let short = Duration::from_millis(200);
    let limits = Limits { header_timeout: short, idle_timeout: short, body_timeout: short, ..Limits::default() };
    let running = start(limits).await;
    for beginning in ["", "P", "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nhost:"]
    {
        let answer = raw(&running, beginning.as_bytes());
        assert!(tokio::time::timeout(PATIENCE, answer).await.is_ok(), "{beginning:?} was kept open");
    }
    let put = format!("{PUT}connection: close\r\ncontent-length: 9\r\n\r\n{{");
    expect(&raw(&running, put.as_bytes()).await, 400, &["did not come in time"]);
}

/// Sends a byte every 20 ms until the server stops reading.
async fn drip(running: &Running, beginning: &str) -> String {
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    to.write_all(beginning.as_bytes()).await.unwrap();
    let dripping = async {
        while to.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = Vec::new();
    let reading = async { drop(from.read_to_end(&mut answer).await) };
    tokio::select! {
        () = reading => {}
        () = dripping => {}
        () = tokio::time::sleep(PATIENCE) => panic!("{beginning:?} was read byte by byte"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn g3_heads_and_bodies_that_drip_are_cut() {
    let short = Duration::from_millis(300);
    let running = start(Limits { header_timeout: short, body_timeout: short, ..Limits::default() }).await;
    for beginning in ["", "GET /", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        drip(&running, beginning).await;
    }
    let body = format!("{PUT}connection: close\r\ncontent-length: 60000\r\n\r\n");
    let answer = drip(&running, &body).await;
    assert!(answer.is_empty() || answer.contains("did not come in time"), "{answer}");
}

#[tokio::test]
async fn g3_connections_above_the_limit_wait() {
    let running = start(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_ne!(first.read(&mut [0; 1024]).await.unwrap(), 0);
    let second = ask(&running, "GET", "/healthz", "");
    tokio::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut second).await.is_err());
    drop(first);
    expect(&second.await, 200, &[]);
}

#[tokio::test]
async fn g3_a_handshake_that_drags_is_cut_and_counts_as_a_connection() {
    let files = crate::gateway::listener::tls::tests::Files::new();
    let cert = files.renew();
    let limits = Limits { connections: 1, header_timeout: Duration::from_millis(300), ..Limits::default() };
    let running = start_with(limits, Some(Arc::new(files.load().await))).await;
    // The beginning of a record with a ClientHello, then nothing; and nothing at all.
    for beginning in [&b"\x16\x03\x01\x02\x00"[..], b""] {
        let mut first = TcpStream::connect(running.address).await.unwrap();
        first.write_all(beginning).await.unwrap();
        let second = crate::gateway::listener::tls::tests::connect(running.address, &cert);
        let mut second = tokio::time::timeout(PATIENCE, second).await.expect("the first one is cut");
        // The limit is one connection, so the first one must be closed.
        let closed = tokio::time::timeout(PATIENCE, first.read(&mut [0; 1024])).await.expect("it is cut");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        second.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = second.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        expect(&answer, 200, &["strict-transport-security: max-age=31536000\r\n"]);
    }
    let plain = ask(&running, "GET", "/healthz", "").await;
    assert!(!plain.contains("HTTP/1.1 200"), "plain HTTP on a TLS port: {plain}");
}

#[tokio::test]
async fn g3_a_limited_address_gets_the_time_to_wait() {
    let running = start(Limits { address_rate: rate(1, 3), ..Limits::default() }).await;
    for path in ["/nowhere", QUICK, STATELESS] {
        let answer = until_limited(&running, path, KEY).await;
        expect(
            &answer,
            429,
            &["retry-after: 1\r\n", r#"{"error":"too many requests from this address; try again in 1 s"}"#],
        );
    }
    let answer = until_limited(&running, STATELESS, "accept: text/html\r\n").await;
    expect(&answer, 429, &["retry-after: 1\r\n", "text/html"]);
    // Monitoring is not counted.
    for path in ["/healthz", "/metrics"] {
        for _ in 0..10 {
            expect(&ask(&running, "GET", path, "").await, 200, &[]);
        }
    }
}

#[tokio::test]
async fn g3_two_hundred_callbacks_at_once_are_let_through() {
    let running = Arc::new(start(Limits::default()).await);
    let mut browsers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let running = Arc::clone(&running);
        browsers.spawn(async move { ask(&running, "GET", STATELESS, "").await });
    }
    for answer in browsers.join_all().await {
        expect(&answer, 400, &["state is missing"]);
    }
}

#[tokio::test]
async fn b9_refusals_carry_the_headers_of_every_answer() {
    let running = start(Limits { address_rate: rate(1, 10), ..Limits::default() }).await;
    let refused = [
        (404, ask(&running, "GET", "/nowhere", "").await),
        (405, ask(&running, "POST", "/hub/integrations/oauth-config", KEY).await),
        (413, raw(&running, format!("{PUT}content-length: {}\r\n\r\n", MAX_DRAINED_BYTES + 1).as_bytes()).await),
        (429, until_limited(&running, STATELESS, "accept: text/html\r\n").await),
        (429, until_limited(&running, QUICK, KEY).await),
    ];
    for (status, answer) in refused {
        let headers = ["cache-control: no-store", "referrer-policy: no-referrer", "nosniff", "frame-ancestors 'none'"];
        expect(&answer, status, &headers);
    }
}

#[tokio::test]
async fn g3_a_credential_is_limited_apart_from_others() {
    let limits = Limits { address_rate: rate(0, 0), credential_rate: rate(1, 3), ..Limits::default() };
    let running = start(limits).await;
    expect(&until_limited(&running, QUICK, KEY).await, 429, &["retry-after: 1\r\n", "from this credential"]);
    expect(&ask(&running, "GET", QUICK, "x-api-key: another\r\n").await, 400, &[]);
    expect(&ask(&running, "GET", QUICK, "authorization: Bearer tb_1_2\r\n").await, 400, &[]);
    for _ in 0..10 {
        // The state is a callback's credential, so a key beside it is not counted.
        expect(&ask(&running, "GET", STATELESS, KEY).await, 400, &["state is missing"]);
    }
}

#[tokio::test]
async fn g3_the_client_of_a_trusted_proxy_is_limited_not_the_proxy() {
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let running = start(Limits { address_rate: rate(1, 2), trusted_proxies: trusted, ..Limits::default() }).await;
    until_limited(&running, "/nowhere", "x-forwarded-for: 192.0.2.1\r\n").await;
    expect(&ask(&running, "GET", "/nowhere", "x-forwarded-for: 192.0.2.2\r\n").await, 404, &[]);
    // Entries that the client wrote before its own address change nothing.
    for spoofed in 0..250 {
        let headers = format!("x-forwarded-for: 198.51.100.{spoofed}, 192.0.2.1\r\n");
        if ask(&running, "GET", "/nowhere", &headers).await.starts_with("HTTP/1.1 429 ") {
            break;
        }
        assert_ne!(spoofed, 249, "each spoofed address has a separate allowance");
    }
    // Without trusted proxies the header is ignored.
    let running = start(Limits { address_rate: rate(1, 2), ..Limits::default() }).await;
    for spoofed in 0..250 {
        let headers = format!("x-forwarded-for: 198.51.100.{spoofed}\r\n");
        if ask(&running, "GET", "/nowhere", &headers).await.starts_with("HTTP/1.1 429 ") {
            return;
        }
    }
    panic!("each made-up address has a separate allowance");
}

#[tokio::test]
async fn g3_one_address_does_not_hold_all_connections() {
    let patient = Duration::from_mins(10);
    let limits = Limits { connections: 4, connections_per_address: 2, header_timeout: patient, ..Limits::default() };
    let running = start(limits).await;
    // One address may hold two connections, even silent ones.
    let silent =
        [TcpStream::connect(running.address).await.unwrap(), TcpStream::connect(running.address).await.unwrap()];
    let mut third = TcpStream::connect(running.address).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, third.read(&mut [0; 1])).await.expect("it is closed at once");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    // Others find room.
    expect(&alive_from("127.0.0.2:0", &running).await, 200, &["alive"]);
    // And the first one again, once its own are gone.
    drop(silent);
    let again = async {
        while !alive_from("127.0.0.1:0", &running).await.contains("alive") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("its places are free");
}

/// The answer to somebody at that address, empty when there is none.
async fn alive_from(address: &str, running: &Running) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    let (mut stream, mut answer) = (socket.connect(running.address).await.unwrap(), String::new());
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let _ = stream.read_to_string(&mut answer).await;
    answer
}
