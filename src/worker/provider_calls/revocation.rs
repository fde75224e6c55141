//! Revocation of a connection's tokens at the provider (RFC 7009).

use tracing::warn;

use super::{NoTokens, ProviderCalls};
use crate::connection::WaitingRevocation;
use crate::integration::{IntegrationOauthConfig, RequestKind, TokenAuthMethod, TokenKind};
use crate::oauth::ProviderAnswer;
use crate::oauth::error::ErrorKind;
use crate::oauth::token::{self, ClientAuthentication, Response, Revocation, TokenError};
use crate::secret::Secret;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system;

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
    /// The config has another client, or another origin for revocations, than at the login.
    ConfigChanged,
    /// The config has no revocation endpoint, or had none at the login.
    NoRevocationUrl,
    /// Another connection shares the grant.
    Shared,
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
            Self::Shared => "shared",
            Self::NotWanted => "grant_kept",
            Self::GivenUp => "revocation_given_up",
            Self::Unknown => "revocation_unknown",
        }
    }

    /// Returns the outcome of a request that authenticated the client by this method.
    fn of(error: &NoTokens, method: TokenAuthMethod) -> Self {
        let (error, status) = match error {
            NoTokens::Request(_) => return Self::ConfigChanged,
            NoTokens::OutOfTime | NoTokens::Unreachable(_) => return Self::Unreachable,
            NoTokens::Refused { error, answer, .. } => (*error, answer.status),
        };
        // Without a client in the request, it is the token that the provider refuses.
        let unauthorized = if method == TokenAuthMethod::Bearer { Self::Refused } else { Self::ClientRefused };
        match error {
            TokenError::Unauthorized => unauthorized,
            TokenError::Oauth(code) => match code.kind() {
                ErrorKind::InvalidClient => unauthorized,
                ErrorKind::InvalidGrant => Self::Refused,
                // Pages and proxies answer with other statuses, and say nothing about the token.
                ErrorKind::Other if status == 400 || (200..300).contains(&status) => Self::Refused,
                ErrorKind::Other | ErrorKind::Temporary => Self::Failed,
            },
            TokenError::RateLimited
            | TokenError::ServerError(_)
            | TokenError::Unreadable
            | TokenError::TooLarge { .. } => Self::Failed,
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
            | Self::Shared
            | Self::NotWanted
            | Self::GivenUp
            | Self::Unknown => false,
        }
    }
}

