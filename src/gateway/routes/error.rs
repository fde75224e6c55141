//! Why a request is not answered as asked, and the one place that makes a status of it.

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::gateway::backend::BackendError;
use crate::gateway::routes::reply::{self, Reply};
use crate::subject::NameError;

/// Seconds after which to ask again when nobody said how long.
const RETRY_AFTER: u64 = 2;

/// Why a request is not answered as asked. The text goes to the caller.
#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum HttpError {
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("there is nothing at this path")]
    NoRoute,
    #[error("this path only takes {0}")]
    Method(String),
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the headers are larger than {0} bytes")]
    HeadersTooLarge(usize),
    #[error("too many requests from this {whose}; try again in {seconds} s")]
    Limited { whose: &'static str, seconds: u64 },
    #[error("the answer did not come in time")]
    Timeout,
    #[error("a worker's answer could not be read")]
    Unreadable,
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What the caller sees of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Answer {
    pub(in crate::gateway) status: StatusCode,
    pub(in crate::gateway) error: String,
    pub(in crate::gateway) header: Option<(HeaderName, HeaderValue)>,
}

impl HttpError {
    pub(in crate::gateway) fn bad(text: impl Into<String>) -> Self {
        Self::BadRequest(text.into())
    }

    /// The status and what goes with it. On most routes an unknown integration or connection is
    /// a 400, as their documented codes want it; `missing_is_404` is set on the others.
    pub(in crate::gateway) fn answer(&self, missing_is_404: bool) -> Answer {
        let (status, header) = match self {
            Self::BadRequest(_) | Self::Name(_) => (StatusCode::BAD_REQUEST, None),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, Some(challenge())),
            Self::NoRoute => (StatusCode::NOT_FOUND, None),
            Self::Method(allow) => {
                (StatusCode::METHOD_NOT_ALLOWED, HeaderValue::from_str(allow).ok().map(|allow| (header::ALLOW, allow)))
            }
            Self::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Self::HeadersTooLarge(_) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None),
            Self::Limited { seconds, .. } => (StatusCode::TOO_MANY_REQUESTS, Some(retry_after(Some(*seconds)))),
            Self::Timeout | Self::Backend(BackendError::Deadline) => (StatusCode::GATEWAY_TIMEOUT, None),
            Self::Unreadable => (StatusCode::BAD_GATEWAY, None),
            Self::Backend(BackendError::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after(None))),
            Self::Backend(BackendError::Refused { status, error: _, retry_after: after }) => match status {
                401 | 403 => (StatusCode::UNAUTHORIZED, Some(challenge())),
                404 if missing_is_404 => (StatusCode::NOT_FOUND, None),
                413 => (StatusCode::PAYLOAD_TOO_LARGE, None),
                429 => (StatusCode::TOO_MANY_REQUESTS, Some(retry_after(*after))),
                400..=499 => (StatusCode::BAD_REQUEST, None),
                503 => (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after(*after))),
                504 => (StatusCode::GATEWAY_TIMEOUT, None),
                // A provider may have said when it wants to be asked again.
                _ => (StatusCode::BAD_GATEWAY, after.map(|after| retry_after(Some(after)))),
            },
        };
        Answer { status, error: self.to_string(), header }
    }
}

impl Answer {
    /// The answer in JSON: `{"error": text}`.
    pub(in crate::gateway) fn json(&self) -> Reply {
        let body = serde_json::json!({ "error": self.error }).to_string();
        self.with(reply::json(self.status, body))
    }

    /// Adds the header that belongs to the status.
    pub(in crate::gateway) fn with(&self, mut reply: Reply) -> Reply {
        if let Some((name, value)) = &self.header {
            reply.headers_mut().insert(name.clone(), value.clone());
        }
        reply
    }
}

fn challenge() -> (HeaderName, HeaderValue) {
    (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn retry_after(seconds: Option<u64>) -> (HeaderName, HeaderValue) {
    (header::RETRY_AFTER, HeaderValue::from(seconds.unwrap_or(RETRY_AFTER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, missing_is_404: bool, expected: u16) {
        let error = HttpError::Backend(BackendError::Refused { status, error: "no".to_owned(), retry_after: Some(7) });
        assert_eq!(error.answer(missing_is_404).status.as_u16(), expected);
    }

    #[test]
    fn a_workers_status_becomes_one_of_the_documented() {
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
    fn waiting_times_and_challenges_go_with_their_status() {
        let busy = BackendError::Refused { status: 429, error: "slow down".to_owned(), retry_after: Some(7) };
        assert_eq!(HttpError::Backend(busy).answer(false).header, Some((header::RETRY_AFTER, HeaderValue::from(7))));
        let away = HttpError::Backend(BackendError::Unavailable).answer(false);
        assert_eq!(away.header, Some((header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER))));
        let limited = HttpError::Limited { whose: "address", seconds: 3 }.answer(false);
        assert_eq!((limited.status.as_u16(), limited.header), (429, Some((header::RETRY_AFTER, HeaderValue::from(3)))));
        for after in [Some(7), None] {
            let broken = BackendError::Refused { status: 502, error: "later".to_owned(), retry_after: after };
            let expected = after.map(|after| (header::RETRY_AFTER, HeaderValue::from(after)));
            assert_eq!(HttpError::Backend(broken).answer(false).header, expected);
        }
        assert_eq!(HttpError::Unauthorized("who?").answer(false).header, Some(challenge()));
    }
}
