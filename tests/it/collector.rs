//! A collector of OpenTelemetry that keeps the spans it receives, by gRPC and by HTTP.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP_PATH: &str = "/v1/traces";
/// Bytes before a message of gRPC: whether it is compressed, and its length.
const GRPC_PREFIX: usize = 5;

/// Ends when dropped.
pub(crate) struct Collector {
    /// Its address: `http://127.0.0.1:<port>`.
    pub(crate) url: String,
    received: Arc<Mutex<Received>>,
    _tasks: JoinSet<()>,
}

/// What processes have sent so far.
#[derive(Clone, Default)]
pub(crate) struct Received {
    pub(crate) spans: Vec<Span>,
    pub(crate) authorization: Vec<String>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        let received = Arc::<Mutex<Received>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&received)));
        Self { url, received, _tasks: tasks }
    }

    pub(crate) fn received(&self) -> Received {
        self.received.lock().expect("no test panics with the lock").clone()
    }
}

async fn serve(listener: TcpListener, received: Arc<Mutex<Received>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let received = Arc::clone(&received);
        let service = service_fn(move |request| answer(request, Arc::clone(&received)));
        connections.spawn(async move {
            // A client may disconnect at any time.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    received: Arc<Mutex<Received>>,
) -> Result<Response<StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>, Infallible> {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get("authorization").map(|value| value.to_str().expect("ASCII").to_owned());
    let body = request.into_body().collect().await.expect("a whole request").to_bytes();
    let (message, content_type, frames): (_, _, Frames) = match path.as_str() {
        HTTP_PATH => (body, "application/x-protobuf", Vec::new()),
        GRPC_PATH => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a header's value"));
            let empty = Frame::data(Bytes::from_static(&[0; GRPC_PREFIX]));
            (body.slice(GRPC_PREFIX..), "application/grpc", vec![Ok(empty), Ok(Frame::trailers(trailers))])
        }
        other => panic!("no such path: {other}"),
    };
    let batch = ExportTraceServiceRequest::decode(message).expect("a batch of spans");
    let scopes = batch.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    {
        let mut received = received.lock().expect("no test panics with the lock");
        received.spans.extend(scopes.flat_map(|scope| scope.spans));
        received.authorization.extend(authorization);
    }
    let answer = Response::builder().header("content-type", content_type);
    Ok(answer.body(StreamBody::new(stream::iter(frames))).expect("a valid answer"))
}

/// An attribute of a span as text.
pub(crate) fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::StringValueStrindex(_)
        | Value::BoolValue(_)
        | Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_) => panic!("{name} is neither text nor a number"),
    }
}
