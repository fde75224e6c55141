//! The lines that a NATS server sends to a connection that publishes nothing, and the client's answers to them.

use std::io;

use async_nats::ServerInfo;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Longest line in bytes. A server lists all servers of its cluster in one line.
const MAX_LINE: usize = 1024 * 1024;
/// Largest payload in bytes: the largest that a server can be configured for.
const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// A message as the server delivers it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Number of the subscription, in the order of [`Receiver::new`](super::Receiver::new).
    pub(crate) subscription: usize,
    /// Bytes that are not UTF-8 are replaced, so that no subject of ours matches.
    pub(crate) subject: String,
    /// Missing also if it is not UTF-8: no answer could be sent there.
    pub(crate) reply: Option<String>,
    /// The block of headers as its publisher wrote it; empty if there is none, or if the connection receives none.
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

#[derive(Debug)]
pub(super) enum Op {
    Info(Box<ServerInfo>),
    Message(Received),
    Ping,
    Pong,
    /// Text of an error. After most of them the server closes the connection.
    Error(String),
}

/// A message whose payload has not arrived yet.
struct Head {
    subscription: usize,
    subject: String,
    reply: Option<String>,
    /// Bytes of the headers.
    headers: usize,
    /// Bytes of headers and payload.
    bytes: usize,
}

#[derive(Default)]
pub(super) struct Wire {
    head: Option<Head>,
}

impl Decoder for Wire {
    type Item = Op;
    type Error = io::Error;

    fn decode(&mut self, read: &mut BytesMut) -> io::Result<Option<Op>> {
        loop {
            if let Some(head) = self.head.take() {
                if read.len() < head.bytes + 2 {
                    read.reserve(head.bytes + 2 - read.len());
                    self.head = Some(head);
                    return Ok(None);
                }
                let headers = read.split_to(head.headers).freeze();
                let payload = read.split_to(head.bytes - head.headers).freeze();
                read.advance(2);
                let Head { subscription, subject, reply, headers: _, bytes: _ } = head;
                return Ok(Some(Op::Message(Received { subscription, subject, reply, headers, payload })));
            }
            let Some(end) = read.iter().position(|byte| *byte == b'\n') else {
                return if read.len() > MAX_LINE { Err(malformed("a line is too long")) } else { Ok(None) };
            };
            let line = read.split_to(end + 1);
            let line = line.trim_ascii_end();
            let (name, rest) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
            match name {
                b"MSG" => self.head = Some(head(rest, false)?),
                b"HMSG" => self.head = Some(head(rest, true)?),
                b"PING" => return Ok(Some(Op::Ping)),
                b"PONG" => return Ok(Some(Op::Pong)),
                b"INFO" => return Ok(Some(Op::Info(serde_json::from_slice(rest)?))),
                b"-ERR" => return Ok(Some(Op::Error(String::from_utf8_lossy(rest.trim_ascii()).into_owned()))),
                b"+OK" => {}
                _ => return Err(malformed("an unknown line")),
            }
        }
    }
}

impl Encoder<&[u8]> for Wire {
    type Error = io::Error;

    fn encode(&mut self, lines: &[u8], buffer: &mut BytesMut) -> io::Result<()> {
        buffer.extend_from_slice(lines);
        Ok(())
    }
}

/// Parses `<subject> <subscription> [reply] [bytes of the headers] <bytes>`.
fn head(rest: &[u8], has_headers: bool) -> io::Result<Head> {
    let mut parts: Vec<&[u8]> = rest.split(|byte| *byte == b' ').filter(|part| !part.is_empty()).collect();
    let bytes = parts.pop().unwrap_or_default();
    let headers = if has_headers { parts.pop().unwrap_or_default() } else { b"0" };
    let (subject, subscription, reply) = match parts[..] {
        [subject, subscription] => (subject, subscription, None),
        [subject, subscription, reply] => (subject, subscription, Some(reply)),
        _ => return Err(malformed("a message with other fields than expected")),
    };
    let number = |text| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let (Some(subscription), Some(headers), Some(bytes)) = (number(subscription), number(headers), number(bytes))
    else {
        return Err(malformed("a message without its subscription or size"));
    };
    if bytes > MAX_PAYLOAD {
        return Err(malformed("a message that is too large"));
    }
    if headers > bytes {
        return Err(malformed("a message that is shorter than its headers"));
    }
    let reply = reply.and_then(|reply| std::str::from_utf8(reply).ok()).map(str::to_owned);
    Ok(Head { subscription, subject: String::from_utf8_lossy(subject).into_owned(), reply, headers, bytes })
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes the bytes in one piece and byte by byte, and returns the messages.
    fn messages(bytes: &[u8]) -> Vec<Received> {
        let decode_all = |pieces: Vec<&[u8]>| {
            let (mut wire, mut read, mut found) = (Wire::default(), BytesMut::new(), Vec::new());
            for piece in pieces {
                read.extend_from_slice(piece);
                while let Some(op) = wire.decode(&mut read).unwrap() {
                    if let Op::Message(message) = op {
                        found.push(message);
                    }
                }
            }
            assert!(read.is_empty(), "{read:?}");
            found
        };
        let at_once = decode_all(vec![bytes]);
        assert_eq!(at_once, decode_all(bytes.chunks(1).collect()));
        at_once
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: &Received) {
        assert_eq!(messages(bytes).as_slice(), std::slice::from_ref(expected));
    }

    #[test]
    fn h1_messages_of_any_bytes_are_read() {
        let received = |subscription, subject: &str, reply: Option<&str>, payload: &'static [u8]| Received {
            subscription,
            subject: subject.to_owned(),
            reply: reply.map(str::to_owned),
            headers: Bytes::new(),
            payload: Bytes::from_static(payload),
        };
        check(b"MSG a.b 3 0\r\n\r\n", &received(3, "a.b", None, b""));
        check(b"MSG a.b 3 _R_.x 2\r\n{}\r\n", &received(3, "a.b", Some("_R_.x"), b"{}"));
        check(b"MSG  a 0  r  4\r\n\r\nMS\r\n", &received(0, "a", Some("r"), b"\r\nMS"));
        check(b"PING\r\nMSG a 0 1\r\nx\r\n+OK\r\n", &received(0, "a", None, b"x"));
        check(b"MSG a.\xff 0 \xff 1\r\nx\r\n", &received(0, "a.\u{fffd}", None, b"x"));
        check("MSG a.\u{2003}b 0 r 1\r\nx\r\n".as_bytes(), &received(0, "a.\u{2003}b", Some("r"), b"x"));
        let block = b"NATS/1.0\r\nx: a\rb\xff\r\n\r\n";
        let message = [b"HMSG a 3 r 21 23\r\n", &block[..], b"{}\r\n"].concat();
        check(&message, &Received { headers: Bytes::from_static(block), ..received(3, "a", Some("r"), b"{}") });
    }

    #[test]
    fn other_lines_are_errors() {
        for line in [
            "MSG a 0\r\n",
            "MSG a x 1\r\n",
            "MSG a 0 99999999999\r\n",
            "HMSG a 0 1\r\n",
            "HMSG a 0 2 1\r\n",
            "INFO {\r\n",
            "\r\n",
        ] {
            let mut read = BytesMut::from(line.as_bytes());
            assert!(Wire::default().decode(&mut read).is_err(), "{line}");
        }
    }
}
