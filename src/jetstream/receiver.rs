//! Receives messages that anyone may have published.
//!
//! async-nats 0.51 panics at some headers, such as a lone carriage return, and ends the connection at others and at subjects
//! that are not UTF-8. A publisher can send them all. So this connection receives what others may publish, and nothing in a
//! message can end it; answers go out on the ordinary connection.
//!
//! - A receiver of calls declares `"headers": false`, which the client library cannot declare. The server then strips the
//!   headers from what it delivers.
//! - A receiver of commands ([`Receiver::for_requests`]) gets headers as the bytes that the publisher wrote, and sends the
//!   requests for commands itself.
//!
//! Delivery is at most once. [`Receiver::run`] reconnects, and at its end hands over all messages that the server had sent.

mod login;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_nats::ServerAddr;
use futures_util::{FutureExt as _, SinkExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::login::{Connection, Modes, ReceiveError, connect, next};
use self::wire::Op;
pub(crate) use self::wire::Received;
use super::Nats;
use super::client::{CONNECTION_TIMEOUT, PING_INTERVAL};
use super::connect::{ConnectError, Transport, reconnect_delay, servers, transport};
use crate::{config, system};

/// Unanswered pings after which the connection counts as dead.
const MAX_SILENT_PINGS: u32 = 2;
/// Longest wait for the messages that the server sent before it read the end of the subscriptions.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages to read without a look at anything else. A flood has to be read fast: other callers' messages are among it.
const MOST_AT_ONCE: usize = 256;

/// A subject to receive, and the group of receivers of which one gets each message.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// For a receiver that sends requests the prefix of an inbox: see [`Connected`].
    pub(crate) subject: String,
    pub(crate) queue: Option<&'static str>,
}

/// A connection that only receives.
pub(crate) struct Receiver {
    settings: config::Nats,
    name: String,
    servers: Vec<ServerAddr>,
    transport: Transport,
    subscriptions: Vec<Subscription>,
    /// Changes when the credentials were renewed.
    renewals: watch::Receiver<u64>,
    /// None for a connection that only subscribes.
    requests: Option<Requests>,
}

/// The receiver's end of a [`Link`].
struct Requests {
    lines: mpsc::UnboundedReceiver<String>,
    connected: watch::Sender<Option<Connected>>,
}

/// A connection of a receiver that sends requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    /// Id of the server.
    pub(crate) server_id: Arc<str>,
    /// The connection receives answers under `<prefix>.<inbox>.*`. With the same inbox, a connection would receive answers to requests
    /// of the one before, which wait for none.
    pub(crate) inbox: Arc<str>,
}

/// Sends requests on a receiver's connection, so that the server knows the subscription for the answer before the request.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    lines: mpsc::UnboundedSender<String>,
    connected: watch::Receiver<Option<Connected>>,
}

impl Link {
    /// Sends lines of the protocol. They are dropped while the receiver is not connected.
    pub(crate) fn send(&self, lines: String) {
        // The receiver has ended: so has its connection.
        let _ = self.lines.send(lines);
    }

    /// Waits until the receiver is connected and the server knows its subscriptions. Returns nothing after [`CONNECTION_TIMEOUT`].
    pub(crate) async fn connected(&mut self) -> Option<Connected> {
        let connected = self.connected.wait_for(Option::is_some);
        let connected = tokio::time::timeout(CONNECTION_TIMEOUT, connected).await.ok()?.ok()?;
        connected.clone()
    }

    /// Waits until this connection is not the receiver's any more. Returns true if the receiver has another one.
    pub(crate) async fn ended(&mut self, connection: &Connected) -> bool {
        let other = self.connected.wait_for(|connected| connected.as_ref() != Some(connection)).await;
        // An error means that the receiver has ended.
        other.is_ok_and(|connected| connected.is_some())
    }
}

/// The end of a connection.
enum Ended {
    Stopped,
    /// The server is shutting down and has handed over all messages.
    ShuttingDown,
    /// The credentials were renewed, and the server has handed over all messages.
    Renewed,
}

