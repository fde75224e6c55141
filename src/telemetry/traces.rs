//! Traces by OpenTelemetry: requests, commands, calls, requests to providers and pushes.
//!
//! Spans of traces have a target of their own. So the log's filter does not change what is traced, log lines do not become a
//! part of traces, and a span has the attributes of this file and no others. None of them is secret. Without `traces.endpoint`
//! no span is made.

mod exporter;

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Span, Subscriber, field, info_span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

pub(crate) use self::exporter::ExporterError;
use crate::command::HEADER_TRACEPARENT;
use crate::config;
use crate::system;

/// Target of the spans.
pub(super) const TARGET: &str = "tokenbus::traces";
/// Longest time to send the last spans when the process ends.
const FLUSH: Duration = Duration::from_secs(2);

/// Sends the spans that wait when it is dropped, for at most [`FLUSH`].
pub(super) struct Traces(SdkTracerProvider);

/// A layer that sends spans, and what must be kept until the process ends.
pub(super) struct Started<S> {
    pub(super) layer: Box<dyn Layer<S> + Send + Sync>,
    pub(super) traces: Traces,
}

/// Checks the settings as [`start`] does.
pub(crate) fn check(settings: &config::Traces) -> Result<(), ExporterError> {
    settings.endpoint.as_ref().map_or(Ok(()), |endpoint| exporter::new(settings, endpoint).map(drop))
}

/// Starts to send spans. Returns `None` if no collector is set. Must run within the process's runtime, which sends them.
pub(super) fn start<S>(settings: &config::Traces) -> Result<Option<Started<S>>, ExporterError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let Some(endpoint) = &settings.endpoint else { return Ok(None) };
    let resource = Resource::builder_empty().with_service_name("tokenbus").with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", system::random_id()),
    ]);
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample)));
    // Spans wait in a bounded queue. Those that do not fit are dropped, so a collector that stalls stops nothing.
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter::new(settings, endpoint)?)
        .with_sampler(sampler)
        .with_resource(resource.build())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tokenbus"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    let filter = filter_fn(|of| of.target() == TARGET).with_max_level_hint(LevelFilter::INFO);
    let layer = layer.with_filter(filter).boxed();
    Ok(Some(Started { layer, traces: Traces(provider) }))
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            warn!("the last spans were not sent: {error}");
        }
    }
}

/// A request to the gateway. Its path and query are secret, so only its route is an attribute.
pub(crate) fn request(method: &'static str, route: &'static str) -> Span {
    info_span!(
        target: TARGET,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
    )
}

/// A call of a gateway or of a node, at the worker that answers it.
pub(crate) fn call(method: &'static str) -> Span {
    info_span!(
        target: TARGET,
        "call",
        otel.name = format!("tokenbus/{method}"),
        otel.kind = "server",
        rpc.system.name = "nats",
        rpc.method = method,
    )
}

/// A request to a provider, from its head to the head of the answer. Its path may hold secrets.
pub(crate) fn provider_request(method: &str, host: Option<&str>, port: Option<u16>) -> Span {
    info_span!(
        target: TARGET,
        "provider_request",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = field::Empty,
        http.request.method = method,
        server.address = host,
        server.port = port,
        http.response.status_code = field::Empty,
        error.type = field::Empty,
    )
}

/// A command that is put on the work queue.
pub(crate) fn publish(subject: &str) -> Span {
    info_span!(
        target: TARGET,
        "publish",
        otel.name = format!("publish {}", last_token(subject)),
        otel.kind = "producer",
        messaging.system = "nats",
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.name = subject,
    )
}

/// A record that is stored, and that the server then sends to all subscribers.
pub(crate) fn push(subject: &str) -> Span {
    info_span!(
        target: TARGET,
        "push",
        otel.kind = "producer",
        messaging.system = "nats",
        messaging.operation.name = "push",
        messaging.operation.type = "send",
        messaging.destination.name = subject,
    )
}

/// A command that a worker runs.
pub(crate) fn process(subject: &str, delivered: i64) -> Span {
    info_span!(
        target: TARGET,
        "process",
        otel.name = format!("process {}", last_token(subject)),
        otel.kind = "consumer",
        messaging.system = "nats",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = subject,
        tokenbus.delivered = delivered,
    )
}

fn last_token(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

/// Makes the span a part of the trace of a message, and returns the context for messages that follow from it; `None` without
/// traces. Call it before the span is entered.
pub(crate) fn continued(span: &Span, traceparent: Option<&str>) -> Option<String> {
    if let Some(traceparent) = traceparent {
        let carrier = HashMap::from([(HEADER_TRACEPARENT.to_owned(), traceparent.to_owned())]);
        // An error means that the span is not traced.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    }
    traceparent_of(span)
}

/// The span's context for messages (W3C Trace Context); `None` without traces.
pub(crate) fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    context.is_valid().then(|| format!("00-{trace}-{span}-{flags:02x}"))
}

/// Records the status of the answer, which is an error from 500 for a server, and from 400 for a client.
pub(crate) fn answered(span: &Span, status: u16, is_error: bool) {
    span.record("http.response.status_code", status);
    if is_error {
        span.record("otel.status_code", "ERROR");
    }
}

/// Records that no answer arrived.
pub(crate) fn unanswered(span: &Span) {
    span.record("error.type", "no_answer");
    span.record("otel.status_code", "ERROR");
}
