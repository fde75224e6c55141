//! Revocation requests and answers (RFC 7009 §2).

use serde_json::Value;

use super::request::{issuer_endpoint, post_request};
use super::{ClientAuthentication, RequestError};
use crate::integration::{IntegrationOauthConfig, IssuedAt};
use crate::oauth::error::{ErrorCode, ErrorKind};
use crate::oauth::{PostRequest, json};
use crate::secret::Secret;

/// A token to revoke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revocation<'a> {
    pub token: &'a Secret,
    pub hint: TokenTypeHint,
    pub issued_at: &'a IssuedAt,
}

/// `token_type_hint` (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenTypeHint {
    AccessToken,
    RefreshToken,
}

impl TokenTypeHint {
    fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }
}

/// Builds a revocation request (RFC 7009 §2.1). Returns `None` if the config has no revocation endpoint.
///
/// # Errors
/// [`RequestError::IssuedElsewhere`] if the token must not be sent to the config's revocation endpoint.
pub(crate) fn revocation_request(
    config: &IntegrationOauthConfig,
    revocation: &Revocation<'_>,
    authentication: &ClientAuthentication,
) -> Result<Option<PostRequest>, RequestError> {
    let Some(url) = &config.revocation_url else { return Ok(None) };
    let url = issuer_endpoint(config, url, revocation.issued_at)?;
    let params = vec![("token", revocation.token.expose()), ("token_type_hint", revocation.hint.as_str())];
    Ok(Some(post_request(config, url, params, authentication)))
}

/// Meaning of an answer to a revocation request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevocationAnswer {
    /// The token is revoked, or was not valid (RFC 7009 §2.2).
    Revoked,
    /// The provider accepts the request but not the token. Another try has the same result.
    TokenRefused,
    /// The provider does not accept the client. Another secret or a corrected config helps.
    ClientRefused,
    /// Every other answer.
    Failed,
}

/// Judges an answer to a revocation request (RFC 7009 §2.2). Some providers send errors with the status 200.
#[must_use]
pub(crate) fn judge_revocation(status: u16, body: &[u8]) -> RevocationAnswer {
    let body = json::parse(&String::from_utf8_lossy(body)).unwrap_or_default();
    let is_success = (200..300).contains(&status);
    if is_success && body.get("ok") != Some(&Value::Bool(false)) {
        return RevocationAnswer::Revoked;
    }
    let code = body.get("error").and_then(Value::as_str).map(ErrorCode::parse);
    match code.map(ErrorCode::kind) {
        _ if status == 401 => RevocationAnswer::ClientRefused,
        Some(_) if code == Some(ErrorCode::UnauthorizedClient) => RevocationAnswer::ClientRefused,
        Some(ErrorKind::InvalidClient) => RevocationAnswer::ClientRefused,
        Some(ErrorKind::InvalidGrant | ErrorKind::Other) if is_success || status == 400 => {
            RevocationAnswer::TokenRefused
        }
        Some(_) | None => RevocationAnswer::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_revocations_are_judged() {
        #[track_caller]
        fn check(status: u16, body: &str, expected: RevocationAnswer) {
            assert_eq!(judge_revocation(status, body.as_bytes()), expected, "{status} {body}");
        }
        for body in ["", "{}", "ok", r#"{"ok":true}"#] {
            check(200, body, RevocationAnswer::Revoked);
        }
        check(204, "", RevocationAnswer::Revoked);
        for body in
            [r#"{"error":"invalid_token"}"#, r#"{"error":"unsupported_token_type"}"#, r#"{"error":"invalid_grant"}"#]
        {
            check(400, body, RevocationAnswer::TokenRefused);
        }
        check(200, r#"{"ok":false,"error":"invalid_auth"}"#, RevocationAnswer::TokenRefused);
        for body in [r#"{"error":"invalid_client"}"#, r#"{"error":"unauthorized_client"}"#] {
            check(400, body, RevocationAnswer::ClientRefused);
        }
        check(401, "", RevocationAnswer::ClientRefused);
        check(401, r#"{"error":"invalid_token"}"#, RevocationAnswer::ClientRefused);
        for (status, body) in [
            (400, ""),
            (404, "not found"),
            (429, r#"{"error":"invalid_token"}"#),
            (503, r#"{"error":"invalid_grant"}"#),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (302, ""),
        ] {
            check(status, body, RevocationAnswer::Failed);
        }
    }
}
