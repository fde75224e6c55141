//! Credentials of callers. The gateway passes them on, in a call or sealed in a command; only workers verify them.

use serde::{Deserialize, Serialize};

use crate::secret::{self, Secret};
use crate::signed::{self, SCHEME};

/// Error for callers without a credential.
pub const CREDENTIAL_NEEDED: &str = "a credential is needed: send `X-Api-Key` or `Authorization: Bearer`";

/// A credential in its text form: `Bearer <jwt>`, `X-Api-Key <key>`, or
/// `NATS <jwt> <timestamp> <nonce> <signature> <method> <path?query> <hash of the body>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credential(#[serde(serialize_with = "secret::in_clear")] Secret);

impl Credential {
    #[must_use]
    pub fn new(text: Secret) -> Self {
        Self(text)
    }

    /// Returns true for a signed request, which needs the hash of the body: see [`Credential::with_body_hash`].
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.expose().split_once(' ').is_some_and(|(scheme, _)| scheme == SCHEME)
    }

    /// Appends the hash of the body.
    #[must_use]
    pub fn with_body_hash(&self, body: &[u8]) -> Self {
        Self(Secret::new(format!("{} {}", self.expose(), signed::hash(body))))
    }

    /// Key for rate limits. Of a signed request it is only the JWT, because each signature differs.
    #[must_use]
    pub fn rate_limit_key(&self) -> &str {
        let text = self.expose();
        let end = if self.is_signed() { text.match_indices(' ').nth(1).map(|(at, _)| at) } else { None };
        end.and_then(|end| text.get(..end)).unwrap_or(text)
    }

    /// The text form in clear.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}
