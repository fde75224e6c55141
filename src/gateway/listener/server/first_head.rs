//! An answer with a text for a first head that is too large for the HTTP library, which answers it with a status alone.
//!
//! What the library writes before it has handed over the first request can only be its own refusal, if the connection is not
//! one of HTTP/2. It is replaced if the head is above our limits, and the library then closes the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line_ends::Heads;
use crate::gateway::routes::error::HttpError;
use crate::system;

/// The beginning of a connection's first bytes in HTTP/2 (RFC 9113 §3.4).
const HTTP2: &[u8] = b"PRI";

pub(super) struct FirstHead<S> {
    stream: S,
    heads: Arc<Heads>,
    /// Most bytes of path and query, and of the headers.
    uri: usize,
    headers: usize,
    /// The first bytes, at most as many as [`HTTP2`] has.
    start: Vec<u8>,
    /// Bytes of the first line so far, and whether it has ended.
    line: usize,
    has_line_ended: bool,
    bytes: usize,
    own: Option<OwnAnswer>,
}

struct OwnAnswer {
    bytes: Vec<u8>,
    sent: usize,
}

impl<S> FirstHead<S> {
    pub(super) fn new(stream: S, heads: Arc<Heads>, uri: usize, headers: usize) -> Self {
        Self { stream, heads, uri, headers, start: Vec::new(), line: 0, has_line_ended: false, bytes: 0, own: None }
    }

    fn note(&mut self, bytes: &[u8]) {
        let missing = HTTP2.len().saturating_sub(self.start.len());
        self.start.extend(bytes.iter().take(missing));
        self.bytes += bytes.len();
        if !self.has_line_ended {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            self.line += end.unwrap_or(bytes.len());
            self.has_line_ended = end.is_some();
        }
    }

    /// Returns the reason why the head is too large, if it is.
    fn refusal(&self) -> Option<HttpError> {
        if self.start == HTTP2 || self.heads.has_begun() {
            None
        } else if self.line > self.uri {
            Some(HttpError::UriTooLong(self.uri))
        } else if self.bytes > self.headers {
            Some(HttpError::HeadersTooLarge(self.headers))
        } else {
            None
        }
    }
}

impl<S: AsyncWrite + Unpin> FirstHead<S> {
    /// Writes our own answer. Returns `None` if there is none.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        if self.own.is_none() {
            let error = self.refusal()?;
            self.own = Some(OwnAnswer { bytes: error.raw(&system::random_id()), sent: 0 });
        }
        let OwnAnswer { bytes, sent } = self.own.as_mut()?;
        while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) => *sent += written,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        Some(Poll::Ready(Ok(())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstHead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if !self.heads.has_begun() {
            self.note(buf.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstHead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(own) = self.poll_own(cx) {
            ready!(own)?;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(own) = self.poll_own(cx) {
            ready!(own)?;
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