impl Receiver {
    /// # Errors
    /// If an address in the settings cannot be read, or needs TLS.
    pub(crate) fn new(
        nats: &Nats,
        settings: &config::Nats,
        name: &str,
        subscriptions: Vec<Subscription>,
    ) -> Result<Self, ConnectError> {
        let servers = servers(settings)?;
        let transport = transport(settings, &servers)?;
        let servers = servers.iter().map(|server| server.parse()).collect::<Result<Vec<_>, _>>();
        let servers = servers.map_err(|source| ConnectError::Address { url: settings.url.clone(), source })?;
        let (settings, name) = (settings.clone(), name.to_owned());
        let renewals = nats.renewal.subscribe();
        Ok(Self { settings, name, servers, transport, subscriptions, renewals, requests: None })
    }

    /// A receiver that gets headers, and sends requests.
    ///
    /// # Errors
    /// As [`Receiver::new`].
    pub(crate) fn for_requests(
        nats: &Nats,
        settings: &config::Nats,
        name: &str,
        subscriptions: Vec<Subscription>,
    ) -> Result<(Self, Link), ConnectError> {
        let ((sender, lines), (report, connected)) = (mpsc::unbounded_channel(), watch::channel(None));
        let mut receiver = Self::new(nats, settings, name, subscriptions)?;
        receiver.requests = Some(Requests { lines, connected: report });
        Ok((receiver, Link { lines: sender, connected }))
    }

