//! Finds lines of HTTP/1.1 heads that end with a bare line feed. hyper accepts them, and a proxy before the gateway may
//! not: the two would then see different requests on one connection.
//!
//! Looks at the bytes on their way to hyper, and counts heads as hyper does, and their sizes. The count is exact until the first
//! request with a body, whose lines are not told from a head's. So the connection has to end after such a request.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::large_heads::{LargeHead, Size, Sizes};

/// The beginning of a connection's first bytes in HTTP/2 (RFC 9113 §3.4).
const HTTP2: &[u8] = b"PRI";

/// Marks a request whose head has a line that ends with a bare line feed.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct BareLineFeed;

/// The heads of one connection.
#[derive(Debug)]
pub(super) struct Heads {
    /// Number of the first head with a bare line feed; [`u64::MAX`] if none has one.
    first_bad: AtomicU64,
    /// Number of the first head that the library may refuse for its size, and the limit that it exceeds.
    first_large: OnceLock<(u64, LargeHead)>,
    /// Number of the next request.
    next: AtomicU64,
    /// True from the end of a request until its answer is sent.
    is_answering: AtomicBool,
}

/// The head of a request that the library has handed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) has_bare_line_feed: bool,
    /// The library has not refused it, but might have.
    is_large: bool,
}

impl Head {
    /// Returns true if no further request may follow, because heads would be confused.
    pub(super) fn ends_connection(self) -> bool {
        self.has_bare_line_feed || self.is_large
    }
}

impl Heads {
    pub(super) fn new() -> Self {
        Self {
            first_bad: AtomicU64::new(u64::MAX),
            first_large: OnceLock::new(),
            next: AtomicU64::new(0),
            is_answering: AtomicBool::new(false),
        }
    }

    /// Counts a request of HTTP/1.
    pub(super) fn take_next(&self) -> Head {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        Head {
            has_bare_line_feed: next >= self.first_bad.load(Ordering::Relaxed),
            is_large: self.first_large.get().is_some_and(|(large, _)| next >= *large),
        }
    }

    pub(super) fn set_is_answering(&self, is_answering: bool) {
        self.is_answering.store(is_answering, Ordering::Relaxed);
    }

    /// Returns the limit that the next head exceeds, if the library writes its refusal now.
    pub(super) fn refused(&self) -> Option<LargeHead> {
        let (large, limit) = self.first_large.get()?;
        let is_next = self.next.load(Ordering::Relaxed) == *large && !self.is_answering.load(Ordering::Relaxed);
        is_next.then_some(*limit)
    }
}

/// A client's stream.
#[derive(Debug)]
pub(super) struct Inspected<S> {
    stream: S,
    /// The first bytes, at most as many as [`HTTP2`] has.
    start: Vec<u8>,
    lines: Lines,
    sizes: Sizes,
    heads: Arc<Heads>,
    activity: Arc<Activity>,
}

impl<S> Inspected<S> {
    pub(super) fn new(stream: S, sizes: Sizes, heads: Arc<Heads>, activity: Arc<Activity>) -> Self {
        Self { stream, start: Vec::new(), lines: Lines::default(), sizes, heads, activity }
    }

    /// Notes what has arrived. HTTP/2 has no lines.
    fn note(&mut self, bytes: &[u8]) {
        let missing = HTTP2.len().saturating_sub(self.start.len());
        self.start.extend(bytes.iter().take(missing));
        if self.start == HTTP2 {
            return;
        }
        let Found { bad, large } = self.lines.pass(bytes, &self.sizes);
        if let Some(head) = bad {
            self.heads.first_bad.fetch_min(head, Ordering::Relaxed);
        }
        if let Some(large) = large {
            self.heads.first_large.get_or_init(|| large);
        }
        self.activity.set_is_in_head(self.lines.is_in_head());
    }
}

