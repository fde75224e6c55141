//! The gateway without a bus, over real sockets.

use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

mod cut;
mod kept;
mod large;
mod probes;
mod properties;
mod proxied;

const CALLBACK: &str = "/hub/integrations/oauth-callback?state=s&code=c";

/// Longest wait for an event that must happen.
const PATIENCE: Duration = Duration::from_mins(1);

struct Running {
    address: std::net::SocketAddr,
    metrics: Metrics,
    shutdown: CancellationToken,
    ended: JoinHandle<Drain>,
}

async fn start(limits: Limits) -> Running {
    start_with(limits, None).await
}

async fn start_with(limits: Limits, tls: Option<Arc<Certificates>>) -> Running {
    start_below("", limits, tls).await
}

#[expect(clippy::disallowed_methods, reason = "the test itself waits for the task")]
async fn start_below(base_path: &str, limits: Limits, tls: Option<Arc<Certificates>>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
    let gateway = Gateway::new(Arc::new(Backend::nowhere().await), metrics.clone(), Served::All).unwrap();
    let gateway = gateway.with_base_path(base_path.to_owned());
    let ended = tokio::spawn(run(listener, Arc::new(gateway), limits, tls, shutdown.clone()));
    Running { address, metrics, shutdown, ended }
}

/// Sends raw bytes and reads until the connection ends.
async fn raw(running: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(running: &Running, method: &str, path: &str, headers: &str) -> String {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    raw(running, head.as_bytes()).await
}

#[track_caller]
fn expect(answer: &str, status: u16, parts: &[&str]) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status} expected, not {answer}");
    for part in parts {
        assert!(answer.contains(part), "{part} not in {answer}");
    }
}

const KEY: &str = "x-api-key: tb_1_2\r\n";

#[tokio::test]
async fn b9_every_answer_carries_its_headers() {
    let running = start(Limits::default()).await;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/nowhere", CALLBACK] {
        for accept in ["", "accept: text/html\r\n"] {
            let answer = ask(&running, "GET", path, &format!("x-request-id: r-1\r\n{accept}")).await;
            for header in [
                "cache-control: no-store",
                "referrer-policy: no-referrer",
                "x-content-type-options: nosniff",
                "frame-ancestors 'none'",
                "x-request-id: r-1",
            ] {
                assert!(answer.contains(header), "{header} not in {answer}");
            }
        }
    }
}

