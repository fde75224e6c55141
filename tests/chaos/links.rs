//! The links between processes and servers: a TCP proxy for each, which may be cut.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Most bytes that are forwarded at once.
const CHUNK: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Whole,
    /// Connections end, and new ones end at once.
    Closed,
    /// Nothing passes, and both ends keep their connections.
    Silent,
    /// Nothing reaches the server.
    ToServer,
    /// Nothing reaches the process.
    ToProcess,
}

impl Cut {
    fn lets_through(self, direction: Self) -> bool {
        self != Self::Silent && self != direction
    }
}

/// Links of one process, one for each server; they end when dropped.
pub(crate) struct Links {
    /// The servers' addresses for the process.
    pub(crate) urls: String,
    state: watch::Sender<Cut>,
    _tasks: JoinSet<()>,
}

impl Links {
    /// Links to the servers at these addresses, with commas between them.
    pub(crate) async fn to(servers: &str) -> Self {
        let (state, watched) = watch::channel(Cut::Whole);
        let (mut tasks, mut urls) = (JoinSet::new(), Vec::new());
        for server in servers.split(',') {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            urls.push(format!("nats://{}", listener.local_addr().expect("a listener has an address")));
            let server = server.trim_start_matches("nats://").into();
            tasks.spawn(accept(listener, server, watched.clone()));
        }
        Self { urls: urls.join(","), state, _tasks: tasks }
    }

    pub(crate) fn set(&self, cut: Cut) {
        self.state.send_replace(cut);
    }
}

async fn accept(listener: TcpListener, server: Arc<str>, state: watch::Receiver<Cut>) {
    let mut relays = JoinSet::new();
    while let Ok((process, _)) = listener.accept().await {
        while relays.try_join_next().is_some() {}
        if *state.borrow() != Cut::Closed {
            relays.spawn(relay(process, Arc::clone(&server), state.clone()));
        }
    }
}

/// Forwards both directions until one of them ends.
async fn relay(process: TcpStream, server: Arc<str>, state: watch::Receiver<Cut>) {
    let Ok(server) = TcpStream::connect(&*server).await else { return };
    let ((from_process, to_process), (from_server, to_server)) = (process.into_split(), server.into_split());
    tokio::select! {
        () = forward(from_process, to_server, state.clone(), Cut::ToServer) => {}
        () = forward(from_server, to_process, state, Cut::ToProcess) => {}
    }
}

/// Forwards one direction. Bytes that arrive during a cut wait for its end, as in a network that loses packets for a while.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Cut>, direction: Cut) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            read = from.read(&mut chunk) => read.unwrap_or_default(),
            () = closed(state.clone()) => return,
        };
        if read == 0 || state.wait_for(|cut| *cut == Cut::Closed || cut.lets_through(direction)).await.is_err() {
            return;
        }
        if *state.borrow() == Cut::Closed || to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}

async fn closed(mut state: watch::Receiver<Cut>) {
    // An error means that the links have ended.
    let _ = state.wait_for(|cut| *cut == Cut::Closed).await;
}