    /// Calls `handle` with each message until `stop`. While `handle` runs no other message is read.
    pub(crate) async fn run(mut self, mut handle: impl FnMut(Received), stop: CancellationToken) {
        let mut tries = 0;
        loop {
            let began = Instant::now();
            let ended = self.receive(tries, &mut handle, &stop).await;
            if matches!(ended, Ok(Ended::Renewed)) {
                // The link goes from this connection to the next one. Requests meanwhile are dropped, and made again on that one.
                tries = 0;
                continue;
            }
            self.report_connected(None);
            match ended {
                // The loop has gone on after a renewal.
                Ok(Ended::Stopped | Ended::Renewed) => return,
                Ok(Ended::ShuttingDown) => info!("{}: the NATS server is shutting down; reconnecting", self.name),
                Err(error) if tries == 0 || tries.is_power_of_two() => {
                    warn!("{}: no connection: {error}; trying again", self.name);
                }
                Err(error) => debug!("{}: no connection: {error}", self.name),
            }
            tries = if began.elapsed() > CONNECTION_TIMEOUT { 0 } else { tries + 1 };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(reconnect_delay(tries)) => {}
            }
        }
    }

    /// Connects and receives until the connection ends.
    async fn receive(
        &mut self,
        tries: usize,
        handle: &mut impl FnMut(Received),
        stop: &CancellationToken,
    ) -> Result<Ended, ReceiveError> {
        // A random start spreads workers over the servers; each further try takes the next one.
        let start = usize::from(u16::from_be_bytes(system::random()));
        let server = self.servers.get((start + tries) % self.servers.len()).ok_or(ReceiveError::Closed)?.clone();
        let tls_required = self.transport == Transport::Tls || server.tls_required();
        let modes = Modes { tls_required, headers: self.requests.is_some() };
        // A later renewal ends this connection.
        self.renewals.mark_unchanged();
        let connecting = connect(&self.settings, &self.name, &server, modes);
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(Ended::Stopped),
            connected = tokio::time::timeout(CONNECTION_TIMEOUT, connecting) => connected,
        };
        // An elapsed timeout has no cause.
        let (info, mut connection) = connected.map_err(|_elapsed| ReceiveError::Silent)??;
        self.learn_servers(&info.connect_urls);
        let this = Connected { server_id: info.server_id.as_str().into(), inbox: system::random_id().into() };
        let answers = if self.requests.is_some() { format!(".{}.*", this.inbox) } else { String::new() };
        let subscribe = |(number, subscription): (usize, &Subscription)| {
            let Subscription { subject, queue } = subscription;
            format!("SUB {subject}{answers} {} {number}\r\n", queue.unwrap_or_default())
        };
        let lines: Vec<String> = self.subscriptions.iter().enumerate().map(subscribe).collect();
        connection.send(lines.concat().as_bytes()).await?;
        let (mut silent, mut ping) = (0, tokio::time::interval(PING_INTERVAL));
        let (mut at_once, mut is_reported) = (0, false);
        loop {
            let arrived = if at_once < MOST_AT_ONCE { next(&mut connection).now_or_never() } else { None };
            at_once = if arrived.is_some() { at_once + 1 } else { 0 };
            let op = if let Some(op) = arrived {
                op?
            } else {
                tokio::select! {
                    () = stop.cancelled() => break,
                    Ok(()) = self.renewals.changed() => {
                        self.drain(&mut connection, silent, handle).await?;
                        return Ok(Ended::Renewed);
                    }
                    op = next(&mut connection) => op?,
                    // Those that wait until then were meant for an earlier connection.
                    Some(lines) = next_request(&mut self.requests), if is_reported => {
                        connection.send(lines.as_bytes()).await?;
                        continue;
                    }
                    _ = ping.tick() => {
                        if silent == MAX_SILENT_PINGS {
                            return Err(ReceiveError::Silent);
                        }
                        silent += 1;
                        connection.send(&b"PING\r\n"[..]).await?;
                        continue;
                    }
                }
            };
            match op {
                Op::Message(message) => handle(message),
                Op::Ping => connection.send(&b"PONG\r\n"[..]).await?,
                Op::Pong => {
                    (silent, is_reported) = (0, true);
                    self.report_connected(Some(&this));
                }
                Op::Info(info) => {
                    self.learn_servers(&info.connect_urls);
                    if info.lame_duck_mode {
                        self.drain(&mut connection, silent, handle).await?;
                        return Ok(Ended::ShuttingDown);
                    }
                }
                Op::Error(text) => error!("{}: NATS: {text}", self.name),
            }
        }
        self.drain(&mut connection, silent, handle).await?;
        Ok(Ended::Stopped)
    }

    /// Ends the subscriptions and hands over what the server has sent until then. `silent` pings are unanswered.
    async fn drain(
        &self,
        connection: &mut Connection,
        silent: u32,
        handle: &mut impl FnMut(Received),
    ) -> Result<(), ReceiveError> {
        let ends = (0..self.subscriptions.len()).map(|number| format!("UNSUB {number}\r\n"));
        let lines: Vec<String> = ends.chain(["PING\r\n".to_owned()]).collect();
        connection.send(lines.concat().as_bytes()).await?;
        let rest = async {
            let mut unanswered = silent + 1;
            while unanswered > 0 {
                match next(connection).await? {
                    Op::Message(message) => handle(message),
                    Op::Pong => unanswered -= 1,
                    Op::Info(_) | Op::Ping | Op::Error(_) => {}
                }
            }
            Ok(())
        };
        tokio::time::timeout(DRAIN_TIMEOUT, rest).await.unwrap_or(Err(ReceiveError::Silent))
    }

    /// Tells the [`Link`]. Requests of an earlier connection are dropped: their senders no longer wait.
    fn report_connected(&mut self, connection: Option<&Connected>) {
        let Some(requests) = &mut self.requests else { return };
        if requests.connected.borrow().as_ref() != connection {
            while requests.lines.try_recv().is_ok() {}
            requests.connected.send_replace(connection.cloned());
        }
    }

    /// Adds servers of the cluster that the settings do not name.
    fn learn_servers(&mut self, urls: &[String]) {
        if self.transport == Transport::Listed {
            return;
        }
        for server in urls.iter().filter_map(|url| url.parse().ok()) {
            if !self.servers.contains(&server) {
                self.servers.push(server);
            }
        }
    }
}

/// The next lines to send.
async fn next_request(requests: &mut Option<Requests>) -> Option<String> {
    match requests {
        Some(requests) => requests.lines.recv().await,
        None => std::future::pending().await,
    }
}
