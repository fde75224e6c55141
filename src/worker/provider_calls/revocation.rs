//! Revocation of a connection's tokens at the provider (RFC 7009).

use tracing::warn;

use crate::connection::StoredConnection;
use crate::integration::{IntegrationOauthConfig, IssuedAt};
use crate::oauth::token::{self, ClientAuthentication, Revocation, TokenTypeHint};
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system;
use crate::worker::context::Context;

/// Result of the revocation at the provider. The connection is deleted here in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevocationOutcome {
    Revoked,
    Refused,
    /// The request may have arrived.
    Unreachable,
    /// The connection has no token.
    NoToken,
    NoConfig,
    /// The config cannot be opened or read.
    ConfigUnreadable,
    /// The config has another token endpoint or client than the tokens were issued for.
    ConfigChanged,
    NoRevocationUrl,
    /// The caller wants to keep the grant.
    NotWanted,
    /// The provider was asked, but the worker died before it stored the answer.
    Unknown,
}

impl RevocationOutcome {
    /// The reason in the event, from a fixed list.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked_at_provider",
            Self::Refused => "refused_by_provider",
            Self::Unreachable => "provider_unreachable",
            Self::NoToken => "no_token",
            Self::NoConfig => crate::connection::NO_CONFIG,
            Self::ConfigUnreadable => "config_unreadable",
            Self::ConfigChanged => "config_changed",
            Self::NoRevocationUrl => "no_revocation_url",
            Self::NotWanted => "grant_kept",
            Self::Unknown => "revocation_unknown",
        }
    }
}

/// Asks the provider to revoke the refresh token, which ends the grant, and then the access token, which some providers
/// leave alone otherwise (RFC 7009 §2.1). Fails only if the bus is away.
pub(in crate::worker) async fn revoke(
    context: &Context,
    key: &ConnectionKey,
    stored: &StoredConnection,
) -> Result<RevocationOutcome, StoreError> {
    let StoredConnection { connection, issued_at, .. } = stored;
    let config = match context.store.config(&key.integration).await {
        Ok(Some(config)) => config,
        Ok(None) => return Ok(RevocationOutcome::NoConfig),
        Err(StoreError::Nats(error)) => return Err(error.into()),
        Err(error) => {
            warn!("cannot ask the provider to revoke the token: {error}");
            return Ok(RevocationOutcome::ConfigUnreadable);
        }
    };
    let mut outcome = RevocationOutcome::NoToken;
    if let Some(token) = &connection.refresh_token {
        outcome = revoke_token(context, &config, issued_at, token, TokenTypeHint::RefreshToken).await;
        // A provider that does not take the first request does not take the second, and the caller waits.
        if outcome != RevocationOutcome::Revoked {
            return Ok(outcome);
        }
    }
    if let Some(token) = &connection.access_token {
        let revoked = revoke_token(context, &config, issued_at, token, TokenTypeHint::AccessToken).await;
        if connection.refresh_token.is_none() {
            outcome = revoked;
        }
    }
    Ok(outcome)
}

/// Sends one request for each of the client's secrets, until the client is not refused.
async fn revoke_token(
    context: &Context,
    config: &IntegrationOauthConfig,
    issued_at: &IssuedAt,
    token: &Secret,
    hint: TokenTypeHint,
) -> RevocationOutcome {
    let revocation = Revocation { token, hint, issued_at };
    for attempt in 0.. {
        let variables = &issued_at.variables;
        let auth = match ClientAuthentication::of(config, attempt, variables, context.clock.now(), &system::random_id())
        {
            Ok(Some(auth)) => auth,
            Ok(None) => break,
            Err(error) => {
                warn!("cannot ask the provider to revoke the token: {error}");
                return RevocationOutcome::ConfigChanged;
            }
        };
        let request = match token::revocation_request(config, &revocation, &auth) {
            Ok(Some(request)) => request,
            Ok(None) => return RevocationOutcome::NoRevocationUrl,
            Err(error) => {
                warn!("cannot ask the provider to revoke the token: {error}");
                return RevocationOutcome::ConfigChanged;
            }
        };
        match context.provider.send(request).await {
            Ok(response) if (200..300).contains(&response.status) => return RevocationOutcome::Revoked,
            Ok(response) => {
                warn!(status = response.status, "the provider did not revoke the token");
                if response.status != 401 {
                    break;
                }
            }
            Err(error) => {
                warn!("cannot ask the provider to revoke the token: {error}");
                return RevocationOutcome::Unreachable;
            }
        }
    }
    RevocationOutcome::Refused
}
