use std::borrow::Cow;
use std::fmt;

use url::Url;

use crate::integration::Method;
use crate::secret::Secret;

/// An HTTP request, ready to be sent: to a token or revocation endpoint, or to the receiver of webhooks.
#[derive(Clone)]
pub(crate) struct HttpRequest {
    pub method: Method,
    /// Its query may hold secrets.
    pub url: Url,
    /// Without `Content-Type`.
    pub headers: Vec<(Cow<'static, str>, Secret)>,
    /// Absent if the query has all parameters.
    pub body: Option<Body>,
}

#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub content_type: &'static str,
    pub text: Secret,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url, headers, body } = self;
        let mut url = url.clone();
        url.set_query(None);
        f.debug_struct("HttpRequest")
            .field("method", method)
            .field("url", &url.as_str())
            .field("headers", headers)
            .field("body", body)
            .finish()
    }
}
