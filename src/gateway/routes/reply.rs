//! HTTP answers, and the headers that all of them carry.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body as _;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub(in crate::gateway) type Reply = Response<Full<Bytes>>;

pub(in crate::gateway) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of an ordinary answer.
const HEADERS: usize = 12;

pub(in crate::gateway) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    of_type(status, "application/json", body)
}

pub(in crate::gateway) fn of_type(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    // Makes room once for the headers that follow.
    reply.headers_mut().reserve(HEADERS);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

pub(in crate::gateway) fn success() -> Reply {
    json(StatusCode::OK, r#"{"message":"success"}"#)
}

/// Makes the answer to a HEAD request: `Content-Length` is that of the body, which is not sent.
pub(in crate::gateway) fn drop_body(reply: &mut Reply) {
    if let Some(length) = reply.body().size_hint().exact() {
        reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *reply.body_mut() = Full::default();
}

/// Adds the headers of every answer: browsers must not store, sniff or frame it, nor send its URL on as a referrer. A page
/// may have its own policies.
pub(in crate::gateway) fn add_common_headers(reply: &mut Reply, request_id: &str) {
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}
