//! Error codes: a fixed list, so that nothing a provider writes is ever repeated.

use std::fmt;

/// What a caller does about an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The code or refresh token is spent, revoked or foreign.
    InvalidGrant,
    /// The integration's own credentials are refused.
    InvalidClient,
    /// The person or the provider said no.
    Denied,
    /// Worth another try later.
    Temporary,
    /// The request was wrong, or nobody knows.
    Other,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $kind:ident;)*) => {
        /// A code of RFC 6749 §4.1.2.1 and §5.2, or of OpenID Connect Core §3.1.2.6.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// The code as the RFC writes it.
            #[must_use]
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What to do about it.
            #[must_use]
            pub(crate) fn kind(self) -> ErrorKind {
                match self { $(Self::$variant => ErrorKind::$kind,)* }
            }

            fn standard(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// Malformed request.
    InvalidRequest = "invalid_request", Other;
    /// Client authentication failed.
    InvalidClient = "invalid_client", InvalidClient;
    /// The code or refresh token is not valid.
    InvalidGrant = "invalid_grant", InvalidGrant;
    /// The client may not do this.
    UnauthorizedClient = "unauthorized_client", Other;
    /// The server does not know the grant type.
    UnsupportedGrantType = "unsupported_grant_type", Other;
    /// The server does not know the response type.
    UnsupportedResponseType = "unsupported_response_type", Other;
    /// A scope is unknown or too much.
    InvalidScope = "invalid_scope", Other;
    /// The person or the server denied it.
    AccessDenied = "access_denied", Denied;
    /// The server failed.
    ServerError = "server_error", Temporary;
    /// The server is busy.
    TemporarilyUnavailable = "temporarily_unavailable", Temporary;
    /// The person has to act (OpenID Connect).
    InteractionRequired = "interaction_required", Denied;
    /// The person has to log in (OpenID Connect).
    LoginRequired = "login_required", Denied;
    /// The person has to consent (OpenID Connect).
    ConsentRequired = "consent_required", Denied;
    /// The person has to choose (OpenID Connect).
    AccountSelectionRequired = "account_selection_required", Denied;
    /// Anything else.
    Unknown = "unknown_error", Other;
}

impl ErrorCode {
    /// Reads a provider's code; some providers' own words stand for the RFC's.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        Self::standard(text).unwrap_or(match text {
            // GitHub; RFC 6749 §5.2 counts a wrong redirect URI among the invalid grants.
            "bad_verification_code" | "bad_refresh_token" | "redirect_uri_mismatch"
            // Slack.
            | "invalid_code"
            | "code_already_used"
            | "code_expired"
            | "bad_redirect_uri"
            | "invalid_refresh_token"
            | "token_expired"
            | "token_revoked" => Self::InvalidGrant,
            "incorrect_client_credentials" | "bad_client_secret" | "invalid_client_id" | "invalid_client_secret" => Self::InvalidClient,
            "application_suspended" => Self::UnauthorizedClient,
            "ratelimited" | "service_unavailable" => Self::TemporarilyUnavailable,
            "internal_error" | "fatal_error" => Self::ServerError,
            // LinkedIn, Facebook.
            "user_cancelled_login" | "user_cancelled_authorize" | "user_denied" => Self::AccessDenied,
            _ => Self::Unknown,
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b6_codes_come_from_a_fixed_list() {
        for (text, code) in [
            ("invalid_grant", "invalid_grant"),
            ("bad_verification_code", "invalid_grant"),
            ("incorrect_client_credentials", "invalid_client"),
            ("<script>", "unknown_error"),
            ("", "unknown_error"),
        ] {
            assert_eq!(ErrorCode::parse(text).as_str(), code, "{text}");
        }
        assert_eq!(ErrorCode::parse("server_error").kind(), ErrorKind::Temporary);
    }
}
