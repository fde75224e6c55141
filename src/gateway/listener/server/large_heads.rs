//! An answer with a text for a head that is too large for the HTTP library, which answers it with a status alone.
//!
//! What the library writes after the last answer was sent, and before it hands over another request, can only be its own refusal
//! of the next head. It is replaced if that head is above a limit of the library. The library then closes the connection.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line_ends::Heads;
use super::protocols;
use crate::gateway::listener::limits::Limits;
use crate::gateway::routes::error::HttpError;
use crate::gateway::{MAX_DRAINED_BYTES, MAX_HEADER_LINES, UNROUTED};
use crate::system;

/// Longest URI that the library takes.
const MAX_URI_BYTES: usize = 65_534;

/// The size of a head so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) bytes: usize,
    /// Bytes of the first line.
    pub(super) first_line: usize,
    /// Lines after the first one that have begun.
    pub(super) lines: usize,
}

/// The limits of a head: our own, and that of the library's buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    uri: usize,
    headers: usize,
    buffer: usize,
}

/// The limit that a head exceeds, with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LargeHead {
    Uri(usize),
    Lines,
    Headers(usize),
}

impl Sizes {
    pub(super) fn of(limits: &Limits) -> Self {
        Self { uri: limits.uri, headers: limits.headers, buffer: protocols::head_bytes(limits) }
    }

    /// Returns the limit to name if the library may refuse a head of this size. The gateway itself answers smaller ones.
    pub(super) fn exceeded(&self, size: Size) -> Option<LargeHead> {
        let Size { bytes, first_line, lines } = size;
        if first_line <= MAX_URI_BYTES && lines <= MAX_HEADER_LINES && bytes < self.buffer {
            return None;
        }
        Some(if first_line > self.uri {
            LargeHead::Uri(self.uri)
        } else if lines > MAX_HEADER_LINES {
            LargeHead::Lines
        } else {
            LargeHead::Headers(self.headers)
        })
    }
}

impl From<LargeHead> for HttpError {
    fn from(head: LargeHead) -> Self {
        match head {
            LargeHead::Uri(limit) => Self::UriTooLong(limit),
            LargeHead::Lines => Self::TooManyHeaders(MAX_HEADER_LINES),
            LargeHead::Headers(limit) => Self::HeadersTooLarge(limit),
        }
    }
}

/// A client's stream whose refusals of large heads have a text.
pub(super) struct LargeHeads<S> {
    stream: S,
    heads: Arc<Heads>,
    peer: IpAddr,
    own: Option<OwnAnswer>,
}

struct OwnAnswer {
    bytes: Vec<u8>,
    sent: usize,
    /// Bytes that arrived after it.
    drained: usize,
}

impl<S> LargeHeads<S> {
    pub(super) fn new(stream: S, heads: Arc<Heads>, peer: IpAddr) -> Self {
        Self { stream, heads, peer, own: None }
    }

    /// Returns our own answer if the library refuses a head.
    fn own(&mut self) -> Option<&mut OwnAnswer> {
        if self.own.is_none() {
            let error = HttpError::from(self.heads.refused()?);
            let (request_id, status, peer) = (system::random_id(), error.reply(false).status.as_u16(), self.peer);
            tracing::info!(target: "tokenbus::http", route = UNROUTED, status, client = %peer, request_id, "request");
            self.own = Some(OwnAnswer { bytes: error.raw(&request_id), sent: 0, drained: 0 });
        }
        self.own.as_mut()
    }
}

impl<S: AsyncWrite + Unpin> LargeHeads<S> {
    /// Writes our own answer. Returns `None` if there is none.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        self.own()?;
        let OwnAnswer { bytes, sent, .. } = self.own.as_mut()?;
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

impl<S: AsyncRead + Unpin> AsyncRead for LargeHeads<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LargeHeads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(own) = self.poll_own(cx) {
            ready!(own)?;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // The library writes a whole answer before it flushes, and reads the next head after that.
        self.heads.set_is_answering(false);
        Poll::Ready(Ok(()))
    }

    /// Reads on for a while after our own answer: it may be lost if the connection is closed while the client sends.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        let Self { stream, own, .. } = &mut *self;
        let Some(own) = own else { return Poll::Ready(Ok(())) };
        while own.drained < MAX_DRAINED_BYTES {
            let mut bytes = [0; 4096];
            let mut part = ReadBuf::new(&mut bytes);
            if ready!(Pin::new(&mut *stream).poll_read(cx, &mut part)).is_err() || part.filled().is_empty() {
                break;
            }
            own.drained += part.filled().len();
        }
        Poll::Ready(Ok(()))
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
