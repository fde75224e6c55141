//! Messages whose headers or subjects no client library would write. Any user with publish permission can send them.

use serde_json::json;

use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;

/// Malformed header blocks.
const HEADERS: [&[u8]; 11] = [
    b"NATS/1.0\r\nOauth-Credential: a\rb\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\r\n",
    b"NATS/1.0\r\nbl\xc3\xa4h: x\r\n\r\n",
    b"NATS/1.0\r\nx: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\na b: x\r\n\r\n",
    b"NATS/1.0 abc\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"\r\n",
];

/// Subject tokens that the server accepts and a client may not: invalid UTF-8, and Unicode spaces.
const TOKENS: [&[u8]; 6] =
    [b"\xff", b"a\xc3", "a\u{2003}1".as_bytes(), "a\u{a0}1\u{a0}2".as_bytes(), b"a\x0b1", b"\x1b[31m"];

async fn send(wire: &mut Wire, subject: &str, headers: &[u8]) {
    send_to(wire, subject.as_bytes(), headers).await;
}

async fn send_to(wire: &mut Wire, subject: &[u8], headers: &[u8]) {
    let payload = json!({}).to_string();
    let (head, all) = (headers.len(), headers.len() + payload.len());
    let rest = format!(" _INBOX.x {head} {all}\r\n");
    let message = [b"HPUB ", subject, rest.as_bytes(), headers, payload.as_bytes(), b"\r\n"].concat();
    let said = wire.send_bytes(&message).await;
    assert!(!said.iter().any(|line| line.starts_with("-ERR")), "{said:?}");
}

#[tokio::test]
async fn e9_malformed_headers_stop_no_worker() {
    let provider = Provider::generous().await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    for (user, subject) in [("demo", format!("ms.oauth.{ACCOUNT}.token")), ("edge", "oauth.edge.token".to_owned())] {
        let mut wire = Wire::connect(&fleet.nats, user).await;
        for headers in HEADERS {
            send(&mut wire, &subject, headers).await;
        }
    }
    // The same worker answers calls; none of its NATS connections was affected.
    fleet.ready().await;
    let state = fleet.login("one").await;
    assert_eq!(fleet.arrive(&state, "code").await.0.as_u16(), 200);
    assert_eq!(fleet.get(&format!("{INTEGRATION}/oauth-token/one")).await.0.as_u16(), 200);
    let node = fleet.nats.connect("demo").await;
    eventually("calls of nodes are answered", async || {
        let question = json!({ "integration_id": INTEGRATION, "connection_id": "one" }).to_string();
        node.request(format!("ms.oauth.{ACCOUNT}.token"), question.into()).await.is_ok()
    })
    .await;
    assert!(!worker.has_ended(), "{}", worker.log());
    let log = worker.log();
    assert!(!log.contains("no connection") && !log.contains("cannot take commands"), "{log}");
}

#[tokio::test]
async fn e9_a_command_with_malformed_headers_is_dropped_and_stops_no_worker() {
    let provider = Provider::generous().await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    let mut wire = Wire::connect(&fleet.nats, "edge").await;
    for (number, headers) in HEADERS.iter().enumerate() {
        let subject = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.bad{number}.exchange");
        send(&mut wire, &subject, headers).await;
    }
    assert_dropped(&fleet, &mut worker, HEADERS.len()).await;
}

/// Waits until that many commands are dropped, then checks that the same worker carries out the next login.
async fn assert_dropped(fleet: &Fleet, worker: &mut Worker, many: usize) {
    let bus = Bus::of(&fleet.nats).await;
    eventually("the commands become dead letters", async || bus.messages("OAUTH_DEAD").await.len() == many).await;
    let state = fleet.login("after").await;
    assert_eq!(fleet.arrive(&state, "code").await.0.as_u16(), 200);
    fleet.idle().await;
    let log = worker.log();
    assert!(!worker.has_ended() && !log.contains("cannot take commands") && !log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn e4_e9_subjects_that_are_not_utf8_stop_no_worker() {
    let provider = Provider::generous().await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    let (mut edge, mut tenant) = (Wire::connect(&fleet.nats, "edge").await, Wire::connect(&fleet.nats, "demo").await);
    let plain: &[u8] = b"NATS/1.0\r\n\r\n";
    for token in TOKENS {
        send_to(&mut edge, &[b"oauth.edge.", token].concat(), plain).await;
        send_to(&mut tenant, &[format!("ms.oauth.{ACCOUNT}.").as_bytes(), token].concat(), plain).await;
        // Without headers and without a reply, which is read in another way.
        for subject in [[b"oauth.edge.", token].concat(), [b"ms.oauth.", ACCOUNT.as_bytes(), b".", token].concat()] {
            let message = [b"PUB ", &subject[..], b" 2\r\n{}\r\n"].concat();
            edge.send_bytes(&message).await;
            tenant.send_bytes(&message).await;
        }
    }
    fleet.ready().await;
    assert_eq!(fleet.get(&format!("{INTEGRATION}/oauth-token/none")).await.0.as_u16(), 404);
    assert!(!worker.has_ended() && !worker.log().contains("cannot take commands"), "{}", worker.log());
    for token in TOKENS {
        let start = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.");
        send_to(&mut edge, &[start.as_bytes(), token, b".exchange"].concat(), plain).await;
    }
    assert_dropped(&fleet, &mut worker, TOKENS.len()).await;
}
