//! Failures of requests, with the table that turns the gateway's own errors and the workers' statuses into HTTP statuses.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::str::{ParseBoolError, Utf8Error};

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue, ToStrError};
use matchit::MatchError;
use serde_json::Value;

use crate::gateway::backend::{BackendError, Hint, NotReady};
use crate::gateway::routes::reply::{self, Reply};
use crate::subject::NameError;

/// `Retry-After` of a 503 that names no time. A restart of NATS or the workers takes about as long.
const RETRY_AFTER_SECONDS: u64 = 2;

type Cause = Box<dyn Error + Send + Sync>;

/// A request that failed. The texts go to the caller.
#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum HttpError {
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("header {name} is not plain text")]
    HeaderNotText { name: HeaderName, source: ToStrError },
    #[error("{name} must be `true` or `false`")]
    NotAFlag { name: String, source: ParseBoolError },
    #[error("the body must be a JSON object")]
    BodyNotJson(#[source] serde_json::Error),
    #[error("the form is not plain text")]
    FormNotText(#[source] Utf8Error),
    #[error("the body could not be read")]
    BodyUnreadable(#[source] Cause),
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("there is nothing at this path")]
    NoRoute(#[from] MatchError),
    #[error("this path only takes {0}")]
    Method(String),
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the headers are larger than {0} bytes; delete cookies of this site, or raise `http.max_header`")]
    HeadersTooLarge(usize),
    #[error("the request has more than {0} header lines; send fewer")]
    TooManyHeaders(usize),
    #[error("the URI is longer than {0} bytes")]
    UriTooLong(usize),
    #[error("too many requests from this {whose}; try again in {seconds} s")]
    Limited { whose: &'static str, seconds: u64 },
    #[error("the answer did not come in time")]
    Timeout,
    #[error("a worker's answer could not be read")]
    InvalidAnswer(#[source] Cause),
    #[error("the metrics could not be written")]
    Metrics(#[from] fmt::Error),
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The caller's view of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct ErrorReply {
    pub(in crate::gateway) status: StatusCode,
    pub(in crate::gateway) error: String,
    /// The code of the failure, if it has one.
    pub(in crate::gateway) reason: Option<String>,
    /// Only of a login that a provider refuses.
    pub(in crate::gateway) hint: Option<Hint>,
    /// The header that belongs to the status.
    header: Option<(HeaderName, HeaderValue)>,
}

impl HttpError {
    pub(in crate::gateway) fn bad_request(text: impl Into<String>) -> Self {
        Self::BadRequest(text.into())
    }

    /// For `map_err`.
    pub(in crate::gateway) fn invalid_answer(cause: impl Into<Cause>) -> Self {
        Self::InvalidAnswer(cause.into())
    }

    /// Returns the bytes of an answer in HTTP/1.1 after which the connection ends.
    pub(in crate::gateway) fn raw(&self, request_id: &str) -> Vec<u8> {
        let error = self.reply(false);
        let mut reply = error.json();
        reply::add_common_headers(&mut reply, request_id);
        let (status, body) = (error.status, error.body());
        let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in reply.headers() {
            let _ = write!(head, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
        }
        [head.as_bytes(), b"\r\n", body.as_bytes()].concat()
    }

    /// Returns the status and its header. An unknown integration or connection is a 404 if `missing_is_404`; on the other
    /// routes it is the 400 that they document.
    pub(in crate::gateway) fn reply(&self, missing_is_404: bool) -> ErrorReply {
        let (status, header) = match self {
            Self::BadRequest(_)
            | Self::Name(_)
            | Self::HeaderNotText { .. }
            | Self::NotAFlag { .. }
            | Self::BodyNotJson(_)
            | Self::FormNotText(_)
            | Self::BodyUnreadable(_) => (StatusCode::BAD_REQUEST, None),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, Some(challenge())),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, None),
            Self::NoRoute(_) => (StatusCode::NOT_FOUND, None),
            Self::Method(allow) => {
                (StatusCode::METHOD_NOT_ALLOWED, HeaderValue::from_str(allow).ok().map(|allow| (header::ALLOW, allow)))
            }
            Self::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Self::HeadersTooLarge(_) | Self::TooManyHeaders(_) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None),
            Self::UriTooLong(_) => (StatusCode::URI_TOO_LONG, None),
            Self::Limited { seconds, .. } => (StatusCode::TOO_MANY_REQUESTS, Some(retry_after(*seconds))),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, None),
            Self::InvalidAnswer(_) | Self::Metrics(_) => (StatusCode::BAD_GATEWAY, None),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after(RETRY_AFTER_SECONDS))),
            Self::Backend(error) => backend(error, missing_is_404),
        };
        let (mut reason, mut hint) = (None, None);
        if let Self::Backend(BackendError::Refused { reason: code, hint: setting, .. }) = self {
            (reason, hint) = (code.clone(), setting.clone());
        }
        ErrorReply { status, error: self.to_string(), reason, hint, header }
    }
}

