//! The listener: accepts connections, applies their limits, and drains them at shutdown.

mod activity;
mod large_heads;
pub(in crate::gateway) mod line_ends;
mod protocols;
mod proxy_protocol;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::activity::{Activity, Silence};
use self::large_heads::{LargeHeads, Sizes};
use self::line_ends::{BareLineFeed, Head, Heads, Inspected};
use self::protocols::builder;
use self::proxy_protocol::ProxyHeaderError;
use crate::gateway::listener::limits::Limits;
use crate::gateway::listener::peers::{Peers, Permit};
use crate::gateway::listener::rate_limits::RateLimits;
use crate::gateway::{Certificates, Gateway};

/// Pause after the operating system failed to hand over a connection. The process is then out of file descriptors, and an
/// immediate retry would only use the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time after the begin of shutdown in which a new connection may send its first request. Its client cannot know whether a request
/// was carried out whose connection is closed.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// Makes browsers use TLS only, for a year (RFC 6797). Sent if the gateway itself does TLS; otherwise the proxy before it
/// decides. Without `includeSubDomains`, because other hosts of the domain need not have TLS.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// All running requests were answered.
    Complete,
    /// Connections were closed at the deadline.
    Cut,
}

/// State that all connections of a listener share.
struct Listener {
    gateway: Arc<Gateway>,
    limits: Limits,
    rates: RateLimits,
    peers: Peers,
    tls: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
    /// True while no further connection can be accepted.
    pressure: watch::Sender<bool>,
    /// True once the log says so.
    is_limit_logged: AtomicBool,
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
    let shared = Arc::new(Listener {
        gateway,
        limits,
        rates,
        peers,
        tls,
        shutdown: shutdown.clone(),
        pressure: watch::Sender::new(false),
        is_limit_logged: AtomicBool::new(false),
    });
    let (tracker, cut) = (TaskTracker::new(), CancellationToken::new());
    let serve = |Accepted { stream, peer, permit }| {
        let Some(client) = Client::of(peer, &shared.peers) else {
            return tracing::debug!(%peer, "connection closed: its network has too many");
        };
        let (shared, cut) = (Arc::clone(&shared), cut.clone());
        tracker.spawn(async move {
            cut.run_until_cancelled(shared.handshake(stream, client)).await;
            drop(permit);
        });
    };
    while let Some(accepted) = accept(&listener, &permits, &shared).await {
        serve(accepted);
    }
    waiting(listener, &permits).into_iter().for_each(serve);
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

/// The other end of a connection, with its permit.
struct Client {
    address: IpAddr,
    permit: Permit,
}

impl Client {
    fn of(address: IpAddr, peers: &Peers) -> Option<Self> {
        Some(Self { address, permit: peers.take(address)? })
    }
}

/// Waits for a permit, then for a connection. Returns `None` once shutdown began.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>, shared: &Listener) -> Option<Accepted> {
    let next = async {
        let is_full = permits.available_permits() == 0;
        shared.set_pressure(is_full);
        if is_full && !shared.is_limit_logged.swap(true, Ordering::Relaxed) {
            let connections = shared.limits.connections;
            tracing::warn!(connections, "all connections that the gateway may hold are open; further ones wait");
        }
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        shared.set_pressure(false);
        let mut is_reported = false;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some(Accepted { stream, peer: peer.ip(), permit }),
                Err(error) => {
                    if !std::mem::replace(&mut is_reported, true) {
                        tracing::warn!(%error, "no connection accepted; trying again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shared.shutdown.run_until_cancelled(next).await.flatten()
}

/// Closes the listener. Returns the connections that the operating system has accepted for it, which would otherwise be reset
/// although their clients may have sent a request.
fn waiting(listener: TcpListener, permits: &Arc<Semaphore>) -> Vec<Accepted> {
    let mut waiting = Vec::new();
    let Ok(listener) = listener.into_std() else { return waiting };
    while let Ok(permit) = Arc::clone(permits).try_acquire_owned()
        // The listener does not block: without a waiting connection this fails.
        && let Ok((stream, peer)) = listener.accept()
    {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        waiting.extend(stream.map(|stream| Accepted { stream, peer: peer.ip(), permit }));
    }
    waiting
}

impl Listener {
    /// Returns some time after shutdown began: time for a connection that is new then to send its first request.
    async fn closes_new_connections(&self) {
        self.shutdown.cancelled().await;
        tokio::time::sleep(FIRST_REQUEST).await;
    }

    /// Wakes all connections, so only on a change.
    fn set_pressure(&self, pressure: bool) {
        self.pressure.send_if_modified(|current| std::mem::replace(current, pressure) != pressure);
    }

    /// Reads the header of the PROXY protocol if the peer sends one, makes the TLS handshake, if any, and serves the connection.
    /// Both count as a part of the first request's head.
    async fn handshake(self: Arc<Self>, mut stream: TcpStream, peer: Client) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let (began, address) = (Instant::now(), peer.address);
        if !self.limits.proxy_protocol || !self.peers.is_trusted(address) {
            return self.handshake_tls(stream, peer, began).await;
        }
        let read = tokio::time::timeout(self.limits.header_timeout, proxy_protocol::read(&mut stream));
        let read = tokio::select! {
            read = read => read,
            () = self.closes_new_connections() => return,
        };
        let client = match read {
            Ok(Ok(client)) => client.unwrap_or(address),
            // A check whether the port is open, as many balancers make every few seconds.
            Ok(Err(ProxyHeaderError::Io(error))) => {
                return tracing::debug!(peer = %address, %error, "connection ended before its PROXY header");
            }
            Ok(Err(error @ (ProxyHeaderError::Missing | ProxyHeaderError::Invalid))) => {
                return tracing::warn!(peer = %address, %error, "connection closed: no PROXY protocol");
            }
            Err(_) => {
                return tracing::debug!(peer = %address, "connection closed: the PROXY header took too long");
            }
        };
        let Some(client) = Client::of(client, &self.peers) else {
            return tracing::debug!(peer = %client, "connection closed: its network has too many");
        };
        self.handshake_tls(stream, client, began).await;
    }

    async fn handshake_tls(self: &Arc<Self>, stream: TcpStream, peer: Client, began: Instant) {
        let Some(tls) = &self.tls else { return self.serve(stream, peer, began).await };
        let handshake = TlsAcceptor::from(tls.current()).accept(stream);
        // A PROXY header has taken a part of the time.
        let time_left = self.limits.header_timeout.saturating_sub(began.elapsed());
        let made = tokio::select! {
            made = tokio::time::timeout(time_left, handshake) => made,
            () = self.closes_new_connections() => return,
        };
        match made {
            Ok(Ok(stream)) => self.serve(stream, peer, began).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }

    /// Serves one connection that began at that time. In addition to hyper's own limits, closes it after too long a time
    /// without a running request: a slow first byte, a slow head, half an HTTP/2 preface or pings do not keep it open.
    async fn serve<S>(self: &Arc<Self>, stream: S, client: Client, began: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Client { address: peer, permit } = client;
        let activity = Arc::new(Activity::new());
        let (watched, shared) = (Arc::clone(&activity), Arc::clone(self));
        let builder = builder(&self.limits);
        let heads = Arc::new(Heads::new());
        let stream = Inspected::new(stream, Sizes::of(&self.limits), Arc::clone(&heads), Arc::clone(&activity));
        let stream = LargeHeads::new(stream, Arc::clone(&heads), peer);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let is_http1 = request.version() < Version::HTTP_2;
            let (shared, running) = (Arc::clone(&shared), Activity::begin(&activity, request.version()));
            let head = is_http1.then(|| heads.take_next());
            if head.is_some_and(|head| head.has_bare_line_feed) {
                request.extensions_mut().insert(BareLineFeed);
            }
            let is_last = head.is_some_and(Head::ends_connection) || is_http1 && !request.body().is_end_stream();
            let heads = Arc::clone(&heads);
            async move {
                let Listener { gateway, limits, rates, tls, .. } = &*shared;
                let mut reply = gateway.answer(request, peer, limits, rates).await;
                if tls.is_some() {
                    reply.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
                }
                if is_last {
                    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                heads.set_is_answering(true);
                drop(running);
                Ok::<_, Infallible>(reply)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended.err()),
            () = self.shutdown.cancelled() => {}
            silence = watched.silent(began, &self.limits, [self.pressure.subscribe(), permit.is_crowded()]) => if silence == Silence::SlowHead {
                return tracing::debug!("connection closed: a request's head took too long");
            },
        }
        if self.shutdown.is_cancelled() {
            tokio::select! {
                ended = connection.as_mut() => return log_end(ended.err()),
                () = watched.begun_within(FIRST_REQUEST) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => log_end(ended.err()),
            () = watched.idle_for(self.limits.header_timeout) => {}
        }
    }
}

fn log_end(error: Option<Box<dyn std::error::Error + Send + Sync>>) {
    if let Some(error) = error {
        tracing::debug!(%error, "connection ended");
    }
}
