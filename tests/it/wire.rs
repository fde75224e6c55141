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
        let said = wire.say(&format!("CONNECT {options}\r\n")).await;
        assert!(!said.iter().any(|line| line.starts_with("-ERR")), "{said:?}");
        wire
    }

    /// Sends a text and returns the server's output up to its PONG.
    pub(crate) async fn say(&mut self, text: &str) -> Vec<String> {
        self.say_bytes(text.as_bytes()).await
    }

    /// Like `say`, for bytes.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.write_all(&[bytes, b"PING\r\n"].concat()).await.expect("the server reads");
        let mut said = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).await.expect("the server writes text");
            assert!(read > 0, "the server hung up after {said:?}");
            if line.trim_end() == "PONG" {
                return said;
            }
            said.push(line.trim_end().to_owned());
        }
    }

    /// Returns true if the server lets this user publish on the subject.
    pub(crate) async fn may_publish(&mut self, subject: &str) -> bool {
        self.is_fine(&format!("PUB {subject} 0\r\n\r\n")).await
    }

    /// Returns true if the server lets this user subscribe to the subject.
    pub(crate) async fn may_subscribe(&mut self, subject: &str) -> bool {
        let is_fine = self.is_fine(&format!("SUB {subject} 9\r\n")).await;
        self.say("UNSUB 9\r\n").await;
        is_fine
    }

    /// Sends a request. Returns the server's refusals, and true if an answer arrived.
    pub(crate) async fn asks(&mut self, subject: &str, payload: &str, reply: &str) -> (Option<String>, bool) {
        let said =
            self.say(&format!("SUB {reply} 8\r\nPUB {subject} {reply} {}\r\n{payload}\r\n", payload.len())).await;
        let more = self.say("UNSUB 8\r\n").await;
        let all: Vec<String> = said.into_iter().chain(more).collect();
        let refused = all.iter().find(|line| line.starts_with("-ERR 'Permissions Violation")).cloned();
        (refused, all.iter().any(|line| line.starts_with("MSG ") || line.starts_with("HMSG ")))
    }

    async fn is_fine(&mut self, text: &str) -> bool {
        let said = self.say(text).await;
        !said.iter().any(|line| line.starts_with("-ERR 'Permissions Violation"))
    }
}
