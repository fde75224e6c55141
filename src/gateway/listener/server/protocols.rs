//! Options of HTTP/1 and HTTP/2.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;

use crate::gateway::listener::limits::Limits;

/// Bytes of a head beyond [`Limits::uri`] and [`Limits::headers`] that are still read, so that the gateway itself rejects
/// a head above the limits, and the connection stays open.
const HEAD_MARGIN_BYTES: usize = 16 * 1024;
/// Smallest buffer that hyper accepts for a head.
const MIN_HEAD_BUFFER_BYTES: usize = 8192;

/// HTTP/2 flow-control window of a stream: all of a body, which has at most 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 65_535;
/// HTTP/2 flow-control window of a connection: four bodies at once. Bounds the memory of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 262_144;
/// Most bytes of answers that one HTTP/2 stream buffers.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams that the client has reset before they were accepted. More end the connection, against rapid resets
/// (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that were reset because of the client's errors. More end the connection.
const MAX_ERROR_RESETS: usize = 128;
/// Interval of the pings that find dead HTTP/2 connections.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Longest wait for the answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the size of a head from which on the HTTP library refuses it.
pub(super) fn head_bytes(limits: &Limits) -> usize {
    (limits.uri + limits.headers + HEAD_MARGIN_BYTES).max(MIN_HEAD_BUFFER_BYTES)
}

pub(super) fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let head_bytes = head_bytes(limits);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's limit also counts between requests; `Activity` has the limit from a head's first byte.
        .header_read_timeout(None)
        .max_buf_size(head_bytes)
        .half_close(false)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
