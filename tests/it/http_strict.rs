//! What the gateway accepts as HTTP, and whom it shows its metrics.

use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ask::ask;
use crate::provider::Provider;
use crate::world::World;

/// Sends raw bytes and reads until the connection ends.
async fn raw(world: &World, bytes: &str) -> String {
    let url = &world.tokenbus.url;
    let address = (url.host_str().expect("a host"), url.port().expect("a port"));
    let mut stream = TcpStream::connect(address).await.expect("the gateway listens");
    stream.write_all(bytes.as_bytes()).await.expect("the gateway reads");
    let mut answer = Vec::new();
    // The gateway may close before it has read everything.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the answers, in order.
fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

#[tokio::test]
async fn h20_without_a_listener_of_their_own_metrics_are_for_loopback_clients() {
    let trusted = [("HTTP__TRUSTED_PROXIES", "[127.0.0.1, 10.0.0.0/8]")];
    let proxied = World::with_settings(Provider::generous().await, &trusted).await;
    let direct = World::with(Provider::generous().await).await;
    let own = [("HTTP__METRICS_LISTEN", "127.0.0.1:0")];
    for (world, headers, status) in [
        (&direct, vec![], 200),
        // A proxy on this host that the settings don't name: the client is unknown.
        (&direct, vec![("x-forwarded-for", "127.0.0.1")], 404),
        (&direct, vec![("forwarded", "for=127.0.0.1")], 404),
        (&proxied, vec![], 200),
        (&proxied, vec![("x-forwarded-for", "127.0.0.1")], 200),
        (&proxied, vec![("x-forwarded-for", "192.0.2.7")], 404),
        (&proxied, vec![("x-forwarded-for", "127.0.0.1, 192.0.2.7")], 404),
        (&proxied, vec![("x-forwarded-for", "192.0.2.7, 10.0.0.1")], 404),
        (&proxied, vec![("forwarded", "for=192.0.2.7")], 404),
        // A client invents one of the two headers.
        (&proxied, vec![("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=127.0.0.1")], 404),
        (&proxied, vec![("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.8")], 404),
        (&proxied, vec![("x-forwarded-for", "nonsense")], 404),
    ] {
        let mut request = world.tokenbus.request(Method::GET, "metrics");
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = ask(request).await;
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.text.contains("tokenbus_"), status == 200, "{headers:?}: {}", answer.text);
    }
    let separate = World::with_settings(Provider::generous().await, &own).await;
    let log = separate.tokenbus.log();
    let address = log.split_once("metrics on ").and_then(|(_, rest)| rest.split_whitespace().next());
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let request = http.get(address.expect("an address of metrics")).header("x-forwarded-for", "192.0.2.7");
    assert_eq!(ask(request).await.status, 200);
}

#[tokio::test]
async fn requests_need_one_host_and_lines_that_end_with_cr_lf() {
    let world = World::with(Provider::generous().await).await;
    let end = "connection: close\r\n\r\n";
    for (request, expected) in [
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{end}"), vec!["200"]),
        (format!("\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n{end}"), vec!["200"]),
        (format!("GET /healthz HTTP/1.1\r\n{end}"), vec!["400"]),
        (format!("GET /healthz HTTP/1.1\r\nhost:\r\n{end}"), vec!["400"]),
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n{end}"), vec!["400"]),
        (format!("GET /healthz HTTP/1.1\r\nhost: x y\r\n{end}"), vec!["400"]),
        (format!("GET /healthz HTTP/1.1\r\nhost: x@y\r\n{end}"), vec!["400"]),
        (format!("GET /healthz HTTP/1.1\nhost: x\r\n{end}"), vec!["400"]),
        (format!("GET /healthz HTTP/1.1\r\nhost: x\n{end}"), vec!["400"]),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\n".to_owned(), vec!["400"]),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\n\r\n".to_owned(), vec!["400"]),
        ("GET /healthz HTTP/1.1\nhost: x\n\n".to_owned(), vec!["400"]),
        (format!("\nGET /healthz HTTP/1.1\r\nhost: x\r\n{end}"), vec!["400"]),
        // The second of two requests on a connection, and a body that has bare line feeds.
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n{end}"), vec!["200"; 2]),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\nhost: x\r\n{end}"),
            vec!["200", "400"],
        ),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\na\n\nb\n\n".to_owned() + end, vec!["200"]),
    ] {
        let answers = raw(&world, &request).await;
        assert_eq!(statuses(&answers), expected, "{request:?}: {answers}");
    }
}
