//! The demo authorization server: HTTP on loopback, state in memory.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::Gateway;
use super::endpoints::{Answer, KnownClient, Parameters, Server, notice};
use super::grants::Grants;
use crate::secret::Secret;
use crate::system;

/// Most open connections. More wait.
const MAX_CONNECTIONS: usize = 64;
/// Largest form in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Timeouts of a request's head and of a whole connection.
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_mins(1);

/// The running server. Stops on drop.
pub(super) struct Provider {
    /// `http://127.0.0.1:<port>`
    pub(super) url: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

/// Options of the server.
pub(super) struct Setting {
    pub(super) client: KnownClient,
    /// Lifetime of access tokens in seconds.
    pub(super) expires_in: u32,
    /// Gateway at which `/start` starts a login.
    pub(super) gateway: Gateway,
}

struct Shared {
    server: Mutex<Server>,
    gateway: Gateway,
    host: String,
}

impl Provider {
    /// Starts the server on a free port.
    pub(super) async fn start(setting: Setting) -> anyhow::Result<Self> {
        let Setting { client, expires_in, gateway } = setting;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("demo provider")?;
        let host = listener.local_addr()?.to_string();
        let server = Mutex::new(Server { client, expires_in, grants: Grants::default() });
        let shared = Arc::new(Shared { server, gateway, host: host.clone() });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { url: format!("http://{host}"), shared, _accepting: accepting })
    }

    /// Returns the newest access token.
    pub(super) fn newest_access_token(&self) -> Option<Secret> {
        self.shared.server().grants.newest_access_token()
    }
}

impl Shared {
    /// Ignores poisoning: no step leaves the state half changed.
    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(respond(answer(&shared, request).await)) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_BODY);
            // A broken connection affects only its client.
            let _ = tokio::time::timeout(CONNECTION, http.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let text = |name: header::HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::HOST) != Some(shared.host.as_str()) {
        return Answer::Page(StatusCode::MISDIRECTED_REQUEST, notice("Wrong host."));
    }
    let basic = text(header::AUTHORIZATION).map(str::to_owned);
    let refused = || Answer::Json(StatusCode::BAD_REQUEST, json!({ "error": "invalid_request" }));
    let posted = head.method == Method::POST;
    let form = if posted {
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return refused(),
        }
    } else {
        Bytes::copy_from_slice(head.uri.query().unwrap_or_default().as_bytes())
    };
    let Some(parameters) = Parameters::parse(&form) else { return refused() };
    match (&head.method, head.uri.path()) {
        (&Method::GET | &Method::POST, "/authorize") => shared.server().authorize(&parameters, posted, system::now()),
        (&Method::POST, "/token") => shared.server().token(basic.as_deref(), &parameters, system::now()),
        (&Method::POST, "/revoke") => shared.server().revoke(basic.as_deref(), &parameters),
        (&Method::GET, "/start") => start(&shared.gateway).await,
        _ => Answer::Page(StatusCode::NOT_FOUND, notice("Not found.")),
    }
}

/// Starts a login at the gateway. An `oauth_url` works once, `/start` any number of times.
async fn start(gateway: &Gateway) -> Answer {
    match gateway.login().await {
        Ok(oauth_url) => Answer::Redirect(oauth_url),
        Err(error) => {
            Answer::Page(StatusCode::BAD_GATEWAY, notice(&format!("The gateway refused the login: {error:#}")))
        }
    }
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let (status, kind, location, body) = match answer {
        Answer::Page(status, html) => (status, "text/html; charset=utf-8", None, html),
        Answer::Json(status, value) => (status, "application/json", None, value.to_string()),
        Answer::Redirect(to) => (StatusCode::SEE_OTHER, "text/plain", HeaderValue::from_str(&to).ok(), String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The form's response redirects to the gateway, which has another port.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' http://127.0.0.1:*; frame-ancestors 'none'",
        ),
    );
    if let Some(location) = location {
        headers.insert(header::LOCATION, location);
    }
    response
}
