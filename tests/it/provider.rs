//! A provider that sends scripted answers and records the requests it receives.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A request to the provider.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Empty if the URL has none.
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Received {
    /// The fields of a form body.
    pub(crate) fn form(&self) -> HashMap<String, String> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

/// A scripted answer of the provider.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// Delay before the answer.
    pub(crate) after: Duration,
    /// A condition to wait for after the delay.
    pub(crate) until: Option<watch::Receiver<bool>>,
}

impl Scripted {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status, headers, body: body.into(), after: Duration::ZERO, until: None }
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// Holds the answer until the condition is true.
    pub(crate) fn once(self, until: &watch::Receiver<bool>) -> Self {
        Self { until: Some(until.clone()), ..self }
    }

    /// A token answer with the number of the request in it.
    pub(crate) fn tokens(number: usize) -> Self {
        let body = json!({
            "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"),
            "token_type": "Bearer", "expires_in": 3600, "scope": "read",
        });
        Self::json(200, &body)
    }
}

type Script = dyn Fn(usize, &Received) -> Scripted + Send + Sync;

/// The provider; ends when dropped.
pub(crate) struct Provider {
    /// Its address: `http://127.0.0.1:<port>`.
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    _tasks: JoinSet<()>,
}

impl Provider {
    /// A provider that answers with `script`, which receives the number of earlier requests and the request.
    pub(crate) async fn start(script: impl Fn(usize, &Received) -> Scripted + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), script)
    }

    /// The same on a port that is open already.
    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(usize, &Received) -> Scripted + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        let (received, script): (Arc<Mutex<Vec<Received>>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&received), script));
        Self { url, received, _tasks: tasks }
    }

    /// A provider that always issues tokens, `at-0`, `at-1` and so on.
    pub(crate) async fn generous() -> Self {
        Self::start(|number, _| Scripted::tokens(number)).await
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no test panics with the lock").clone()
    }
}

async fn serve(listener: TcpListener, received: Arc<Mutex<Vec<Received>>>, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (received, script) = (Arc::clone(&received), Arc::clone(&script));
        let service = service_fn(move |request| answer(request, Arc::clone(&received), Arc::clone(&script)));
        connections.spawn(async move {
            // A client may disconnect at any time.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Script>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: HashMap<String, String> =
        request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let authorization = headers.get("authorization").cloned();
    let content_type = headers.get("content-type").cloned().unwrap_or_default();
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let question = Received { method, path, query, authorization, headers, content_type, body };
    let number = {
        let mut received = received.lock().expect("no test panics with the lock");
        received.push(question.clone());
        received.len() - 1
    };
    let said = script(number, &question);
    // A sleep takes at least a millisecond, also one of no time.
    if !said.after.is_zero() {
        tokio::time::sleep(said.after).await;
    }
    if let Some(mut until) = said.until {
        // Don't wait once the test has ended.
        let _ = until.wait_for(|is_time| *is_time).await;
    }
    let mut response = Response::builder().status(said.status);
    for (name, value) in said.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(said.body)).expect("a script makes valid answers"))
}