fn backend(error: &BackendError, missing_is_404: bool) -> (StatusCode, Option<(HeaderName, HeaderValue)>) {
    match error {
        BackendError::Refused { status, error: _, reason: _, hint: _, retry_after_seconds } => {
            refused(*status, *retry_after_seconds, missing_is_404)
        }
        BackendError::UsedState | BackendError::NoCredential => (StatusCode::UNAUTHORIZED, Some(challenge())),
        BackendError::NotText(_) => (StatusCode::BAD_REQUEST, None),
        BackendError::Occupied
        | BackendError::NoWorker(_)
        | BackendError::Unavailable(_)
        | BackendError::Disconnected
        | BackendError::Seal(_)
        | BackendError::Session(_)
        | BackendError::Throttled => (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after(RETRY_AFTER_SECONDS))),
        BackendError::InvalidAnswer(_) => (StatusCode::BAD_GATEWAY, None),
        BackendError::Deadline => (StatusCode::GATEWAY_TIMEOUT, None),
    }
}

/// Maps a status that a worker chose to one that the route documents.
fn refused(
    status: u16,
    retry_after_seconds: Option<u64>,
    missing_is_404: bool,
) -> (StatusCode, Option<(HeaderName, HeaderValue)>) {
    let wait = || Some(retry_after(retry_after_seconds.unwrap_or(RETRY_AFTER_SECONDS)));
    match status {
        401 | 403 => (StatusCode::UNAUTHORIZED, Some(challenge())),
        404 if missing_is_404 => (StatusCode::NOT_FOUND, None),
        413 => (StatusCode::PAYLOAD_TOO_LARGE, None),
        429 => (StatusCode::TOO_MANY_REQUESTS, wait()),
        400..=499 => (StatusCode::BAD_REQUEST, None),
        503 => (StatusCode::SERVICE_UNAVAILABLE, wait()),
        504 => (StatusCode::GATEWAY_TIMEOUT, None),
        // The provider may have named a time.
        _ => (StatusCode::BAD_GATEWAY, retry_after_seconds.map(retry_after)),
    }
}

impl ErrorReply {
    /// Builds `{"error": text}`, with reason and hint if there are any.
    pub(in crate::gateway) fn json(&self) -> Reply {
        self.with_header(reply::json(self.status, self.body()))
    }

    fn body(&self) -> String {
        let mut body = serde_json::json!({ "error": self.error });
        if let Some(fields) = body.as_object_mut() {
            fields.extend(self.reason.iter().map(|reason| ("reason".to_owned(), reason.as_str().into())));
            if let Some(Value::Object(hint)) = self.hint.as_ref().map(|hint| serde_json::json!(hint)) {
                fields.extend(hint);
            }
        }
        body.to_string()
    }

    /// Adds the header that belongs to the status.
    pub(in crate::gateway) fn with_header(&self, mut reply: Reply) -> Reply {
        if let Some((name, value)) = &self.header {
            reply.headers_mut().insert(name.clone(), value.clone());
        }
        reply
    }
}

fn challenge() -> (HeaderName, HeaderValue) {
    (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn retry_after(seconds: u64) -> (HeaderName, HeaderValue) {
    (header::RETRY_AFTER, HeaderValue::from(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::NatsError;

    #[track_caller]
    fn check(status: u16, missing_is_404: bool, expected: u16) {
        let error = HttpError::Backend(BackendError::Refused {
            status,
            error: "no".to_owned(),
            reason: None,
            hint: None,
            retry_after_seconds: Some(7),
        });
        assert_eq!(error.reply(missing_is_404).status.as_u16(), expected);
    }

    #[test]
    fn a_workers_status_becomes_a_documented_one() {
        for status in [400, 401, 413, 429, 502, 503, 504] {
            check(status, false, status);
        }
        check(404, true, 404);
        check(404, false, 400);
        check(403, true, 401);
        check(409, true, 400);
        check(500, true, 502);
        check(200, true, 502);
    }

    #[test]
    fn waiting_times_and_challenges_belong_to_their_status() {
        let busy = BackendError::Refused {
            status: 429,
            error: "slow down".to_owned(),
            reason: None,
            hint: None,
            retry_after_seconds: Some(7),
        };
        assert_eq!(HttpError::Backend(busy).reply(false).header, Some((header::RETRY_AFTER, HeaderValue::from(7))));
        for away in [BackendError::Unavailable(NatsError::away("test")), BackendError::Disconnected] {
            let away = HttpError::Backend(away).reply(false);
            assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(away.header, Some((header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))));
        }
        let limited = HttpError::Limited { whose: "address", seconds: 3 }.reply(false);
        assert_eq!((limited.status.as_u16(), limited.header), (429, Some((header::RETRY_AFTER, HeaderValue::from(3)))));
        for after in [Some(7), None] {
            let broken = BackendError::Refused {
                status: 502,
                error: "later".to_owned(),
                reason: None,
                hint: None,
                retry_after_seconds: after,
            };
            let expected = after.map(|after| (header::RETRY_AFTER, HeaderValue::from(after)));
            assert_eq!(HttpError::Backend(broken).reply(false).header, expected);
        }
        assert_eq!(HttpError::Unauthorized("who?").reply(false).header, Some(challenge()));
    }
}
