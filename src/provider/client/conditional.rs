//! A request body that is sent only under a condition.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body that asks its condition directly before it leaves.
pub(super) struct Conditional<F> {
    /// Missing once sent.
    bytes: Option<Bytes>,
    may_send: F,
}

/// The condition was not met: the body was not sent.
#[derive(Debug, thiserror::Error)]
#[error("the request was withheld")]
pub(super) struct Withheld;

impl<F> Conditional<F> {
    pub(super) fn new(bytes: Bytes, may_send: F) -> Self {
        Self { bytes: Some(bytes), may_send }
    }
}

/// Nothing in it is pinned.
impl<F> Unpin for Conditional<F> {}

impl<F: Fn() -> bool> Body for Conditional<F> {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        Poll::Ready(Some(if (self.may_send)() { Ok(Frame::data(bytes)) } else { Err(Withheld) }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
