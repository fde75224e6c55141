//! Fields of a config with a fixed set of values.

use serde::{Deserialize, Serialize};

/// Separator of the scopes in the authorization request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum ScopeSeparator {
    /// RFC 6749 §3.3.
    #[default]
    #[serde(rename = " ")]
    Space,
    #[serde(rename = ",")]
    Comma,
    #[serde(rename = "+")]
    Plus,
}

impl ScopeSeparator {
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Space => " ",
            Self::Comma => ",",
            Self::Plus => "+",
        }
    }
}

/// Proof key for code exchange (RFC 7636).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Pkce {
    /// A SHA-256 challenge (RFC 7636 §4.2).
    #[default]
    S256,
    /// No challenge, for providers that reject its parameters.
    #[serde(rename = "off")]
    Off,
}

/// Client authentication at the token endpoint, with the names of RFC 7591 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenAuthMethod {
    /// Client id and secret in the body.
    #[default]
    ClientSecretPost,
    /// Client id and secret as HTTP Basic.
    ClientSecretBasic,
    /// A signed client assertion (RFC 7523 §2.2).
    PrivateKeyJwt,
    /// The client secret is a signed JWT.
    SignedClientSecret,
    /// A public client: only the client id.
    None,
    /// The token to revoke as `Authorization: Bearer` (RFC 6750 §2.1), without the client. For revocations only.
    Bearer,
}

/// HTTP method of a request to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    /// Parameters are in the query.
    Get,
    #[default]
    Post,
    /// For revocations only.
    Delete,
}

impl Method {
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Place and format of the parameters of token requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BodyFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
    #[default]
    Form,
    /// A JSON object of strings.
    Json,
    /// No body: the URL's query.
    Query,
}

/// Encoding of client id and secret before HTTP Basic joins them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BasicEncoding {
    /// RFC 6749 §2.3.1.
    #[default]
    Form,
    /// None, for providers that expect plain HTTP Basic (RFC 7617).
    Raw,
}

/// The way in which the provider returns its answer to an authorization request (OAuth 2.0 Multiple Response Types §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResponseMode {
    /// The request has no `response_mode`.
    #[default]
    #[serde(rename = "")]
    Unset,
    Query,
    FormPost,
}

impl ResponseMode {
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Query => "query",
            Self::FormPost => "form_post",
        }
    }
}

/// One of the two tokens of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenKind {
    /// What a refresh sends (RFC 6749 §6).
    #[default]
    RefreshToken,
    AccessToken,
}

impl TokenKind {
    /// The value of `token_type_hint` (RFC 7009 §2.1).
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
        }
    }
}

/// Unit of `expires_in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum ExpiresInUnit {
    /// RFC 6749 §5.1.
    #[default]
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
}

/// Signature algorithm of client assertions.
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
