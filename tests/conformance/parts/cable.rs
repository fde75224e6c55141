//! A TCP connection to the bus that a test can cut.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards connections to a server until it is dropped.
pub(crate) struct Cable {
    /// The URL to connect to in place of the server's.
    pub(crate) url: String,
    is_cut: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Cable {
    pub(crate) async fn to(url: &str) -> Self {
        let server: Arc<str> = url.trim_start_matches("nats://").into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("nats://{}", listener.local_addr().expect("it listens"));
        let (is_cut, cut) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, Arc::clone(&server), cut.clone()));
            }
        });
        Self { url, is_cut, _tasks: tasks }
    }

    /// Ends all connections. New ones end at once.
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Forwards new connections again.
    pub(crate) fn join(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn forward(mut client: TcpStream, server: Arc<str>, mut cut: watch::Receiver<bool>) {
    let copy = async {
        // The server may be away. The client then sees its connection end, too.
        if let Ok(mut server) = TcpStream::connect(&*server).await {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|is_cut| *is_cut) => {}
        () = copy => {}
    }
}
