//! A request that is sent only under a condition.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body that asks its condition directly before the request leaves: the connection is open, and the head is still in its
/// buffer. If the answer is no, the body is an error, which ends the connection before a byte has left.
///
/// A request without a body has secrets in its head, so it has the same condition. The connection calls `is_end_stream` and
/// `size_hint` before it writes the head, and waits for a body if they announce one. So both announce a byte for a request that
/// must not be sent, and the body then is an error. `may_send` must not become true again after it was false.
pub(super) struct Conditional<F> {
    content: Content,
    may_send: F,
}

enum Content {
    Bytes(Bytes),
    Sent,
    /// No body. With `has_length` the head says so.
    Empty {
        has_length: bool,
    },
}

/// The condition was not met: the request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("the request was withheld")]
pub(super) struct Withheld;

impl<F> Conditional<F> {
    pub(super) fn new(bytes: Bytes, may_send: F) -> Self {
        Self { content: Content::Bytes(bytes), may_send }
    }

    /// A request without a body. Servers may refuse a POST without a length (RFC 9110 §15.5.12); a GET has none.
    pub(super) fn empty(has_length: bool, may_send: F) -> Self {
        Self { content: Content::Empty { has_length }, may_send }
    }
}

/// Nothing in it is pinned.
impl<F> Unpin for Conditional<F> {}

impl<F: Fn() -> bool> Body for Conditional<F> {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        if matches!(self.content, Content::Sent) {
            return Poll::Ready(None);
        }
        if !(self.may_send)() {
            return Poll::Ready(Some(Err(Withheld)));
        }
        match std::mem::replace(&mut self.content, Content::Sent) {
            Content::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Content::Sent | Content::Empty { .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.content {
            Content::Bytes(_) => false,
            Content::Sent => true,
            Content::Empty { has_length } => !has_length && (self.may_send)(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Sent => 0,
            Content::Empty { .. } => u64::from(!(self.may_send)()),
        })
    }
}
