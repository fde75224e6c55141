//! Traces, as a collector of OpenTelemetry receives them.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::collector::{Collector, attribute};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World};

/// A trace context that a caller sends.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(digit.into(), 16).expect("a hexadecimal digit")).collect()
}

/// The trace of a node's call.
const NODE_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The child of a span with that name, if it has arrived.
fn child<'a>(spans: &'a [Span], parent: &Span, name: &str) -> Option<&'a Span> {
    spans
        .iter()
        .find(|span| span.trace_id == parent.trace_id && span.parent_span_id == parent.span_id && span.name == name)
}

/// The spans from a callback to the push of its connection.
fn callback_spans(spans: &[Span]) -> Option<[&Span; 5]> {
    let request = spans.iter().find(|span| span.name == "GET /hub/integrations/oauth-callback")?;
    let publish = child(spans, request, "publish exchange")?;
    let process = child(spans, publish, "process exchange")?;
    Some([request, publish, process, child(spans, process, "POST")?, child(spans, process, "push")?])
}

#[track_caller]
fn assert_attributes(span: &Span, kind: SpanKind, expected: &[(&str, &str)]) {
    assert_eq!(span.kind(), kind, "{span:?}");
    for (name, value) in expected {
        assert_eq!(attribute(span, name).as_deref(), Some(*value), "{name} of {span:?}");
    }
}

async fn check(protocol: &str) {
    let collector = Collector::start().await;
    let settings = [
        ("TRACES__ENDPOINT", collector.url.as_str()),
        ("TRACES__PROTOCOL", protocol),
        ("TRACES__AUTHORIZATION", "Bearer canary-collector"),
        // The log's filter does not change what is traced.
        ("LOG__FILTER", "warn"),
    ];
    let world = World::with_settings(Provider::generous().await, &settings).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let path = format!("hub/integrations/{INTEGRATION}/oauth-token/one");
    let read = world.tokenbus.request(Method::GET, &path).header("x-api-key", &world.tokenbus.key);
    let read = read.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).send().await.expect("tokenbus answers");
    assert_eq!(read.status(), StatusCode::OK);

    let node = world.tokenbus.nats.connect("demo").await;
    let traceparent = format!("00-{NODE_TRACE}-{PARENT}-01");
    let question = json!({ "integration_id": INTEGRATION, "connection_id": "one", "traceparent": traceparent });
    let answer = node.request(format!("ms.oauth.{ACCOUNT}.token"), question.to_string().into()).await;
    assert!(!answer.expect("a worker answers").payload.is_empty(), "it has a token");

    let read_spans = |spans: &[Span]| {
        let request = spans.iter().find(|span| hex(&span.trace_id) == TRACE && hex(&span.parent_span_id) == PARENT)?;
        Some([request.clone(), child(spans, request, "tokenbus/token")?.clone()])
    };
    eventually("the spans arrive", async || {
        let spans = collector.received().spans;
        let of_node =
            spans.iter().find(|span| hex(&span.trace_id) == NODE_TRACE && hex(&span.parent_span_id) == PARENT);
        let has_node = of_node.is_some_and(|span| span.name == "tokenbus/token");
        callback_spans(&spans).is_some() && read_spans(&spans).is_some() && has_node
    })
    .await;
    let received = collector.received();
    let [request, publish, process, sent, push] = callback_spans(&received.spans).expect("they have arrived");
    let is_ok = ("http.response.status_code", "200");
    let route = ("http.route", "/hub/integrations/oauth-callback");
    assert_attributes(request, SpanKind::Server, &[route, is_ok, ("http.request.method", "GET")]);
    let subject = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.one");
    let command = format!("{subject}.exchange");
    let (is_nats, to_command) = (("messaging.system", "nats"), ("messaging.destination.name", command.as_str()));
    assert_attributes(publish, SpanKind::Producer, &[is_nats, to_command]);
    assert_attributes(process, SpanKind::Consumer, &[is_nats, to_command]);
    assert_attributes(sent, SpanKind::Client, &[is_ok, ("server.address", "127.0.0.1")]);
    assert_attributes(push, SpanKind::Producer, &[is_nats, ("messaging.destination.name", &subject)]);
    let [request, _call] = read_spans(&received.spans).expect("they have arrived");
    assert_eq!(request.name, "GET /hub/integrations/{integration_id}/oauth-token/{connection_id}");

    assert!(received.authorization.iter().all(|value| value == "Bearer canary-collector"));
    assert!(!received.authorization.is_empty(), "the collector's credential is sent");
    let text = format!("{:?}", received.spans);
    for secret in ["canary", "at-0", "rt-0", &world.tokenbus.key, "state="] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(!text.contains("readyz"), "probes are not traced: {text}");
}

#[tokio::test]
async fn o19_a_callback_is_one_trace_by_grpc() {
    check("grpc").await;
}

#[tokio::test]
async fn o19_a_callback_is_one_trace_by_http() {
    check("http").await;
}

#[tokio::test]
async fn o19_a_collector_that_is_away_stops_nothing() {
    // A port that nothing listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
    drop(listener);
    let world = World::with_settings(Provider::generous().await, &[("TRACES__ENDPOINT", &url)]).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    eventually("the log says so", async || world.tokenbus.log().contains("spans cannot be sent")).await;
    assert_eq!(world.read("one").await.0, StatusCode::OK);
}
