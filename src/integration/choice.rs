//! Fields of a config that take one of a few words.

use serde::{Deserialize, Serialize};

/// What stands between scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum ScopeSeparator {
    /// A space (RFC 6749 §3.3).
    #[default]
    #[serde(rename = " ")]
    Space,
    /// A comma.
    #[serde(rename = ",")]
    Comma,
    /// A plus sign.
    #[serde(rename = "+")]
    Plus,
}

impl ScopeSeparator {
    /// The character.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Space => " ",
            Self::Comma => ",",
            Self::Plus => "+",
        }
    }
}

/// Whether the code is bound to a verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Pkce {
    /// With a SHA-256 challenge (RFC 7636 §4.2).
    #[default]
    S256,
    /// Not at all, for providers that refuse the parameters.
    #[serde(rename = "off")]
    Off,
}

/// How the client authenticates (RFC 7591 §2's names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenAuthMethod {
    /// Id and secret in the body.
    #[default]
    ClientSecretPost,
    /// Id and secret as HTTP Basic.
    ClientSecretBasic,
    /// A signed assertion (RFC 7523 §2.2).
    PrivateKeyJwt,
    /// A public client: the id alone.
    None,
}

/// How a request's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BodyFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
    #[default]
    Form,
    /// A JSON object of strings.
    Json,
}

/// What `expires_in` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum ExpiresInUnit {
    /// Seconds (RFC 6749 §5.1).
    #[default]
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
}

/// How a client assertion is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum KeyAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[default]
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}
