//! A page for the browser to land on where a test has no tokenbus.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Answers every request with the same small page, until dropped.
pub(crate) struct Landing {
    /// The URL of the page.
    pub(crate) url: String,
    _tasks: JoinSet<()>,
}

impl Landing {
    /// Listens on a loopback port of its own.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/callback", listener.local_addr().expect("a listener has an address"));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut answers = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                answers.spawn(answer(stream));
            }
        });
        Self { url, _tasks: tasks }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut request = [0; 8192];
    // A browser opens connections that it may never use; whatever it sends, the answer is the same.
    if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\nlanded";
        let _ = stream.write_all(page.as_bytes()).await;
    }
}
