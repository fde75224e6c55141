//! Forms that browsers post.

use hyper::header::{self, HeaderMap};

use super::credential::single;
use crate::gateway::routes::error::HttpError;

/// Media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// Returns the text of a form in a body.
pub(in crate::gateway) fn form<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<&'a str, HttpError> {
    let media_type = single(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(FORM) {
        return Err(HttpError::bad_request(format!("the body must be a form: {FORM}")));
    }
    std::str::from_utf8(body).map_err(HttpError::FormNotText)
}
