//! What proves who is calling. It travels in `Oauth-Credential`, or sealed in a command, and workers alone judge it.

use serde::{Deserialize, Serialize};

use crate::secret::{self, Secret};
use crate::signed::{self, SCHEME};

/// What whoever comes without one is told.
pub const CREDENTIAL_NEEDED: &str = "a credential is needed: send `X-Api-Key` or `Authorization: Bearer`";

/// A credential in its text form: `Bearer <jwt>`, `X-Api-Key <key>`, or
/// `NATS <jwt> <timestamp> <nonce> <signature> <method> <path?query> <hash of the body>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credential(#[serde(serialize_with = "secret::in_clear")] Secret);

impl Credential {
    /// Takes the text form in.
    #[must_use]
    pub fn new(text: Secret) -> Self {
        Self(text)
    }

    /// Whether it is a signed request's, which has to say what the body was.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.expose().split_once(' ').is_some_and(|(scheme, _)| scheme == SCHEME)
    }

    /// The same, saying what the body was.
    #[must_use]
    pub fn over(&self, body: &[u8]) -> Self {
        Self(Secret::new(format!("{} {}", self.expose(), signed::hash(body))))
    }

    /// What requests with it are counted by: of a signed request, whose signature is another each time, the JWT alone.
    #[must_use]
    pub fn counted_by(&self) -> &str {
        let text = self.expose();
        let end = if self.is_signed() { text.match_indices(' ').nth(1).map(|(at, _)| at) } else { None };
        end.and_then(|end| text.get(..end)).unwrap_or(text)
    }

    /// The text form in clear, for the header and for whoever judges it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}
