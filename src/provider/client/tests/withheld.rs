//! Requests of a worker that loses its lease while it connects.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use tokio::io::AsyncReadExt as _;

use super::*;

/// A request whose secrets are in the body, or in the head if there is none.
fn of_kind(url: &str, method: Method, has_body: bool) -> HttpRequest {
    let HttpRequest { headers, body, .. } = request(url);
    HttpRequest { method, url: Url::parse(url).unwrap(), headers, body: body.filter(|_| has_body) }
}

const KINDS: [(Method, bool); 6] = [
    (Method::Get, false),
    (Method::Post, false),
    (Method::Delete, false),
    (Method::Get, true),
    (Method::Post, true),
    (Method::Delete, true),
];

/// A server that ends the lease before it completes the TLS handshake, and keeps what it receives.
#[tokio::test]
async fn b3_a_lease_that_ends_while_the_worker_connects_withholds_the_whole_request() {
    let (ca, acceptor) = authority(&["localhost"], 2100);
    let (held, received) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
    let (lease, log) = (Arc::clone(&held), Arc::clone(&received));
    let (port, _server) = serve(move |stream, _| {
        let (acceptor, lease, log) = (acceptor.clone(), Arc::clone(&lease), Arc::clone(&log));
        async move {
            lease.store(false, Ordering::SeqCst);
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut bytes = Vec::new();
            // Until the client closes the connection. It may do so without the end that TLS knows.
            let _ = stream.read_to_end(&mut bytes).await;
            log.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
        }
    })
    .await;
    let settings = Settings { extra_ca_pem: Some(ca), ..settings(true) };
    let url = format!("https://localhost:{port}/echo?q={CANARY}");
    for (method, has_body) in KINDS {
        held.store(true, Ordering::SeqCst);
        let lease = Arc::clone(&held);
        let client = Client::new(&settings).unwrap();
        let sent = client.send_if(of_kind(&url, method, has_body), LIMIT, move || lease.load(Ordering::SeqCst));
        let error = refused(sent.await);
        assert!(matches!(error, ProviderError::Protocol(_)), "{method:?} {has_body} {error:?}");
    }
    let all_closed = async {
        while received.lock().unwrap().len() < KINDS.len() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, all_closed).await.unwrap();
    assert_eq!(*received.lock().unwrap(), [""; KINDS.len()]);
}

/// A connection of an earlier request is open at once, and the lease may have ended since.
#[tokio::test]
async fn b3_a_request_on_an_open_connection_is_withheld_too() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let (port, _server) = serve(move |stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                counter.fetch_add(1, Ordering::SeqCst);
                answer(request, 0)
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    let client = Client::new(&settings(true)).unwrap();
    let url = format!("http://127.0.0.1:{port}/echo?q={CANARY}");
    for (count, (method, has_body)) in KINDS.into_iter().enumerate() {
        let answer = client.send_if(of_kind(&url, method, has_body), LIMIT, || true).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let has_length = text.contains("content-length");
        assert_eq!((answer.status, has_length), (200, has_body || method == Method::Post), "{method:?} {text}");
        refused(client.send_if(of_kind(&url, method, has_body), LIMIT, || false).await);
        assert_eq!(requests.load(Ordering::SeqCst), count + 1, "{method:?} {has_body}");
    }
}
