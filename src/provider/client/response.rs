use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use super::encoding::{Oversized, decoded};
use crate::provider::ProviderError;
use crate::system;

/// Most bytes of a response, as sent and decompressed.
pub(crate) const MAX_BODY_BYTES: usize = 256 * 1024;
/// A day. A longer wait would stop a connection's refreshes because of one wrong header.
pub(super) const MAX_RETRY_AFTER_SECONDS: u64 = 24 * 3600;

/// A provider's response, with any status.
#[derive(Clone)]
pub(crate) struct ProviderResponse {
    pub status: u16,
    pub content_type: Option<String>,
    /// At most a day.
    pub retry_after: Option<Duration>,
    /// Decompressed; at most 256 KiB.
    pub body: Bytes,
}

/// Omits the body, which may contain tokens.
impl fmt::Debug for ProviderResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderResponse")
            .field("status", &self.status)
            .field("length", &self.body.len())
            .finish_non_exhaustive()
    }
}

pub(super) async fn read_response(mut response: Response) -> Result<ProviderResponse, ProviderError> {
    let status = response.status().as_u16();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = |name| response.headers().get(name).map(text);
    let content_type = header(CONTENT_TYPE);
    let retry_after = header(RETRY_AFTER).and_then(|text| parse_retry_after(text.trim(), system::now()));
    let codings: Vec<String> = response.headers().get_all(CONTENT_ENCODING).iter().map(text).collect();
    let too_large = || ProviderError::TooLarge { status, retry_after };
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(ProviderError::from_body)? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    let body = decoded(body.freeze(), &codings.join(","), MAX_BODY_BYTES).map_err(|Oversized| too_large())?;
    Ok(ProviderResponse { status, content_type, retry_after, body })
}

/// Returns the wait that `Retry-After` asks for, in seconds or as a date (RFC 9110 §10.2.3). A past date is no wait.
fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let seconds = text.parse().ok().or_else(|| {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(u64::try_from(date.as_second().saturating_sub(now.as_second())).unwrap_or(0))
    })?;
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER_SECONDS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_waits_are_seconds_or_dates() {
        let now: Timestamp = "2026-10-21T07:28:00Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("999999999", Some(MAX_RETRY_AFTER_SECONDS)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
            ("Thu, 21 Oct 2100 07:28:00 GMT", Some(MAX_RETRY_AFTER_SECONDS)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999999999999", None),
            ("Wed, 41 Oct 2026 07:28:00 GMT", None),
            ("", None),
        ] {
            assert_eq!(parse_retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn d5_retry_after_is_seconds_or_a_date() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("Thu, 01 Jan 2026 00:02:00 GMT", Some(120)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0)),
            ("99999999", Some(86_400)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(parse_retry_after(text, now).map(|wait| wait.as_secs()), seconds, "{text}");
        }
    }
}
