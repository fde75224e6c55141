//! Reads a request's body within a limit and a deadline.

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::time::Instant;

use crate::gateway::routes::error::HttpError;

/// Reads a body of at most `most` bytes.
pub(in crate::gateway) async fn read_body<B>(body: &mut B, most: usize, deadline: Instant) -> Result<Bytes, HttpError>
where
    B: Body + Unpin,
    B::Data: Buf,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > most as u64 {
        return Err(HttpError::BodyTooLarge(most));
    }
    match tokio::time::timeout_at(deadline, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(HttpError::BodyTooLarge(most)),
        Ok(Err(error)) => Err(HttpError::BodyUnreadable(error)),
        Err(_elapsed) => Err(HttpError::bad_request("the body did not come in time")),
    }
}

/// Reads and discards the rest of a body, at most `most` bytes. A client whose connection is closed while it sends may
/// never see the answer.
pub(in crate::gateway) async fn drain_body<B: Body + Unpin>(body: &mut B, most: usize, deadline: Instant) {
    if body.is_end_stream() || body.size_hint().lower() > most as u64 {
        return;
    }
    let reading = async {
        let mut left = most;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Buf::remaining)) else { return };
            left = rest;
        }
    };
    // A client that is slower than this loses the answer.
    let _ = tokio::time::timeout_at(deadline, reading).await;
}