/// The first heads of their kind in some bytes, by their numbers.
#[derive(Debug, Default)]
struct Found {
    /// Has a bare line feed.
    bad: Option<u64>,
    /// Exceeds a limit of the library.
    large: Option<(u64, LargeHead)>,
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
    /// Size of the current head and of the empty lines before it.
    size: Size,
    /// True if `size` counts the current line.
    is_counted: bool,
}

impl Lines {
    fn is_in_head(&self) -> bool {
        self.has_begun || self.length > 0
    }

    /// Moves over the bytes.
    fn pass(&mut self, bytes: &[u8], sizes: &Sizes) -> Found {
        let mut found = Found::default();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = part.strip_suffix(b"\n");
            let ends_with_cr = match line {
                Some([]) => self.ends_with_cr,
                Some(line) => line.ends_with(b"\r"),
                None => part.ends_with(b"\r"),
            };
            let length = self.length + line.unwrap_or(part).len();
            let is_empty = length == usize::from(ends_with_cr);
            self.measure(part.len(), is_empty);
            found.large = found.large.or_else(|| Some((self.head, sizes.exceeded(self.size)?)));
            (self.length, self.ends_with_cr) = (length, ends_with_cr);
            if line.is_some() {
                if !ends_with_cr {
                    found.bad = found.bad.or(Some(self.head));
                }
                self.end_line(is_empty);
            }
        }
        found
    }

    /// Adds a part of a line to the head's size.
    fn measure(&mut self, bytes: usize, is_empty: bool) {
        self.size.bytes += bytes;
        if !self.has_begun {
            self.size.first_line += bytes;
        } else if !is_empty && !std::mem::replace(&mut self.is_counted, true) {
            self.size.lines += 1;
        }
    }

    fn end_line(&mut self, is_empty: bool) {
        if is_empty && self.has_begun {
            self.head += 1;
            self.size = Size::default();
        } else if is_empty {
            self.size.first_line = 0;
        }
        self.has_begun = !is_empty;
        (self.length, self.ends_with_cr, self.is_counted) = (0, false, false);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inspected<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note(buf.filled().get(before..).unwrap_or_default());
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
    use crate::gateway::listener::limits::Limits;

    /// Checks the first bad head and the first large one, however the bytes are cut into two reads.
    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        check_sizes(text, expected, None);
    }

    #[track_caller]
    fn check_sizes(text: &str, bad: Option<u64>, large: Option<(u64, LargeHead)>) {
        let sizes = Sizes::of(&Limits::default());
        let step = (text.len() / 100).max(1);
        for cut in (0..=text.len()).step_by(step) {
            let mut lines = Lines::default();
            let (first, second) = text.as_bytes().split_at(cut);
            let found = [lines.pass(first, &sizes), lines.pass(second, &sizes)];
            assert_eq!(found.iter().filter_map(|found| found.bad).min(), bad, "{text:.99?} cut at {cut}");
            assert_eq!(found.iter().find_map(|found| found.large), large, "{text:.99?} cut at {cut}");
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

    #[test]
    fn o13_a_head_that_the_library_may_refuse_is_found_with_its_limit() {
        let small = "GET / HTTP/1.1\r\na: b\r\n\r\n";
        let check = |text: &str, expected| check_sizes(text, None, expected);
        let of_lines = |lines: usize| format!("\r\nGET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(lines));
        check(&of_lines(100), None);
        check(&of_lines(101), Some((0, LargeHead::Lines)));
        check(&format!("{small}{}{small}{}", of_lines(100), of_lines(101)), Some((3, LargeHead::Lines)));
        check(&format!("{small}GET / HTTP/1.1\r\na: {}", "a".repeat(120 * 1024)), None);
        let large = format!("{small}GET / HTTP/1.1\r\na: {}", "a".repeat(140 * 1024));
        check(&large, Some((1, LargeHead::Headers(64 * 1024))));
        check(&format!("{small}GET /{}", "a".repeat(66_000)), Some((1, LargeHead::Uri(56 * 1024))));
    }
}
