use url::Url;

use crate::secret::Secret;

/// An HTTP POST, ready to be sent: to a token or revocation endpoint, or to the receiver of webhooks.
#[derive(Debug, Clone)]
pub(crate) struct PostRequest {
    pub url: Url,
    /// Without `Content-Type`.
    pub headers: Vec<(&'static str, Secret)>,
    pub content_type: &'static str,
    pub body: Secret,
}