impl ProviderCalls<'_> {
    /// Asks the provider to revoke the refresh token, which ends the grant, and then the access token, which some providers
    /// leave alone otherwise (RFC 7009 §2.1). With `revoke_with` it asks for that token only. Fails only if the bus is away.
    pub(in crate::worker) async fn revoke(
        &self,
        key: &ConnectionKey,
        tokens: &WaitingRevocation,
    ) -> Result<RevocationResult, StoreError> {
        let WaitingRevocation { refresh_token, access_token, issued_at, .. } = tokens;
        let config = match self.context.store.config(&key.integration).await {
            Ok(Some(config)) => config,
            Ok(None) => return Ok(RevocationOutcome::NoConfig.into()),
            Err(StoreError::Nats(error)) => return Err(error.into()),
            Err(error) => {
                warn!("cannot ask the provider to revoke the token: {error}");
                return Ok(RevocationOutcome::ConfigUnreadable.into());
            }
        };
        let scope = &config.scope_text(&config.scopes());
        let (store, marks) = (&self.context.store, &tokens.marks);
        if config.revocation_url.is_some() && store.shares_grant(key, marks).await? {
            return Ok(RevocationOutcome::Shared.into());
        }
        let mut result = RevocationResult::from(RevocationOutcome::NoToken);
        let access_token = access_token.as_ref().filter(|_| config.revokes(TokenKind::AccessToken));
        // A connection that is refreshed with its access token has one token.
        let is_other = |token: &&Secret| access_token != Some(*token);
        let refresh_token = refresh_token.as_ref().filter(|_| config.revokes(TokenKind::RefreshToken)).filter(is_other);
        if let Some(token) = refresh_token {
            let revocation = Revocation { token, hint: TokenKind::RefreshToken, issued_at, scope };
            result = self.revoke_token(&config, &revocation).await;
            // A provider that does not take the first request does not take the second, and the caller waits.
            if result.outcome != RevocationOutcome::Revoked {
                return Ok(result);
            }
        }
        if let Some(token) = access_token {
            let revocation = Revocation { token, hint: TokenKind::AccessToken, issued_at, scope };
            let revoked = self.revoke_token(&config, &revocation).await;
            if refresh_token.is_none() {
                result = revoked;
            }
        }
        Ok(result)
    }

    /// Does the same also without the lease, for tokens that no record holds: another delivery cannot revoke them.
    pub(in crate::worker) async fn revoke_unstored(
        &self,
        key: &ConnectionKey,
        tokens: &WaitingRevocation,
    ) -> Result<RevocationResult, StoreError> {
        Self { lease: None, ..*self }.revoke(key, tokens).await
    }

    async fn revoke_token(&self, config: &IntegrationOauthConfig, revocation: &Revocation<'_>) -> RevocationResult {
        // Tokens go only where the login's config sent them, so no later config can have these revoked.
        if config.revocation_url.is_none() || revocation.issued_at.revocation_url.is_none() {
            return RevocationOutcome::NoRevocationUrl.into();
        }
        let variables = &revocation.issued_at.variables;
        let build =
            |auth: &ClientAuthentication| token::revocation_request(config, revocation, &system::random_id(), auth);
        let judge = |response: &Response<'_>| response.success(config);
        let Err(error) = self.with_each_secret(config, RequestKind::Revoke, variables, build, judge).await else {
            return RevocationOutcome::Revoked.into();
        };
        warn!(reason = error.reason(), "the provider did not revoke the token: {error}");
        RevocationResult {
            outcome: RevocationOutcome::of(&error, config.auth_method(RequestKind::Revoke)),
            answer: error.answer().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::integration::tests::config;

    #[test]
    fn answers_to_revocations_are_judged() {
        #[track_caller]
        fn check(status: u16, body: &str, expected: RevocationOutcome) {
            check_with(&json!({}), status, body, expected);
        }
        #[track_caller]
        fn check_with(fields: &serde_json::Value, status: u16, body: &str, expected: RevocationOutcome) {
            let config = config(fields).unwrap();
            let method = config.auth_method(RequestKind::Revoke);
            let judged = Response::parse(status, Some("application/json"), body.as_bytes(), &config).success(&config);
            let answer = Box::new(ProviderAnswer { status, ..ProviderAnswer::default() });
            let refused = judged.map_err(|error| NoTokens::Refused { error, retry_after: None, answer });
            let outcome =
                refused.map_or_else(|error| RevocationOutcome::of(&error, method), |()| RevocationOutcome::Revoked);
            assert_eq!(outcome, expected, "{status} {body}");
        }
        for body in ["", "{}", "ok", r#"{"ok":true}"#] {
            check(200, body, RevocationOutcome::Revoked);
        }
        check(204, "", RevocationOutcome::Revoked);
        for body in
            [r#"{"error":"invalid_token"}"#, r#"{"error":"unsupported_token_type"}"#, r#"{"error":"invalid_grant"}"#]
        {
            check(400, body, RevocationOutcome::Refused);
        }
        check(200, r#"{"ok":false,"error":"invalid_auth"}"#, RevocationOutcome::Refused);
        check(200, r#"{"error":"invalid_token"}"#, RevocationOutcome::Refused);
        check(401, r#"{"error":"invalid_grant"}"#, RevocationOutcome::Refused);
        for body in [r#"{"error":"invalid_client"}"#, r#"{"error":"unauthorized_client"}"#] {
            check(400, body, RevocationOutcome::ClientRefused);
        }
        check(200, r#"{"ok":false,"error":"bad_client_secret"}"#, RevocationOutcome::ClientRefused);
        check(401, "", RevocationOutcome::ClientRefused);
        check(401, r#"{"error":"invalid_token"}"#, RevocationOutcome::ClientRefused);
        for (status, body) in [
            (400, ""),
            (404, "not found"),
            (429, r#"{"error":"invalid_token"}"#),
            (503, r#"{"error":"invalid_grant"}"#),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (200, r#"{"ok":false,"error":"fatal_error"}"#),
            (302, ""),
        ] {
            check(status, body, RevocationOutcome::Failed);
        }
        // A bearer token that has ended is not worth another try.
        let bearer = json!({ "revocation_url": "https://acme.example/revoke", "revocation_auth_method": "bearer" });
        for body in ["", r#"{"error":"invalid_token"}"#, r#"{"error":{".tag":"expired_access_token"}}"#] {
            check_with(&bearer, 401, body, RevocationOutcome::Refused);
        }
        check_with(&bearer, 200, "null", RevocationOutcome::Revoked);
        check_with(&bearer, 503, "", RevocationOutcome::Failed);
    }
}
