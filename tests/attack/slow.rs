//! A slow server: a proxy before nats-server that holds acks back.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// Start of the payload of JetStream's ack of a stored message.
const ACK: &[u8] = b"{\"stream\":";
/// Payload of JetStream's confirmation of a command's ack, with the line's end.
const CONFIRMATION: &[u8] = b"\r\n";
/// Milliseconds for which an ack is held back.
const HOLD: RangeInclusive<u64> = 50..=500;

/// The proxy; ends when dropped.
pub(crate) struct Slow {
    /// Its address for clients.
    pub(crate) url: String,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    holds: AtomicBool,
    held: AtomicUsize,
}

impl Slow {
    /// A proxy before the server at that URL. It holds nothing back yet.
    pub(crate) async fn before(url: &str) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("nats://{}", listener.local_addr().expect("a listener has an address"));
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&state)));
        Self { url, state, _tasks: tasks }
    }

    /// Begins or ends the holding back.
    pub(crate) fn hold(&self, holds: bool) {
        self.state.holds.store(holds, Ordering::Relaxed);
    }

    /// Number of acks held back so far.
    pub(crate) fn held(&self) -> usize {
        self.state.held.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, server: String, state: Arc<State>) {
    let mut relays = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // A client may still connect when the server has ended.
        let Ok(server) = TcpStream::connect(&server).await else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("a socket has this option");
        }
        relays.spawn(relay(client, server, Arc::clone(&state)));
    }
}

async fn relay(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (sender, mut receiver) = unbounded_channel::<Vec<u8>>();
    let write = async {
        while let Some(bytes) = receiver.recv().await {
            if to_client.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = deliver(BufReader::new(from_server), &sender, &state) => {}
        () = write => {}
    }
}

/// Passes on the server's output, one protocol message at a time. Other messages overtake an ack that is held back.
async fn deliver(mut server: BufReader<impl AsyncRead + Unpin>, sender: &UnboundedSender<Vec<u8>>, state: &State) {
    let mut late = JoinSet::new();
    while let Some((message, head)) = next(&mut server).await {
        while late.try_join_next().is_some() {}
        let is_message = message.starts_with(b"MSG ");
        let is_ack = is_message && (message[head..].starts_with(ACK) || message[head..] == *CONFIRMATION);
        if state.holds.load(Ordering::Relaxed) && is_ack {
            state.held.fetch_add(1, Ordering::Relaxed);
            let (sender, hold) = (sender.clone(), rand::rng().random_range(HOLD));
            late.spawn(async move {
                tokio::time::sleep(Duration::from_millis(hold)).await;
                // The client may have left meanwhile.
                let _ = sender.send(message);
            });
        } else if sender.send(message).is_err() {
            return;
        }
    }
}

/// The server's next protocol message, and the length of its first line.
async fn next(server: &mut BufReader<impl AsyncRead + Unpin>) -> Option<(Vec<u8>, usize)> {
    let mut message = Vec::new();
    let head = server.read_until(b'\n', &mut message).await.ok().filter(|read| *read > 0)?;
    if message.starts_with(b"MSG ") || message.starts_with(b"HMSG ") {
        let line = String::from_utf8_lossy(&message);
        let size: usize = line.split_whitespace().last()?.parse().expect("the line ends with a size");
        message.resize(head + size + b"\r\n".len(), 0);
        server.read_exact(&mut message[head..]).await.ok()?;
    }
    Some((message, head))
}
