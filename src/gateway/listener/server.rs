//! The listener: accepts connections, applies their limits, and drains them at shutdown.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::listener::peers::Peers;
use crate::gateway::listener::rate_limits::RateLimits;
use crate::gateway::{Certificates, Gateway, Rate};

/// Pause after the operating system failed to hand over a connection. The process is then out of file descriptors, and an
/// immediate retry would only use the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Makes browsers use TLS only, for a year (RFC 6797). Sent if the gateway itself does TLS; otherwise the proxy before it
/// decides. Other names of the domain are not covered.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Bytes of a head beyond [`Limits::uri`] and [`Limits::headers`] that are still read, so that the gateway itself rejects
/// a head just above the limits.
const HEAD_MARGIN_BYTES: usize = 4096;
/// hyper's least buffer for a head.
const MIN_HEAD_BUFFER_BYTES: usize = 8192;

/// HTTP/2 flow-control window of a stream: all of a body, which has at most 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 65_535;
/// HTTP/2 flow-control window of a connection: four bodies at once. Bounds the memory of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 262_144;
/// Most bytes of answers that one HTTP/2 stream buffers.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams that a client has reset before they were accepted, and streams reset for a client's errors. More end the
/// connection: protects from rapid resets (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
const MAX_ERROR_RESETS: usize = 128;
/// Finds dead HTTP/2 connections: a ping, and the longest wait for its answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The limits of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Open connections. More wait in the operating system's backlog.
    pub connections: usize,
    /// Open connections of one client network. More are closed at once. Trusted proxies have no limit; 0 sets none.
    pub connections_per_address: usize,
    /// Longest time for the head of the first request to arrive, TLS handshake included, and for each further head.
    pub header_timeout: Duration,
    /// Longest time for a connection without a running request.
    pub idle_timeout: Duration,
    /// Longest time for a body to arrive, from the beginning of the request.
    pub body_timeout: Duration,
    /// Longest time for the whole answer. Must exceed the backend's deadline for commands.
    pub request_timeout: Duration,
    /// Bytes of all headers together.
    pub headers: usize,
    /// Bytes of path and query.
    pub uri: usize,
    /// Bytes of a body.
    pub body: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Requests of one client network.
    pub address_rate: Rate,
    /// Requests with one credential.
    pub credential_rate: Rate,
    /// Proxies whose headers name the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// Longest wait for running requests at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 256,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            headers: 16 * 1024,
            uri: 8 * 1024,
            body: 64 * 1024,
            streams: 64,
            address_rate: Rate { per_second: 200, burst: 1000 },
            credential_rate: Rate { per_second: 100, burst: 500 },
            trusted_proxies: Vec::new(),
            drain: Duration::from_secs(25),
        }
    }
}

/// The result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// All running requests were answered.
    Complete,
    /// Connections were closed at the deadline.
    Cut,
}

/// The requests that run on one connection.
#[derive(Debug)]
struct Activity(Mutex<ActivityState>);

#[derive(Debug, Clone, Copy)]
struct ActivityState {
    running: usize,
    /// The time of the last change of `running`.
    since: Instant,
}

/// Counts a request as running until it is dropped.
struct Running(Arc<Activity>);

/// State that all connections of a listener share.
struct Listener {
    gateway: Arc<Gateway>,
    limits: Limits,
    rates: RateLimits,
    tls: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
}