#[tokio::test]
async fn requests_without_a_route_are_rejected_in_json() {
    let running = start(Limits::default()).await;
    expect(&ask(&running, "GET", "/hub", "").await, 404, &[r#"{"error":"there is nothing at this path"}"#]);
    let answer = ask(&running, "POST", "/hub/integrations/slack/oauth-config", "content-length: 0\r\n").await;
    expect(&answer, 405, &["allow: GET, PUT, DELETE", r#"{"error":"#]);
}

#[tokio::test]
async fn b7_head_and_prefetch_never_reach_the_bus() {
    let running = start(Limits::default()).await;
    expect(&ask(&running, "HEAD", CALLBACK, "").await, 405, &["allow: GET"]);
    for header in ["sec-purpose: prefetch;prerender", "purpose: prefetch", "x-moz: prefetch"] {
        expect(&ask(&running, "GET", CALLBACK, &format!("{header}\r\n")).await, 400, &["prefetching"]);
    }
    expect(&ask(&running, "GET", CALLBACK, "").await, 503, &["retry-after: "]);
}

#[tokio::test]
async fn b7_bad_queries_are_refused() {
    let running = start(Limits::default()).await;
    expect(&ask(&running, "GET", &format!("{CALLBACK}&state=t"), "").await, 400, &["`state` is given twice"]);
    expect(&ask(&running, "GET", "/hub/integrations/oauth-callback?code=c", "").await, 400, &["state is missing"]);
    expect(&ask(&running, "GET", &format!("{CALLBACK}&authuser=0"), "").await, 503, &[]);
    let login = "/hub/integrations/slack/oauth-login/w?scope=x";
    expect(&ask(&running, "GET", login, KEY).await, 400, &["unknown parameter `scope`"]);
    expect(&ask(&running, "GET", "/hub/integrations/slack/oauth-login/w?bind=x", KEY).await, 400, &["bind"]);
    expect(&ask(&running, "GET", "/hub/integrations/oauth-config?limit=0", KEY).await, 400, &["limit must be"]);
}

#[tokio::test]
async fn a4_hub_routes_need_one_credential() {
    let running = start(Limits::default()).await;
    let path = "/hub/integrations/slack/oauth-token/w";
    expect(&ask(&running, "GET", path, "").await, 401, &["www-authenticate: Bearer"]);
    let both = format!("{KEY}authorization: Bearer a\r\n");
    expect(&ask(&running, "GET", path, &both).await, 400, &["send one of them"]);
    expect(&ask(&running, "GET", path, KEY).await, 503, &[]);
    expect(&ask(&running, "GET", "/hub/integrations/a%2Eb/oauth-token/w", KEY).await, 400, &["integration_id must"]);
}

#[tokio::test]
async fn the_callback_speaks_html_to_browsers_with_the_same_status() {
    let running = start(Limits::default()).await;
    let answer = ask(&running, "GET", CALLBACK, "accept: text/html,*/*;q=0.8\r\n").await;
    expect(&answer, 503, &["text/html", "retry-after: ", "vary: Accept", "reload this page"]);
    expect(&ask(&running, "GET", CALLBACK, "accept: */*\r\n").await, 503, &["application/json", "vary: Accept"]);
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_waits_for_busy_ones() {
    let running = start(Limits { body_timeout: Duration::from_secs(1), ..Limits::default() }).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 1024]).await.unwrap(), 0);
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    let put = format!("PUT /hub/integrations/s/oauth-config HTTP/1.1\r\nhost: x\r\n{KEY}content-length: 1\r\n\r\n");
    busy.write_all(put.as_bytes()).await.unwrap();
    while !running.metrics.encode().unwrap().contains("in_flight 1") {
        tokio::task::yield_now().await;
    }
    running.shutdown.cancel();
    busy.write_all(b"1").await.unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    expect(&answer, 503, &[]);
    assert_eq!(running.ended.await.unwrap(), Drain::Complete);
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn shutdown_serves_connections_that_wait_to_be_accepted() {
    let running = start(Limits::default()).await;
    // The gateway's task has not begun yet, so only the operating system has accepted this connection.
    let mut stream = std::net::TcpStream::connect(running.address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    running.shutdown.cancel();
    stream.set_nonblocking(true).unwrap();
    let mut answer = String::new();
    TcpStream::from_std(stream).unwrap().read_to_string(&mut answer).await.unwrap();
    expect(&answer, 200, &[]);
    assert_eq!(running.ended.await.unwrap(), Drain::Complete);
}

#[tokio::test]
async fn a_drain_has_a_deadline() {
    let running = start(Limits { drain: Duration::from_millis(100), ..Limits::default() }).await;
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    let put = format!("PUT /hub/integrations/s/oauth-config HTTP/1.1\r\nhost: x\r\n{KEY}content-length: 1\r\n\r\n");
    busy.write_all(put.as_bytes()).await.unwrap();
    while !running.metrics.encode().unwrap().contains("in_flight 1") {
        tokio::task::yield_now().await;
    }
    running.shutdown.cancel();
    assert_eq!(running.ended.await.unwrap(), Drain::Cut);
}

#[tokio::test]
async fn f5_labels_hold_nothing_from_the_request() {
    let running = start(Limits::default()).await;
    ask(&running, "GET", "/made/up", "").await;
    ask(&running, "MADEUP", "/healthz?made=up", "").await;
    ask(&running, "GET", "/hub/integrations/made/oauth-connections", KEY).await;
    ask(&running, "GET", CALLBACK, "").await;
    let text = running.metrics.encode().unwrap();
    assert!(!text.contains("made") && !text.contains("MADEUP"), "{text}");
    assert!(text.contains(r#"route="unrouted",method="GET",code="404""#), "{text}");
    assert!(text.contains(r#"route="/healthz",method="other",code="405""#), "{text}");
    assert!(text.contains(r#"callbacks_total{outcome="unavailable"} 1"#), "{text}");
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let running = start(Limits::default()).await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let request = Request::get("http://x/healthz").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let answer = async move { sender.send_request(request).await.unwrap().status() };
    let (status, _) = tokio::join!(answer, connection);
    assert_eq!(status, StatusCode::OK);
}
