//! Why a credential is rejected. The reason goes to the worker's log only: a caller who tries credentials must not
//! learn which part of one was right.

use std::error::Error;
use std::sync::Arc;

/// Reason and cause. Cloneable, because rejected JWTs of accounts are cached.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    reason: Reason,
    #[source]
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("neither an API key, a bearer JWT nor a signed request")]
    Scheme,
    #[error("the API key is unknown, wrong, expired or revoked")]
    ApiKey,
    #[error("the client's address is in none of the API key's networks")]
    Network,
    /// Also for a JWT that is too long, and for claims of the wrong type.
    #[error("the JWT or signed request is malformed")]
    Form,
    #[error("the JWT's `typ` says that it is for another purpose")]
    Type,
    #[error("JWTs of this kind are not configured")]
    NotConfigured,
    #[error("the key must not be used with the JWT's algorithm")]
    Algorithm,
    #[error("the JWT's key is unknown")]
    Key,
    #[error("the signature is wrong")]
    Signature,
    #[error("the JWT has expired, or has no `exp` where one is required")]
    Expired,
    #[error("the JWT is not valid yet")]
    NotYetValid,
    #[error("the JWT is from another issuer")]
    Issuer,
    #[error("the JWT is for another audience")]
    Audience,
    #[error("the JWT's subject is missing or is no user")]
    Subject,
    #[error("the JWT names no valid account")]
    Account,
    #[error("the account has no valid JWT")]
    UnknownAccount,
    #[error("the account's JWT is not signed by a trusted operator")]
    Operator,
    #[error("the account's JWT revokes the user")]
    Revoked,
    #[error("the user's JWT is not a bearer token: the user must sign its requests")]
    NotBearer,
    #[error("the account allows no bearer tokens")]
    BearersDisallowed,
    /// Only nats-server can check such limits.
    #[error("the user is limited to addresses, times or kinds of connections, which cannot be checked here")]
    Restricted,
    #[error("the user has permissions of its own beside those of its scoped signing key")]
    Scope,
    #[error("the user's permissions do not cover this call")]
    Permission,
    #[error("the request was signed too long ago, or in the future")]
    Timestamp,
    #[error("the request was signed for something else")]
    Misused,
    #[error("the request was used before")]
    Replayed,
}

impl Reason {
    /// Name in events.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Scheme | Self::Form => "malformed",
            Self::ApiKey => "api_key",
            Self::Network => "network",
            Self::Type => "jwt_type",
            Self::NotConfigured => "not_configured",
            Self::Algorithm | Self::Key | Self::Signature => "signature",
            Self::Expired | Self::NotYetValid => "expired",
            Self::Issuer | Self::Audience | Self::Subject | Self::Account | Self::Operator => "issuer",
            Self::UnknownAccount => "unknown_account",
            Self::Revoked => "revoked",
            Self::NotBearer | Self::BearersDisallowed => "no_bearer",
            Self::Restricted | Self::Scope | Self::Permission => "permission",
            Self::Timestamp | Self::Misused | Self::Replayed => "signed_request",
        }
    }
}

impl Rejection {
    pub(super) fn code(&self) -> &'static str {
        self.reason.code()
    }

    pub(super) fn is_unknown_key(&self) -> bool {
        self.reason == Reason::Key
    }

    #[cfg(test)]
    pub(super) fn reason(&self) -> Reason {
        self.reason
    }
}

impl Reason {
    /// Rejects for this reason, with the error that led to it.
    pub(super) fn because(self, cause: impl Error + Send + Sync + 'static) -> Rejection {
        Rejection { reason: self, cause: Some(Arc::new(cause)) }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, cause: None }
    }
}