/// Serves until shutdown, with TLS if there is a certificate. Then waits for running requests, at most for
/// [`Limits::drain`].
pub(crate) async fn run(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    limits: Limits,
    tls: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
) -> Drain {
    let (permits, drain) = (Arc::new(Semaphore::new(limits.connections)), limits.drain);
    let rates = RateLimits::new(limits.address_rate, limits.credential_rate);
    let peers = Peers::new(limits.connections_per_address, limits.trusted_proxies.clone());
    let shared = Arc::new(Listener { gateway, limits, rates, tls, shutdown: shutdown.clone() });
    let (tracker, cut) = (TaskTracker::new(), CancellationToken::new());
    while let Some(Accepted { stream, peer, permit }) = accept(&listener, &permits, &shutdown).await {
        let Some(network_permit) = peers.take(peer) else {
            tracing::debug!(%peer, "connection closed: its network has too many");
            continue;
        };
        let (shared, cut) = (Arc::clone(&shared), cut.clone());
        tracker.spawn(async move {
            cut.run_until_cancelled(shared.handshake(stream, peer)).await;
            drop((network_permit, permit));
        });
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(drain, tracker.wait()).await.is_ok() {
        return Drain::Complete;
    }
    tracing::warn!(connections = tracker.len(), "connections closed at the end of the drain");
    cut.cancel();
    tracker.wait().await;
    Drain::Cut
}

struct Accepted {
    stream: TcpStream,
    peer: IpAddr,
    permit: OwnedSemaphorePermit,
}

/// Waits for a permit, then for a connection. Returns `None` once shutdown began.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>, shutdown: &CancellationToken) -> Option<Accepted> {
    let next = async {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some(Accepted { stream, peer: peer.ip(), permit }),
                Err(error) => {
                    tracing::warn!(%error, "no connection accepted; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(next).await.flatten()
}

impl Listener {
    /// Makes the TLS handshake, if any, and serves the connection. The handshake counts as a part of the first request's
    /// head.
    async fn handshake(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let activity = Arc::new(Activity::new());
        let Some(tls) = &self.tls else { return self.serve(stream, peer, activity).await };
        let handshake = TlsAcceptor::from(tls.current()).accept(stream);
        let made = tokio::select! {
            made = tokio::time::timeout(self.limits.header_timeout, handshake) => made,
            () = self.shutdown.cancelled() => return,
        };
        match made {
            Ok(Ok(stream)) => self.serve(stream, peer, activity).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }

    /// Serves one connection. Besides hyper's own limits, it is closed if no request runs for too long: a slow first byte,
    /// half an HTTP/2 preface or pings do not keep it open.
    async fn serve<S>(self: &Arc<Self>, stream: S, peer: IpAddr, activity: Arc<Activity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (watched, shared) = (Arc::clone(&activity), Arc::clone(self));
        let builder = builder(&self.limits);
        let service = service_fn(move |request: Request<Incoming>| {
            let (shared, running) = (Arc::clone(&shared), Activity::begin(&activity));
            async move {
                let Listener { gateway, limits, rates, tls, shutdown: _ } = &*shared;
                let mut reply = gateway.answer(request, peer, limits, rates).await;
                if tls.is_some() {
                    reply.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
                }
                drop(running);
                Ok::<_, Infallible>(reply)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended.err()),
            () = self.shutdown.cancelled() => {}
            () = watched.idle(&self.limits) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => log_end(ended.err()),
            () = watched.idle(&self.limits) => {}
        }
    }
}

fn log_end(error: Option<Box<dyn std::error::Error + Send + Sync>>) {
    if let Some(error) = error {
        tracing::debug!(%error, "connection ended");
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let head_bytes = limits.uri + limits.headers + HEAD_MARGIN_BYTES;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(head_bytes.max(MIN_HEAD_BUFFER_BYTES))
        .half_close(false)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(ActivityState { running: 0, since: Instant::now() }))
    }

    fn state(&self) -> ActivityState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_running(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = ActivityState { running: change(state.running), since: Instant::now() };
    }

    fn begin(this: &Arc<Self>) -> Running {
        this.set_running(|running| running + 1);
        Running(Arc::clone(this))
    }

    /// Returns once no request has run for the limit: [`Limits::header_timeout`] until the first request, then
    /// [`Limits::idle_timeout`].
    async fn idle(&self, limits: &Limits) {
        let began = self.state().since;
        loop {
            let ActivityState { running, since } = self.state();
            let longest = if since == began { limits.header_timeout } else { limits.idle_timeout };
            let deadline = if running > 0 { Instant::now() + longest } else { since + longest };
            if running == 0 && deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set_running(|running| running.saturating_sub(1));
    }
}
