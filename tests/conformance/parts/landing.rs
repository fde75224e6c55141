//! A page of the suite: the target of redirects in tests without tokenbus, and an application that opens logins.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Keeps the messages that it receives. Its class `scripts` shows that scripts run.
const PAGE: &str = "<!doctype html><title>An application</title><script>\
    document.documentElement.className = 'scripts';\
    const heard = []; onmessage = ({ origin, data }) => heard.push({ origin, data })</script>";

/// Answers every request with the same small page, until dropped.
pub(crate) struct Landing {
    /// Its origin.
    pub(crate) origin: String,
    /// The URL of the page.
    pub(crate) url: String,
    _tasks: JoinSet<()>,
}

impl Landing {
    /// Listens on a loopback port of its own.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut answers = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                answers.spawn(answer(stream));
            }
        });
        Self { url: format!("{origin}/callback"), origin, _tasks: tasks }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut request = [0; 8192];
    // A browser opens connections that it may never use; every request gets the same answer.
    if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
        let head = format!("Content-Type: text/html\r\nContent-Length: {}\r\nConnection: close", PAGE.len());
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{PAGE}").as_bytes()).await;
    }
}
