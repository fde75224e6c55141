//! Revocation of a connection's tokens at the provider (RFC 7009).

use tracing::warn;

use crate::connection::WaitingRevocation;
use crate::integration::{IntegrationOauthConfig, IssuedAt};
use crate::oauth::ProviderAnswer;
use crate::oauth::token::{self, ClientAuthentication, Revocation, RevocationAnswer, TokenTypeHint};
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system;
use crate::worker::context::Context;

/// Result of the revocation at the provider. The connection is deleted here in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevocationOutcome {
    Revoked,
    /// The provider does not accept the token.
    Refused,
    ClientRefused,
    /// The provider answered with another error.
    Failed,
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
    /// All tries failed until `revoke.give_up_after`.
    GivenUp,
    /// The provider was asked, but the worker died before it stored the answer.
    Unknown,
}

/// Result of the requests to revoke a connection's tokens.
#[derive(Debug)]
pub(crate) struct RevocationResult {
    pub(crate) outcome: RevocationOutcome,
    /// The provider's answer, if it is a refusal.
    pub(crate) answer: Option<ProviderAnswer>,
}

impl From<RevocationOutcome> for RevocationResult {
    fn from(outcome: RevocationOutcome) -> Self {
        Self { outcome, answer: None }
    }
}

impl RevocationOutcome {
    /// The reason in the event, from a fixed list.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked_at_provider",
            Self::Refused => "refused_by_provider",
            Self::ClientRefused => "invalid_client",
            Self::Failed => "provider_error",
            Self::Unreachable => "provider_unreachable",
            Self::NoToken => "no_token",
            Self::NoConfig => crate::connection::NO_CONFIG,
            Self::ConfigUnreadable => "config_unreadable",
            Self::ConfigChanged => "config_changed",
            Self::NoRevocationUrl => "no_revocation_url",
            Self::NotWanted => "grant_kept",
            Self::GivenUp => "revocation_given_up",
            Self::Unknown => "revocation_unknown",
        }
    }

    /// Returns true if a later try may succeed: with a provider that works again, or with a corrected config.
    pub(crate) fn allows_retry(self) -> bool {
        match self {
            Self::ClientRefused
            | Self::Failed
            | Self::Unreachable
            | Self::NoConfig
            | Self::ConfigUnreadable
            | Self::ConfigChanged => true,
            Self::Revoked
            | Self::Refused
            | Self::NoToken
            | Self::NoRevocationUrl
            | Self::NotWanted
            | Self::GivenUp
            | Self::Unknown => false,
        }
    }
}

/// Asks the provider to revoke the refresh token, which ends the grant, and then the access token, which some providers
/// leave alone otherwise (RFC 7009 §2.1). Fails only if the bus is away.
pub(in crate::worker) async fn revoke(
    context: &Context,
    key: &ConnectionKey,
    tokens: &WaitingRevocation,
) -> Result<RevocationResult, StoreError> {
    let WaitingRevocation { refresh_token, access_token, issued_at, .. } = tokens;
    let config = match context.store.config(&key.integration).await {
        Ok(Some(config)) => config,
        Ok(None) => return Ok(RevocationOutcome::NoConfig.into()),
        Err(StoreError::Nats(error)) => return Err(error.into()),
        Err(error) => {
            warn!("cannot ask the provider to revoke the token: {error}");
            return Ok(RevocationOutcome::ConfigUnreadable.into());
        }
    };
    let mut result = RevocationResult::from(RevocationOutcome::NoToken);
    if let Some(token) = refresh_token {
        result = revoke_token(context, &config, issued_at, token, TokenTypeHint::RefreshToken).await;
        // A provider that does not take the first request does not take the second, and the caller waits.
        if result.outcome != RevocationOutcome::Revoked {
            return Ok(result);
        }
    }
    if let Some(token) = access_token {
        let revoked = revoke_token(context, &config, issued_at, token, TokenTypeHint::AccessToken).await;
        if refresh_token.is_none() {
            result = revoked;
        }
    }
    Ok(result)
}

/// Sends one request for each of the client's secrets, until the client is not refused.
async fn revoke_token(
    context: &Context,
    config: &IntegrationOauthConfig,
    issued_at: &IssuedAt,
    token: &Secret,
    hint: TokenTypeHint,
) -> RevocationResult {
    let mut refusal = None;
    let revocation = Revocation { token, hint, issued_at };
    for attempt in 0.. {
        let variables = &issued_at.variables;
        let auth = match ClientAuthentication::of(config, attempt, variables, context.clock.now(), &system::random_id())
        {
            Ok(Some(auth)) => auth,
            Ok(None) => break,
            Err(error) => {
                warn!("cannot ask the provider to revoke the token: {error}");
                return RevocationOutcome::ConfigChanged.into();
            }
        };
        let request = match token::revocation_request(config, &revocation, &auth) {
            Ok(Some(request)) => request,
            Ok(None) => return RevocationOutcome::NoRevocationUrl.into(),
            Err(error) => {
                warn!("cannot ask the provider to revoke the token: {error}");
                return RevocationOutcome::ConfigChanged.into();
            }
        };
        let response = match context.provider.send(request.clone()).await {
            Ok(response) => response,
            Err(error) => {
                warn!("cannot ask the provider to revoke the token: {error}");
                return RevocationOutcome::Unreachable.into();
            }
        };
        let outcome = match token::judge_revocation(response.status, &response.body) {
            RevocationAnswer::Revoked => return RevocationOutcome::Revoked.into(),
            RevocationAnswer::TokenRefused => RevocationOutcome::Refused,
            RevocationAnswer::ClientRefused => RevocationOutcome::ClientRefused,
            RevocationAnswer::Failed => RevocationOutcome::Failed,
        };
        let answer = ProviderAnswer::read(response.status, &response.body, &request);
        super::log(&answer, "the provider did not revoke the token");
        if outcome != RevocationOutcome::ClientRefused {
            return RevocationResult { outcome, answer: Some(answer) };
        }
        refusal = Some(answer);
    }
    RevocationResult { outcome: RevocationOutcome::ClientRefused, answer: refusal }
}
