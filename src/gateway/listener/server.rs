//! The listener: takes connections in, bounds everything about them, and drains on shutdown.

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
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::listener::peers::Peers;
use crate::gateway::listener::rate_limits::Gate;
use crate::gateway::{Certificates, Gateway, Rate};

/// Pause after the operating system refused to hand over a connection: it is out of descriptors,
/// and asking again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where we do TLS ourselves, browsers are to come back with TLS only (RFC 6797), for a year. Behind a proxy that does it
/// this is the proxy's to say; of other names of the domain we know nothing.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// How much of everything the edge takes.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Connections open at once; further ones wait in the listener's backlog.
    pub connections: usize,
    /// Of these, connections of one address that is no trusted proxy's; further ones are closed at once. 0: no limit.
    pub connections_per_address: usize,
    /// Time for a request's head to arrive, counted from the connection's beginning as well, TLS handshake included.
    pub header_timeout: Duration,
    /// Time that a connection may stay open without a request in flight.
    pub idle_timeout: Duration,
    /// Time for a body to arrive.
    pub body_timeout: Duration,
    /// Time for the whole answer; longer than the bus's own deadline.
    pub request_timeout: Duration,
    /// Bytes of all headers together.
    pub headers: usize,
    /// Bytes of path and query.
    pub uri: usize,
    /// Bytes of a body.
    pub body: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Requests of one client address.
    pub address_rate: Rate,
    /// Requests with one credential.
    pub credential_rate: Rate,
    /// Peers whose word about a client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Time for requests in flight to end after shutdown began.
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

/// How the listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// All requests in flight were answered.
    Complete,
    /// Some were cut off at the deadline.
    Cut,
}

/// Whether requests are in flight on a connection, and since when not.
#[derive(Debug)]
struct Activity(Mutex<(usize, Instant)>);

/// A request in flight until it is dropped.
struct Busy(Arc<Activity>);

/// What the connections of a listener share.
struct Listener {
    gateway: Arc<Gateway>,
    limits: Limits,
    gate: Gate,
    tls: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
}

/// Serves until shutdown, with TLS where there is a certificate, then lets what is in flight end within the limit.
pub(crate) async fn run(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    limits: Limits,
    tls: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
) -> Drain {
    let (permits, drain) = (Arc::new(Semaphore::new(limits.connections)), limits.drain);
    let gate = Gate::new(limits.trusted_proxies.clone(), limits.address_rate, limits.credential_rate);
    let peers = Peers::new(limits.connections_per_address, limits.trusted_proxies.clone());
    let shared = Arc::new(Listener { gateway, limits, gate, tls, shutdown: shutdown.clone() });
    let (tracker, cut) = (TaskTracker::new(), CancellationToken::new());
    while let Some((stream, peer, permit)) = accept(&listener, &permits, &shutdown).await {
        let Some(place) = peers.take(peer) else {
            tracing::debug!(%peer, "a connection too many of this address");
            continue;
        };
        let (shared, cut) = (Arc::clone(&shared), cut.clone());
        tracker.spawn(async move {
            cut.run_until_cancelled(shared.take(stream, peer)).await;
            drop((place, permit));
        });
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(drain, tracker.wait()).await.is_ok() {
        return Drain::Complete;
    }
    tracing::warn!(connections = tracker.len(), "connections cut at the end of the drain");
    cut.cancel();
    tracker.wait().await;
    Drain::Cut
}

type Accepted = (TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, taken only when there is room for it; none once shutdown began.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>, shutdown: &CancellationToken) -> Option<Accepted> {
    let next = async {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer.ip(), permit)),
                Err(error) => {
                    tracing::warn!(%error, "no connection accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(next).await.flatten()
}

impl Listener {
    /// Takes one connection in: the handshake, where there is one, counts as a part of the first request's head.
    async fn take(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
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
            Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    /// Serves one connection. Beside hyper's own limits it is closed when no request is in flight for too long:
    /// neither a slow first byte, nor half an HTTP/2 preface, nor pings keep it open.
    async fn serve<S>(self: &Arc<Self>, stream: S, peer: IpAddr, activity: Arc<Activity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (idle, shared) = (Arc::clone(&activity), Arc::clone(self));
        let builder = builder(&self.limits);
        let service = service_fn(move |request: Request<Incoming>| {
            let (shared, busy) = (Arc::clone(&shared), Activity::begin(&activity));
            async move {
                let Listener { gateway, limits, gate, tls, .. } = &*shared;
                let mut reply = gateway.answer(request, peer, limits, gate).await;
                if tls.is_some() {
                    reply.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
                }
                drop(busy);
                Ok::<_, Infallible>(reply)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended.err()),
            () = self.shutdown.cancelled() => {}
            () = idle.ended(&self.limits) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => log_end(ended.err()),
            () = idle.ended(&self.limits) => {}
        }
    }
}

fn log_end(error: Option<Box<dyn std::error::Error + Send + Sync>>) {
    if let Some(error) = error {
        tracing::debug!(%error, "connection ended");
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        // Room for a head at both limits, so that one above them gets our own answer.
        .max_buf_size((limits.uri + limits.headers + 4096).max(8192))
        .half_close(false)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.uri + limits.headers + 4096).unwrap_or(u32::MAX))
        // A body is at most 64 KiB, so a window of that size costs nothing and bounds the memory.
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(262_144)
        .max_send_buf_size(256 * 1024)
        // Against rapid resets (CVE-2023-44487).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn with<T>(&self, change: impl FnOnce(&mut (usize, Instant)) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(this: &Arc<Self>) -> Busy {
        this.with(|(requests, since)| {
            *requests += 1;
            *since = Instant::now();
        });
        Busy(Arc::clone(this))
    }

    /// Returns when no request has been in flight for the limit.
    async fn ended(&self, limits: &Limits) {
        let began = self.with(|(_, since)| *since);
        loop {
            let (requests, since) = self.with(|now| *now);
            let longest = if since == began { limits.header_timeout } else { limits.idle_timeout };
            let deadline = if requests > 0 { Instant::now() + longest } else { since + longest };
            if requests == 0 && deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.with(|(requests, since)| {
            *requests = requests.saturating_sub(1);
            *since = Instant::now();
        });
    }
}
