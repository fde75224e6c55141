//! Client authentication (RFC 6749 §2.3).

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::RequestError;
use super::assertion::client_assertion;
use crate::integration::{IntegrationOauthConfig, RequestKind, TokenAuthMethod, expand};
use crate::secret::Secret;

/// Client authentication of one request. RFC 6749 §2.3 allows only one method per request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientAuthentication {
    /// Only the client id.
    Public,
    /// Client id and secret in the body.
    Post(Secret),
    /// Client id and secret as HTTP Basic.
    Basic(Secret),
    /// A signed client assertion.
    Assertion(Secret),
    /// None: the request's token is its authorization.
    Bearer,
}

impl ClientAuthentication {
    /// Returns the authentication of a request for the given attempt, counted from 0. Attempt 0 uses `client_secret`, and the next
    /// ones use `client_secrets` in order. Returns `None` after the last one.
    ///
    /// # Errors
    /// [`RequestError`] if an assertion cannot be signed.
    pub(crate) fn of(
        config: &IntegrationOauthConfig,
        request: RequestKind,
        attempt: usize,
        variables: &BTreeMap<String, String>,
        now: Timestamp,
        jti: &str,
    ) -> Result<Option<Self>, RequestError> {
        let secret = match attempt.checked_sub(1) {
            None => Some(&config.client_secret),
            Some(index) => config.client_secrets.get(index),
        };
        let with_secret = |method: fn(Secret) -> Self| {
            secret.map(|secret| if secret.is_empty() { Self::Public } else { method(secret.clone()) })
        };
        Ok(match config.auth_method(request) {
            TokenAuthMethod::ClientSecretPost => with_secret(Self::Post),
            TokenAuthMethod::ClientSecretBasic => with_secret(Self::Basic),
            TokenAuthMethod::PrivateKeyJwt
            | TokenAuthMethod::SignedClientSecret
            | TokenAuthMethod::None
            | TokenAuthMethod::Bearer
                if attempt > 0 =>
            {
                None
            }
            TokenAuthMethod::SignedClientSecret => {
                let token_url = config.token_endpoint(variables)?;
                let audience = token_url.origin().ascii_serialization();
                Some(Self::Post(client_assertion(config, &audience, now, jti)?))
            }
            TokenAuthMethod::PrivateKeyJwt => {
                let token_url = expand(&config.token_url, &config.variables, variables)?;
                Some(Self::Assertion(client_assertion(config, &token_url, now, jti)?))
            }
            TokenAuthMethod::None => Some(Self::Public),
            TokenAuthMethod::Bearer => Some(Self::Bearer),
        })
    }
}
