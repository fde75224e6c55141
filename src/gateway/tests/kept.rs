//! Connections that clients keep open between requests.

use super::*;

pub(super) const ALIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

/// Sends bytes and reads one answer of `/healthz`.
pub(super) async fn alive(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("alive") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "the connection was closed");
        answer.extend_from_slice(&part[..read]);
    }
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it is closed");
    matches!(end, Ok(0) | Err(_))
}

#[tokio::test]
async fn o1_a_kept_connection_outlives_the_time_for_a_head() {
    let header_timeout = Duration::from_secs(2);
    let running = start(Limits { header_timeout, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for _ in 0..2 {
        alive(&mut stream, ALIVE).await;
        tokio::time::sleep(header_timeout + Duration::from_secs(1)).await;
    }
    alive(&mut stream, ALIVE).await;
    // The limit begins with a head's first byte, and an empty line before a head is such a byte.
    for beginning in ["G", "\r\nGET / HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        alive(&mut stream, ALIVE).await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        assert!(is_closed(&mut stream).await);
    }
}

#[tokio::test]
async fn o1_idle_connections_end_after_their_time() {
    let running = start(Limits { idle_timeout: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    alive(&mut stream, ALIVE).await;
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn o1_idle_connections_make_room_for_others() {
    let running = start(Limits { connections: 1, header_timeout: Duration::from_secs(1), ..Limits::default() }).await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    alive(&mut first, ALIVE).await;
    let second = tokio::time::timeout(PATIENCE, ask(&running, "GET", "/healthz", ""));
    expect(&second.await.expect("the idle connection is closed"), 200, &[]);
}

#[tokio::test]
async fn o1_idle_connections_make_room_for_others_of_their_address() {
    let header_timeout = Duration::from_secs(1);
    let running = start(Limits { connections_per_address: 4, header_timeout, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        alive(&mut stream, ALIVE).await;
        held.push(stream);
    }
    let another = async {
        loop {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            let sent = stream.write_all(ALIVE).await;
            if sent.is_ok() && stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, another).await.expect("idle connections of the address are closed");
}
