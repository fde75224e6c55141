//! Finds lines of HTTP/1.1 heads that end with a bare line feed. hyper accepts them, and a proxy before the gateway may
//! not: the two would then see different requests on one connection.
//!
//! Looks at the bytes on their way to hyper, and counts heads as hyper does. The count is exact until the first request with a
//! body, whose lines are not told from a head's. So the connection has to end after such a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// Marks a request whose head has a line that ends with a bare line feed.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct BareLineFeed;

/// The heads of one connection.
#[derive(Debug)]
pub(super) struct Heads {
    /// Number of the first head with a bare line feed; [`u64::MAX`] if none has one.
    first_bad: AtomicU64,
    /// Number of the next request.
    next: AtomicU64,
}

impl Heads {
    pub(super) fn new() -> Self {
        Self { first_bad: AtomicU64::new(u64::MAX), next: AtomicU64::new(0) }
    }

    /// Returns true once the first request has been counted.
    pub(super) fn has_begun(&self) -> bool {
        self.next.load(Ordering::Relaxed) > 0
    }

    /// Counts a request. Returns true if its head has a bare line feed.
    pub(super) fn is_next_bad(&self) -> bool {
        self.next.fetch_add(1, Ordering::Relaxed) >= self.first_bad.load(Ordering::Relaxed)
    }
}

/// A client's stream.
#[derive(Debug)]
pub(super) struct Inspected<S> {
    stream: S,
    lines: Lines,
    heads: Arc<Heads>,
    activity: Arc<Activity>,
}

impl<S> Inspected<S> {
    pub(super) fn new(stream: S, heads: Arc<Heads>, activity: Arc<Activity>) -> Self {
        Self { stream, lines: Lines::default(), heads, activity }
    }
}

/// The position in the bytes of a connection.
#[derive(Debug, Default)]
struct Lines {
    /// Number of the current head.
    head: u64,
    /// True after the first line of the current head. Empty lines before it don't count.
    has_begun: bool,
    /// Bytes of the current line so far.
    length: usize,
    ends_with_cr: bool,
}

impl Lines {
    fn is_in_head(&self) -> bool {
        self.has_begun || self.length > 0
    }

    /// Moves over the bytes. Returns the number of the first head in them that has a bare line feed.
    fn pass(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut bad = None;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = part.strip_suffix(b"\n") else {
                self.length += part.len();
                self.ends_with_cr = part.ends_with(b"\r");
                break;
            };
            let ends_with_cr = if line.is_empty() { self.ends_with_cr } else { line.ends_with(b"\r") };
            if !ends_with_cr {
                bad = bad.or(Some(self.head));
            }
            let is_empty = self.length + line.len() == usize::from(ends_with_cr);
            if is_empty && self.has_begun {
                self.head += 1;
            }
            self.has_begun = !is_empty;
            (self.length, self.ends_with_cr) = (0, false);
        }
        bad
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inspected<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bad = buf.filled().get(before..).and_then(|bytes| self.lines.pass(bytes));
        if let Some(head) = bad {
            self.heads.first_bad.fetch_min(head, Ordering::Relaxed);
        }
        self.activity.set_is_in_head(self.lines.is_in_head());
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inspected<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the first bad head, however the bytes are cut into two reads.
    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        for cut in 0..=text.len() {
            let mut lines = Lines::default();
            let (first, second) = text.as_bytes().split_at(cut);
            let found = [lines.pass(first), lines.pass(second)].into_iter().flatten().min();
            assert_eq!(found, expected, "{text:?} cut at {cut}");
        }
    }

    #[test]
    fn a_bare_line_feed_is_found_in_its_head() {
        check("GET / HTTP/1.1\r\na: b\r\n\r\n", None);
        check("\r\n\r\nGET / HTTP/1.1\r\na: b\r\n\r\nGET / HTTP/1.1\r\na: b\r\n\r\n", None);
        check("GET / HTTP/1.1\na: b\r\n\r\n", Some(0));
        check("GET / HTTP/1.1\r\na: b\n\r\n", Some(0));
        check("GET / HTTP/1.1\r\na: b\r\n\n", Some(0));
        check("\nGET / HTTP/1.1\r\na: b\r\n\r\n", Some(0));
        check("GET / HTTP/1.1\r\na: b\r\n\r\nGET / HTTP/1.1\r\na: b\r\n\nGET / HTTP/1.1\n", Some(1));
        check("GET / HTTP/1.1\r\na: b\r\n\r\n\nGET / HTTP/1.1\r\n\r\n", Some(1));
    }
}
