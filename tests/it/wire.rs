//! The NATS protocol by hand, for requests that a client library would not send.

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::support::nats::Nats;

/// A connection as one of the users.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) async fn connect(nats: &Nats, user: &str) -> Self {
        let stream = TcpStream::connect(nats.url.trim_start_matches("nats://")).await.expect("the server listens");
        let mut wire = Self(BufReader::new(stream));
        let options = json!({
            "user": user, "pass": nats.password(user), "verbose": false, "pedantic": false, "headers": true,
            "no_responders": true, "lang": "test", "version": "0", "protocol": 1,
        });
        let output = wire.send_text(&format!("CONNECT {options}\r\n")).await;
        assert!(!output.iter().any(|line| line.starts_with("-ERR")), "{output:?}");
        wire
    }

    /// Sends a text and returns the server's output up to its PONG.
    pub(crate) async fn send_text(&mut self, text: &str) -> Vec<String> {
        self.send_bytes(text.as_bytes()).await
    }

    /// Like `send_text`, for bytes.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.write_all(&[bytes, b"PING\r\n"].concat()).await.expect("the server reads");
        let mut output = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).await.expect("the server writes text");
            assert!(read > 0, "the server hung up after {output:?}");
            if line.trim_end() == "PONG" {
                return output;
            }
            output.push(line.trim_end().to_owned());
        }
    }

    /// Returns true if the server lets this user publish on the subject.
    pub(crate) async fn may_publish(&mut self, subject: &str) -> bool {
        self.is_permitted(&format!("PUB {subject} 0\r\n\r\n")).await
    }

    /// Returns true if the server lets this user subscribe to the subject.
    pub(crate) async fn may_subscribe(&mut self, subject: &str) -> bool {
        let is_permitted = self.is_permitted(&format!("SUB {subject} 9\r\n")).await;
        self.send_text("UNSUB 9\r\n").await;
        is_permitted
    }

    /// Sends a request. Returns the server's refusals, and true if an answer arrived.
    pub(crate) async fn request_on(&mut self, subject: &str, payload: &str, reply: &str) -> (Option<String>, bool) {
        let output =
            self.send_text(&format!("SUB {reply} 8\r\nPUB {subject} {reply} {}\r\n{payload}\r\n", payload.len())).await;
        let more = self.send_text("UNSUB 8\r\n").await;
        let all: Vec<String> = output.into_iter().chain(more).collect();
        let refused = all.iter().find(|line| line.starts_with("-ERR 'Permissions Violation")).cloned();
        (refused, all.iter().any(|line| line.starts_with("MSG ") || line.starts_with("HMSG ")))
    }

    async fn is_permitted(&mut self, text: &str) -> bool {
        let output = self.send_text(text).await;
        !output.iter().any(|line| line.starts_with("-ERR 'Permissions Violation"))
    }
}
