//! Connections through a proxy that sends the PROXY protocol.

use super::*;

/// A request that only clients on the gateway's own host may make.
const METRICS: &str = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

async fn start_trusting(networks: &[&str]) -> Running {
    let trusted_proxies = networks.iter().map(|network| network.parse().unwrap()).collect();
    start(Limits { trusted_proxies, proxy_protocol: true, ..Limits::default() }).await
}

async fn metrics(running: &Running, header: &[u8]) -> String {
    raw(running, &[header, METRICS.as_bytes()].concat()).await
}

#[tokio::test]
async fn o13_a_trusted_proxy_names_the_client() {
    let running = start_trusting(&["127.0.0.0/8"]).await;
    let binary = |command: u8, source: [u8; 4]| {
        let addresses = [&source[..], &[10, 0, 0, 1, 18, 103, 1, 187]].concat();
        [SIGNATURE, &[command, 0x11, 0, 12], &addresses].concat()
    };
    for header in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"[..], &binary(0x21, [192, 0, 2, 7])] {
        expect(&metrics(&running, header).await, 404, &[]);
    }
    for header in [
        &b"PROXY TCP4 127.0.0.9 10.0.0.1 4711 443\r\n"[..],
        b"PROXY UNKNOWN\r\n",
        &binary(0x21, [127, 0, 0, 9]),
        // A check of the proxy itself.
        &binary(0x20, [0; 4]),
    ] {
        expect(&metrics(&running, header).await, 200, &[]);
    }
    // The client named by the proxy is not trusted itself.
    let forwarded = METRICS.replace("\r\n\r\n", "\r\nx-forwarded-for: 127.0.0.1\r\n\r\n");
    let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";
    expect(&raw(&running, &[&header[..], forwarded.as_bytes()].concat()).await, 404, &[]);
}

#[tokio::test]
async fn o13_a_trusted_proxy_must_send_the_header_and_others_must_not() {
    let header = b"PROXY TCP4 127.0.0.1 10.0.0.1 4711 443\r\n";
    let running = start_trusting(&["127.0.0.0/8"]).await;
    assert_eq!(metrics(&running, b"").await, "");
    assert_eq!(metrics(&running, b"PROXY TCP4 nowhere\r\n").await, "");
    let running = start_trusting(&["192.0.2.0/24"]).await;
    expect(&metrics(&running, b"").await, 200, &[]);
    let answer = metrics(&running, header).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn o13_a_header_that_does_not_arrive_ends_the_connection() {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let header_timeout = Duration::from_millis(100);
    let limits = Limits { trusted_proxies, proxy_protocol: true, header_timeout, ..Limits::default() };
    let running = start(limits).await;
    let answer = tokio::time::timeout(PATIENCE, raw(&running, b"PROXY TCP4 192.0")).await;
    assert_eq!(answer.expect("the connection is closed"), "");
}

#[tokio::test]
async fn o13_the_header_and_the_handshake_share_the_time_of_a_head() {
    let files = crate::gateway::listener::tls::tests::Files::new();
    files.renew();
    let header_timeout = Duration::from_secs(4);
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let limits = Limits { trusted_proxies, proxy_protocol: true, header_timeout, ..Limits::default() };
    let running = start_with(limits, Some(Arc::new(files.load().await))).await;
    let began = std::time::Instant::now();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    tokio::time::sleep(header_timeout * 3 / 4).await;
    stream.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("the connection is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert!(began.elapsed() < header_timeout * 3 / 2, "{:?}", began.elapsed());
}

/// Collects lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Load balancers open and close a connection every few seconds.
#[tokio::test]
async fn o13_a_port_check_without_a_byte_leaves_no_line_in_the_log() {
    let files = crate::gateway::listener::tls::tests::Files::new();
    files.renew();
    let tls = || async { Some(Arc::new(files.load().await)) };
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::INFO);
    let _log = tracing::subscriber::set_default(log.with_writer(move || writer.clone()).finish());
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let proxied = Limits { trusted_proxies, proxy_protocol: true, ..Limits::default() };
    for (limits, tls) in
        [(Limits::default(), None), (Limits::default(), tls().await), (proxied.clone(), None), (proxied, tls().await)]
    {
        let running = start_with(limits, tls).await;
        // Closed, and reset.
        drop(TcpStream::connect(running.address).await.unwrap());
        let reset = TcpStream::connect(running.address).await.unwrap();
        reset.set_zero_linger().unwrap();
        drop(reset);
        running.shutdown.cancel();
        assert_eq!(running.ended.await.unwrap(), Drain::Complete);
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text, "");
}
